"""Estimates of what a run will take, before it starts: a model, with constants measured on this machine within seconds."""
