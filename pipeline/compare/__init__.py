"""Comparing results: settings, scores, seconds, and the words whose neighbourhoods moved most."""
