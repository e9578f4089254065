"""Sizes of updates, their correlation with gradients, and rises of the loss, over batches and learning rates."""
