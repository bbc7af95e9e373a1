"""LayerCast: inference with 16-bit weights and fp32 arithmetic, and how far runs of one model differ."""
