"""Run tables, the store, corpora and the catalogue of published numbers."""
