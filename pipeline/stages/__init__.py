"""The six stages: each has an `identity` (what decides its result), a `build` (which makes it) and a `describe` (for people)."""
