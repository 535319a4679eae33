"""The commands of `w2v`, one family per file; `pipeline.cli` lists them in order. Heavy imports stay inside the functions."""
