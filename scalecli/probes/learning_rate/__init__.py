"""The best learning rate at one scale, as a range, and the largest stable one."""
