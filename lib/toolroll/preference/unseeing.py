"""The unconditioned branch: a request without its image, with another one, or with another prompt.

What is drawn depends on the seed of the answer alone. Kinds of it: `uncond`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toolroll.errors import RowError
from toolroll.models.images import open_image
from toolroll.models.pictures import Request
from toolroll.preference.branches import Alter, Mixed
from toolroll.preference.strength import uniform
from toolroll.preference.uncond import STEPS, Uncond
from toolroll.run.seeds import record_seed

_SHORT = 20  # pixels


@dataclass(frozen=True, slots=True)
class Unseeing(Uncond):
    """The other branch. `colour` of a blank image, 0 .. 255."""

    colour: tuple[int, int, int] = (128, 128, 128)

    @classmethod
    def of(cls, kind: Uncond, processor: Any) -> Unseeing:
        """The other branch of this kind, for the model of a processor."""
        return cls(kind.kind, kind.step, kind.lines, kind.pool, _mean_colour(processor))

    def __call__(self, request: Request, h: float) -> Mixed:
        """The request with its other branch. RowError where it has no image that could be taken away."""
        seed = request.sampling.seed
        alter: Alter | None = None
        if self.kind == "prompt":
            other = replace(request, messages=_asking(request.messages, self.lines[_chosen(seed, len(self.lines))]))
        elif not request.images:
            raise RowError("the row has no image")
        elif self.kind == "drop":
            other = replace(request, messages=_blind(request.messages), images=())
        elif self.kind == "noise":
            other, alter = request, partial(noisy, step=self.step, seed=seed)
        else:
            pictures = [self._picture(path, record_seed(seed, "picture", i)) for i, path in enumerate(request.images)]
            other = replace(request, images=pictures)
        return Mixed(request.messages, request.sampling, request.images, other, h, alter)

    def _picture(self, path: Path, seed: int) -> Any:
        if self.kind == "shuffle":
            others = [one for one in self.pool if one != path]
            if not others:
                raise RowError("there is no other image to take")
            return others[_chosen(seed, len(others))]
        image = open_image(path)
        return blank(image, self.colour) if self.kind == "blank" else corrupted(image, seed)


def noisy(features: Mapping[str, Tensor], step: int, seed: int) -> dict[str, Tensor]:
    """The tensors of images with `step` steps of noise in their pixels."""
    draws = torch.Generator().manual_seed(seed)
    kept = _kept()[step - 1]

    def noised(pixels: Tensor) -> Tensor:
        noise = torch.randn(pixels.shape, generator=draws)
        return (math.sqrt(kept) * pixels.float() + math.sqrt(1 - kept) * noise).to(pixels.dtype)

    return {
        name: noised(part) if name.startswith("pixel_values") and part.is_floating_point() else part
        for name, part in features.items()
    }


def blank(image: Any, colour: tuple[int, int, int]) -> Any:
    """An image of one colour, as large as this one."""
    from PIL import Image

    return Image.new("RGB", image.size, colour)


def corrupted(image: Any, seed: int) -> Any:
    """An image with few pixels, or in other colours; as large as before."""
    from PIL import Image, ImageEnhance

    draws = [uniform(seed, number) for number in range(3)]
    if draws[0] < 0.5:
        scale = _SHORT / min(image.size)
        small = [max(1, round(side * scale)) for side in image.size]
        return image.resize(small, Image.Resampling.BILINEAR).resize(image.size, Image.Resampling.BILINEAR)
    bright = ImageEnhance.Brightness(image).enhance(0.5 + draws[1])
    hue, saturation, value = bright.convert("HSV").split()
    turn = round((draws[2] - 0.5) * 0.6 * 256)
    return Image.merge("HSV", (hue.point(lambda old: (old + turn) % 256), saturation, value)).convert("RGB")


@cache
def _kept() -> list[float]:
    """The share of an image's variance that is left after each step."""
    betas = torch.linspace(-6, 6, STEPS, dtype=torch.float64).sigmoid() * (0.5e-2 - 1e-5) + 1e-5
    found: list[float] = (1 - betas).cumprod(0).tolist()
    return found


def _blind(messages: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Messages without the places of images."""
    return [
        message
        if isinstance(message.get("content"), str)
        else {**message, "content": [part for part in message["content"] if part.get("type") != "image"]}
        for message in messages
    ]


def _asking(messages: Sequence[Mapping[str, Any]], text: str) -> list[Mapping[str, Any]]:
    """Messages of which the user's last one has another text."""
    made = list(messages)
    last = max((at for at, message in enumerate(made) if message.get("role") == "user"), default=None)
    if last is None:
        raise RowError("no message of the user")
    content = made[last]["content"]
    if not isinstance(content, str):
        images = [part for part in content if part.get("type") == "image"]
        content = [*images, {"type": "text", "text": text}]
    else:
        content = text
    made[last] = {**made[last], "content": content}
    return made


def _chosen(seed: int, count: int) -> int:
    return int(uniform(record_seed(seed, "choice"), 0) * count)


def _mean_colour(processor: Any) -> tuple[int, int, int]:
    mean = getattr(getattr(processor, "image_processor", None), "image_mean", None)
    if not isinstance(mean, list | tuple) or len(mean) != 3:
        return (128, 128, 128)
    red, green, blue = (round(255 * part) for part in mean)
    return red, green, blue
