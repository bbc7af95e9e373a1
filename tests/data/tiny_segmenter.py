"""Makes tiny-segmenter: a segmenter of random weights, for tests of pmp-seg.

python tests/data/tiny_segmenter.py
"""

from __future__ import annotations

from pathlib import Path

import torch

from toolroll.segment.model import About, Segmenter, Shape, save
from toolroll.segment.text import open_text

FOLDER = Path(__file__).with_name("tiny-segmenter")

if __name__ == "__main__":
    torch.manual_seed(3)
    text = open_text("lexicon")
    shape = Shape(width=32, queries=4, layers=1, heads=2, inner=32, stages=(8, 8, 8, 8), text_width=text.width)
    about = About(shape=shape, text_id=text.weights_id, side=64, trained=("sky", "road"))
    save(FOLDER, Segmenter(shape), about, half=True)
