"""layernet: layer-based training with hand-written forward and backward."""

__version__ = "0.1.0"
