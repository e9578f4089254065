"""Which runs to train next, so that the answer for a target gets surest."""
