"""`w2v refresh`: detects what is new in the corpus, trains a challenger on it, applies gates, and takes one decision."""
