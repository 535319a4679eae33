"""Protection against other users and hostile data: safe starts, private scratch files, and safe opening of files by name."""
