"""Results beside each other: settings, scores, seconds, and the words whose neighbourhoods moved most."""
