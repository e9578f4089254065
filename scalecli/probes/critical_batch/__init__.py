"""Critical batch size: steps to a target over batch sizes, or branches from one point of a training."""
