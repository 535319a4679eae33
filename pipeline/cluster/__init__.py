"""Dask: the configured cluster, opened, and as the `Workers` that stages see."""
