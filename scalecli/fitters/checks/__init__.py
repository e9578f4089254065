"""What the runs and their fit say against each other: rows, columns, tuning, single choices, the curve itself."""
