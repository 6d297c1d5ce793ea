"""The tests. A package, so that no other installed `tests` can stand in for it."""
