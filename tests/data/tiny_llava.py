"""Makes tiny-llava: a random LLaVA of two layers with 16 visual tokens an image, for tests of pruning.

PYTHONPATH=tests python tests/data/tiny_llava.py
"""

from __future__ import annotations

from pathlib import Path

import tiny_models
import torch

FOLDER = Path(__file__).with_name("tiny-llava")


def main() -> None:
    """Write the folder."""
    model, processor = tiny_models.image_model("llava")
    model.to(torch.bfloat16).save_pretrained(FOLDER)
    processor.save_pretrained(FOLDER)


if __name__ == "__main__":
    main()
