"""`w2v refresh`: what is new in the corpus, a challenger made from it, gates it has to pass, and one decision."""
