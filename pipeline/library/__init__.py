"""The pipeline as a library: `from pipeline import train, load`."""
