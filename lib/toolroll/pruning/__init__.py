"""Pruning the computation on visual tokens inside an image-text model, and really skipping it (arXiv:2410.06169)."""
