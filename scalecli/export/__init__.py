"""A plan rendered for a person or a launcher."""
