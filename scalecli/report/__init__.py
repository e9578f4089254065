"""Pictures of fits and plans; matplotlib is imported where it draws."""
