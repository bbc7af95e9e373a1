"""Make the models that toolroll ships, sprite and glance, from nothing: `python models/make.py`, or `make models`.

Stages, each resumable and each kept in the cache: pictures (rendered scenes and drawn charts), words (the tokenizer),
tower (the vision tower), sprite and answers (the image-text model), glance (the contrastive encoder), evaluate, write.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import torch
from sizes import FULL, TINY, Size

HERE = Path(__file__).parent
STAGES = ("pictures", "words", "tower", "sprite", "glance", "write")


def main() -> None:
    """Run the stages up to `--until`."""
    asked = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    asked.add_argument("--cache", type=Path, default=HERE / "out", help="data and checkpoints, to go on from")
    asked.add_argument("--out", type=Path, default=HERE.parent / "lib/toolroll/data", help="where the models go")
    asked.add_argument("--size", choices=("full", "tiny"), default="full", help="tiny shows that it works")
    asked.add_argument("--only", choices=("sprite", "glance"), help="make one of the two")
    asked.add_argument("--until", choices=STAGES, default="write", help="the last stage")
    asked.add_argument("--seed", type=int, default=1)
    asked.add_argument("--threads", type=int, default=0, help="of torch; 0 is all cores")
    given = asked.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    made(given, {"full": FULL, "tiny": TINY}[given.size], given.cache / given.size)


def made(given: argparse.Namespace, size: Size, cache: Path) -> None:
    """All stages up to `given.until`."""
    import data
    import tower

    last = STAGES.index(given.until)
    workers = os.cpu_count() or 1
    pictures = data.made(cache, "train", size.scenes, size.charts, workers)
    held_out = data.made(cache, "held-out", size.held_out, size.held_out // 4, workers)
    print(f"pictures {len(pictures)} to learn from, {len(held_out)} held out", flush=True)
    if last == 0:
        return
    words = _words(cache, pictures.about)
    if last == 1:
        return
    seeing, logged = tower.taught(size, pictures, cache, given.seed)
    told = {"tower": logged | {"held out": tower.measured(size, held_out, cache)}}
    print("tower", told["tower"], flush=True)
    if last >= STAGES.index("sprite") and given.only != "glance":
        import sprite

        model, logs = sprite.taught(size, pictures, seeing, words, cache, given.seed)
        told |= logs
        if given.until == "write":
            import card

            card.write_sprite(model, words, size, given, told)
    if last >= STAGES.index("glance") and given.only != "sprite":
        import glance

        encoder, told["glance"] = glance.taught(size, pictures, seeing, words, cache, given.seed)
        if given.until == "write":
            import card

            card.write_glance(encoder, words, size, given, told)


def _words(cache: Path, about: list[Any]) -> Any:
    """The tokenizer, learned where the cache does not have it."""
    import words
    from tokenizers import Tokenizer

    path = cache / "words.json"
    if not path.exists():
        words.learned(about).save(str(path))
    return Tokenizer.from_file(str(path))


if __name__ == "__main__":
    main()
