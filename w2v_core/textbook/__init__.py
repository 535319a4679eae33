"""The word2vec chapter of a textbook, layer by layer: readable and exact rather than fast."""
