"""The commands of `w2v`, a family a file; `pipeline.cli` lists them in order. Heavy imports stay inside the functions."""
