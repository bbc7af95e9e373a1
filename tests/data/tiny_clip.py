"""Makes tiny-clip: a CLIP of random weights with one token a byte, which reads 30 of them, for tests of clip-score.

python tests/data/tiny_clip.py
"""

from __future__ import annotations

import sys
from pathlib import Path

FOLDER = Path(__file__).with_name("tiny-clip")

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))
    import tiny_clip_models

    tiny_clip_models.write(FOLDER, length=32, hidden_size=8, intermediate_size=8, num_hidden_layers=1)
