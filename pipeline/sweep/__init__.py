"""Several settings on the same text, compared in one table."""
