"""From files to tokens: which files, their bytes as clean text, and text as words."""
