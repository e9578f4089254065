"""Runs in, laws out: the laws, the solver, uncertainty, validation and design."""
