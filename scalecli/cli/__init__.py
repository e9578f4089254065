"""The command line: thin commands, shared options, one renderer, one error mapper."""
