"""The six stages, in the order of the data: each offers an `identity`, what decides its result, and a `build`, which makes it."""
