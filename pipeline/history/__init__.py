"""What was complete, kept: snapshots of complete runs, the list of what became of each, and the one that answers now."""
