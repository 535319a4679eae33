"""Buckets: addresses, access, reading and writing objects, and workdirs in a bucket."""
