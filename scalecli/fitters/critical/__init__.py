"""Critical batch sizes from runs at several batches, in the definitions that the literature has for them."""
