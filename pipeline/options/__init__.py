"""Sections of the configuration, paths relative to its file, and other programs' names for settings."""
