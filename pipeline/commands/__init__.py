"""The commands of `w2v`, one family per file; `listed` has them all in order. Heavy imports stay inside the functions."""
