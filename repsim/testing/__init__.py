"""Contract kits and tiny models, for the tests of this package and of those that extend it."""
