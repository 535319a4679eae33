"""The training stream of an epoch: drawn from the tokens, and readable in any range."""
