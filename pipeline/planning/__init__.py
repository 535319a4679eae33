"""What a run will take, before it is started: a model, and constants measured on this machine in seconds."""
