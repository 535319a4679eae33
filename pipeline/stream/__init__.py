"""The training stream of an epoch: drawn from the tokens, and read in any range."""
