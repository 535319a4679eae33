"""From files to words: choosing the files, decoding their bytes to clean text, splitting text into words."""
