"""toolroll: a roll of small commands that implement the systems of ten machine-learning papers."""

__version__ = "0.1.0"
