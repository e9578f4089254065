"""What a device reaches: matrix products by shape, memory, launches, copies and collectives."""
