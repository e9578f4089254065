"""Rules that move one good setting to another batch, size, length, width or optimizer: one rule a file."""
