"""The source paper's published numbers: read, held against a floor, and reported."""
