"""From bytes of text to words, compiled."""
