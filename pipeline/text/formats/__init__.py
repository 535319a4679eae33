"""Formats with text in a field of a record: JSON, tables, Parquet and Arrow."""
