"""The block that listens to prompts: what it costs in a decoder, in a photo, and beside a Mask2Former in training.

    python bench/pmp.py [--rounds 9] [--updates 4] [--threads 1] [--shapes small,large] [--json FILE]

CPU time. The large decoder is that of Mask2Former's size (width 256, 100 queries, 9 layers, 20 prompts, an image of
512 x 512), the small one that of the model that ships (width 64, 20 queries, 3 layers, 10 prompts, a photo of 480 x 360
as the model sees it): with the block, and without. A photo of 480 x 360 goes from pixels to the map of classes. An
update is one of 8 images of 96 x 96 with losses and matching, beside transformers' Mask2Former of about as many weights
with its own loss.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import Any

import common
import torch
from common import Line

from toolroll.segment.decoder import Decoder
from toolroll.segment.losses import Targets, Weights, loss_of
from toolroll.segment.model import Segmenter, Shape, working_size
from toolroll.segment.proposals import Said, label_map
from toolroll.segment.text import Text

SMALL = Shape()
PHOTO = (480, 360)


def text_of(batch: int, prompts: int, width: int) -> Text:
    """Random prompts, one phrase each."""
    vectors = torch.nn.functional.normalize(torch.randn(batch, prompts, width), dim=-1)
    owners = torch.arange(prompts).expand(batch, -1).contiguous()
    return Text(vectors, owners, vectors, torch.ones(batch, prompts, dtype=torch.bool), prompts)


def decoders(width: int, queries: int, layers: int, heads: int, size: tuple[int, int], prompts: int) -> dict[str, Any]:
    """A decoder with the block and one without, at work on the maps of an image of `size` (width, height)."""
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "width": width,
        "queries": queries,
        "layers": layers,
        "heads": heads,
        "inner": 8 * width if layers > 3 else 256,
        "text_width": 96,
        "text_pos": "first",
    }
    features = torch.randn(1, width, size[1] // 4, size[0] // 4)
    maps = [torch.randn(1, width, size[1] // stride, size[0] // stride) for stride in (32, 16, 8)]
    text = text_of(1, prompts, 96)
    made = {}
    for name, on in (("with", True), ("without", False)):
        decoder = Decoder(**settings, text=on).eval()
        made[name] = lambda decoder=decoder: decoder(features, maps, text)
    return made


def photos(prompts: int) -> dict[str, Any]:
    """The small model with the block and without, from a photo's pixels to its map of classes."""
    wide, high = working_size(*PHOTO, 160)
    image, text = torch.randn(1, 3, high, wide), text_of(1, prompts, SMALL.text_width)
    made = {}
    for name, on in (("with", True), ("without", False)):
        torch.manual_seed(0)
        model = Segmenter(replace(SMALL, pmp=on)).eval()

        def work(model: Any = model) -> None:
            said = model(image, text)
            label_map(Said(said.classes[-1, 0].softmax(-1), said.masks[-1, 0], PHOTO[1], PHOTO[0]))

        made[name] = work
    return made


def trainings(batch: int, side: int, prompts: int, segments: int) -> tuple[dict[str, Any], dict[str, int]]:
    """An update of our small model, and of transformers' Mask2Former; and how many weights they have."""
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, SwinConfig

    torch.manual_seed(0)
    images = torch.randn(batch, 3, side, side)
    masks = (torch.rand(batch, segments, side // 16, side // 16) > 0.5).float()
    masks = torch.nn.functional.interpolate(masks, scale_factor=16)
    labels = torch.arange(segments).repeat(batch, 1)
    small = torch.nn.functional.interpolate(masks, scale_factor=0.25)
    targets = Targets(labels, small, [segments] * batch, torch.ones(batch, side // 4, side // 4))
    text = text_of(batch, prompts, SMALL.text_width)
    own = Segmenter(SMALL).train()
    swin = SwinConfig(
        image_size=side, embed_dim=24, depths=[1, 1, 1, 1], num_heads=[1, 2, 4, 8], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = Mask2FormerConfig(
        backbone_config=swin, hidden_dim=64, feature_size=64, mask_feature_size=64, encoder_layers=2,
        encoder_feedforward_dim=128, dim_feedforward=256, decoder_layers=SMALL.layers + 1, num_attention_heads=4,
        num_queries=SMALL.queries, num_labels=prompts, train_num_points=(side // 4) ** 2,
    )  # fmt: skip
    theirs = Mask2FormerForUniversalSegmentation(config).train()

    def ours_step() -> None:
        loss, _ = loss_of(own(images, text), targets, Weights(), torch.Generator())
        loss.backward()

    def theirs_step() -> None:
        theirs(images, mask_labels=list(masks), class_labels=list(labels)).loss.backward()

    weights = {name: sum(p.numel() for p in model.parameters()) for name, model in (("ours", own), ("theirs", theirs))}
    return {"ours": ours_step, "theirs": theirs_step}, weights


def measure(arguments: argparse.Namespace) -> list[Line]:
    """A line for each of the decoders, the photo and the training."""
    torch.set_num_threads(arguments.threads)
    sizes = {"small": (64, 20, 3, 4, working_size(*PHOTO, 160), 10), "large": (256, 100, 9, 8, (512, 512), 20)}
    with torch.inference_mode():
        lines = [
            beside(f"{name} decoder with the block", decoders(*sizes[name]), arguments.rounds)
            for name in arguments.shapes
        ]
        lines.append(beside("photo with the block", photos(10), arguments.rounds))
    works, weights = trainings(8, 96, 10, 5)
    best = common.least({name: common.timed(work) for name, work in works.items()}, arguments.updates)
    sizes_of = {name: f"{count / 1e3:.0f} k weights" for name, count in weights.items()}
    what, peer = f"updates, {sizes_of['ours']}", f"transformers' Mask2Former, {sizes_of['theirs']}"
    return [*lines, Line(what, "images/CPU s", 8 / best["ours"], peer, 8 / best["theirs"])]


def beside(what: str, works: dict[str, Any], rounds: int) -> Line:
    """Something with the block beside the same without."""
    best = common.least({name: common.timed(work) for name, work in works.items()}, rounds)
    return Line(what, "CPU ms", 1e3 * best["with"], "without", 1e3 * best["without"])


if __name__ == "__main__":
    common.run(__doc__, measure, rounds=9, updates=4, shapes=["small", "large"], threads=1)
