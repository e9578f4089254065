"""Peak memory of a training step: traced on the meta device, or measured in a child process."""
