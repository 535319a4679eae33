"""What keeps others out: how processes start, where they keep scratch files, and how names and files from outside are opened."""
