"""What the unconditioned branch gets instead of the image and the prompt.

    drop         the prompt without the image
    blank        an image of one colour, the mean that the model's images are shifted by
    noise:STEP   the image after so many steps of diffusion: sqrt(a) x + sqrt(1 - a) noise, a the product of 1 - beta,
                 beta = sigmoid(-6 .. 6 in 1000 steps) (0.005 - 1e-5) + 1e-5; POVID takes step 500, VCD the same betas
    corrupt      half the time a side of 20 pixels, else other brightness (0.5 .. 1.5) and hue (-0.3 .. 0.3), as STIC
    prompt:FILE  the image, and a line of the file instead of the prompt
    shuffle:FILE an image of another row of the file, which has JSON lines with `images` or `image`

Files are read as soon as they are named, so that a wrong one is told before a model is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import orjson

from toolroll.errors import RowError, ToolrollError, UsageError
from toolroll.models.images import Names, folder_of, image_names

STEPS = 1000


@dataclass(frozen=True, slots=True)
class Uncond:
    """A kind of it: `step` of noise; `lines` of prompts; `pool` of images."""

    kind: str = "drop"
    step: int = 0
    lines: tuple[str, ...] = ()
    pool: tuple[Path, ...] = ()


def read_uncond(text: str) -> Uncond:
    """The meaning of --uncond. UsageError, or ToolrollError for a file, where it has none."""
    kind, colon, rest = text.partition(":")
    if kind in ("drop", "blank", "corrupt") and not colon:
        return Uncond(kind)
    if kind == "noise":
        if not rest.isdecimal() or not 1 <= int(rest) <= STEPS:
            raise UsageError(f"noise has a step from 1 to {STEPS}: noise:500", place="--uncond")
        return Uncond(kind, step=int(rest))
    if kind == "prompt" and rest:
        lines = tuple(line.strip() for line in _read(rest).splitlines() if line.strip())
        if not lines:
            raise ToolrollError("no line with a prompt", place=rest)
        return Uncond(kind, lines=lines)
    if kind == "shuffle" and rest:
        return Uncond(kind, pool=_pool(rest))
    raise UsageError(f"{text!r} is not drop, blank, noise:STEP, corrupt, prompt:FILE or shuffle:FILE", place="--uncond")


def _pool(name: str) -> tuple[Path, ...]:
    found: dict[Path, None] = {}
    folder = folder_of(f"{name}:1")
    for number, line in enumerate(_read(name).splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = orjson.loads(line)
            names = image_names(Names(row))
        except (orjson.JSONDecodeError, AttributeError, RowError) as error:
            raise ToolrollError(f"no row with an image: {error}", place=f"{name}:{number}") from error
        found |= dict.fromkeys(folder / one for one in names)
    if not found:
        raise ToolrollError("no images in it", place=name)
    return tuple(found)


def _read(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise ToolrollError(error.strerror or str(error), place=name) from error
    except UnicodeDecodeError as error:
        raise ToolrollError("not UTF-8", place=name) from error
