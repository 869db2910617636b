"""The catalogue of layers, one family a file."""
