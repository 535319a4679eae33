"""File formats of other programs, written and read."""
