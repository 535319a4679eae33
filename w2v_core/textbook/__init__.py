"""The word2vec chapter of the textbooks, layer by layer: readable, exact, and as slow as that costs."""
