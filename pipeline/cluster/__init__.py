"""The configured Dask cluster: opening it, and presenting it to stages as `Workers`."""
