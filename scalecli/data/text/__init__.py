"""Text to train on: where it comes from, how it is split, how it becomes tokens."""
