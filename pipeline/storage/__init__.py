"""Buckets: what is named there, how it is reached, read and put, and how a workdir lies in one."""
