"""Experiment tracking: events for MLflow, spooled to disk and delivered by a separate process."""
