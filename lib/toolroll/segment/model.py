"""The models, how they are kept in a folder, and how images are made ready for them.

A folder has `segmenter.json`, what the model is and was trained with, and `model.safetensors`. One that wraps a
Mask2Former has that in `base/`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toolroll.errors import ToolrollError
from toolroll.segment.decoder import Decoder, Outputs, TextPosition
from toolroll.segment.network import Pyramid
from toolroll.segment.text import LEXICON, Text

ABOUT, WEIGHTS, BASE = "segmenter.json", "model.safetensors", "base"
SHIPPED = "outline"  #: the model of this package


@dataclass(frozen=True, slots=True)
class Shape:
    """What a model is made of. `base` is a Mask2Former, or empty for the small model, whose sizes the others are."""

    base: str = ""
    width: int = 64
    queries: int = 20
    layers: int = 3
    heads: int = 4
    inner: int = 256
    stages: tuple[int, ...] = (24, 48, 80, 96)
    text_width: int = 96
    pmp: bool = True
    text_pos: TextPosition = "first"


@dataclass(frozen=True, slots=True)
class About:
    """A model's shape, how its text is made, and how its images are.

    `side`: the longer side of an image in pixels. `mean` and `std`: of colours in 0..1. `trained`: the names it was
    trained with. `training`: how, for people.
    """

    shape: Shape = field(default_factory=Shape)
    text: str = LEXICON
    text_id: str = ""
    text_tokens: str = "sentence"
    templates: tuple[str, ...] = ("{}",)
    side: int = 160
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.25, 0.25, 0.25)
    trained: tuple[str, ...] = ()
    training: dict[str, Any] = field(default_factory=dict)


class Segmenter(nn.Module):  # type: ignore[misc]
    """The small model."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.pyramid = Pyramid(shape.stages, shape.width)
        self.decoder = Decoder(
            width=shape.width,
            queries=shape.queries,
            layers=shape.layers,
            heads=shape.heads,
            inner=shape.inner,
            text_width=shape.text_width,
            text=shape.pmp,
            text_pos=shape.text_pos,
        )

    def forward(self, images: Tensor, text: Text) -> Outputs:
        """What is said of images [B, 3, H, W], sides multiples of 32."""
        features, maps = self.pyramid(images)
        said: Outputs = self.decoder(features, maps, text)
        return said


@dataclass(frozen=True, slots=True)
class Opened:
    """A model ready to run."""

    model: nn.Module
    about: About
    name: str
    weights_id: str


def build(shape: Shape, source: Path | None = None, notify: Callable[[str], None] = lambda _: None) -> nn.Module:
    """A new model: the small one, or a Mask2Former (that of `source`, or of `shape.base`) with the gated block."""
    if not shape.base:
        return Segmenter(shape)
    from toolroll.segment.mask2former import open_base, wrap

    notify(f"base {shape.base}")
    return wrap(open_base(str(source or shape.base)), shape)


def save(folder: Path, model: nn.Module, about: About, *, half: bool = False) -> None:
    """Write a model into a folder; `half`: in 16 bits."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    own = dict(model.state_dict())
    if about.shape.base:
        own = {name: tensor for name, tensor in own.items() if not name.startswith("base.")}
        model.base.save_pretrained(folder / BASE)
    kind = torch.float16 if half else torch.float32
    save_file({name: tensor.detach().to(kind).contiguous() for name, tensor in own.items()}, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # written for its owner alone
    (folder / ABOUT).write_text(json.dumps(asdict(about), indent=1, ensure_ascii=False) + "\n")


def open_model(name: str, notify: Callable[[str], None] = lambda _: None) -> Opened:
    """The model of a folder, or the one that ships. ToolrollError, with the name as its place, for none."""
    from safetensors.torch import load_file

    from toolroll.models.load import fingerprint, loading, shipped

    folder = shipped(name) if name == SHIPPED else Path(name)
    if not (folder / ABOUT).is_file():
        why = f"the folder has no {ABOUT}" if folder.is_dir() else "no such folder"
        raise ToolrollError(why, place=name)
    with loading("a segmenter", name):
        about = read_about((folder / ABOUT).read_text())
        model = build(about.shape, folder / BASE if about.shape.base else None, notify)
        held = {key: tensor.float() for key, tensor in load_file(folder / WEIGHTS).items()}
        missing, strange = model.load_state_dict(held, strict=False)
        if strange or [key for key in missing if not key.startswith("base.")]:
            raise ValueError("its weights are of another shape")
    weights = sorted(folder.rglob("*.safetensors"))
    return Opened(model.eval(), about, folder.resolve().name, "".join(map(fingerprint, weights))[:16])


def read_about(text: str) -> About:
    """`segmenter.json` as an object; fields that it does not have stay as they are by default."""
    data = json.loads(text)
    shape = Shape(**{key: _tupled(value) for key, value in data.pop("shape", {}).items()})
    known = {one.name for one in fields(About)}
    return replace(About(), shape=shape, **{key: _tupled(value) for key, value in data.items() if key in known})


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def working_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Width and height an image is seen in: the longer side is `side`, both are multiples of 32.

    >>> working_size(480, 360, 160), working_size(1, 1, 160), working_size(4000, 10, 160)
    ((160, 128), (160, 160), (160, 32))
    """
    scale = side / max(width, height)
    wide, high = (max(32, round(one * scale / 32) * 32) for one in (width, height))
    return wide, high


def pixels(images: Sequence[Any], about: About, size: tuple[int, int] | None = None) -> Tensor:
    """PIL images in RGB as a batch [B, 3, H, W]; all are made `size` (width, height), or what the first is seen in."""
    import numpy as np
    from PIL import Image

    size = size or working_size(images[0].width, images[0].height, about.side)
    stacked = np.stack([np.asarray(image.resize(size, Image.Resampling.BILINEAR), np.uint8) for image in images])
    return normalised(torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 255, about)


def normalised(images: Tensor, about: About) -> Tensor:
    """Colours [B, 3, H, W] in 0..1 as the model wants them."""
    mean, std = (torch.tensor(part, device=images.device).view(1, 3, 1, 1) for part in (about.mean, about.std))
    return (images - mean) / std
