"""What MLflow is told, spooled here and shipped by a process of its own."""
