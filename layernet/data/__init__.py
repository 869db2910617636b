"""Data sets, transforms on whole batches, and the loader that makes training batches of them."""
