"""Several settings over the same text, in one table."""
