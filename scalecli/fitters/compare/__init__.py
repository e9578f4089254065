"""Two fits against each other: where they cross, what the better one is worth, and whether exponents agree."""
