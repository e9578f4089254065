"""How long a step takes: kernels of one device, links between devices, and what hides behind what."""
