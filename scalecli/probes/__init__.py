"""Small trainings and measurements: the only place that imports torch."""
