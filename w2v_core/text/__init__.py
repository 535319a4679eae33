"""Bytes of text as words, compiled."""
