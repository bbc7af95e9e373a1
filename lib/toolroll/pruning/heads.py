"""Head masks in files: our own safetensors, and the authors' .npy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolroll.errors import ToolrollError, UsageError

Mask = tuple[tuple[bool, ...], ...]  #: [L][H]
NAME = "headmask"  #: of the tensor in a safetensors file


@dataclass(frozen=True, slots=True)
class HeadMask:
    """Which heads [L][H] are active, and where that comes from: model, threshold, vote, samples, ..."""

    heads: Mask
    about: dict[str, str] = field(default_factory=dict)


def read_mask(path: Path) -> HeadMask:
    """The mask in a .safetensors or .npy file, whatever its name. ToolrollError for what is none."""
    import numpy as np

    place = str(path)
    try:
        with open(path, "rb") as opened:
            is_numpy = opened.read(6) == b"\x93NUMPY"
        if is_numpy:
            array, about = np.load(path, allow_pickle=False), {}
        else:
            from safetensors import safe_open

            with safe_open(path, framework="numpy") as file:
                if NAME not in file.keys():  # noqa: SIM118 - it is no dictionary
                    raise ToolrollError(f"has no tensor {NAME!r}", place=place)
                array, about = file.get_tensor(NAME), dict(file.metadata() or {})
    except OSError as error:
        raise ToolrollError(error.strerror or "cannot be read", place=place) from error
    except ToolrollError:
        raise
    except Exception as error:  # safetensors raises its own, numpy ValueError and EOFError
        raise ToolrollError("is no head mask: neither .safetensors nor .npy", place=place) from error
    flat = array.astype(bool)
    if array.ndim != 2 or array.size == 0 or not (flat == array).all():
        raise ToolrollError("is no head mask: it has to be one of true and false, layers x heads", place=place)
    return HeadMask(tuple(tuple(map(bool, row)) for row in flat.tolist()), about)


def check_mask_name(path: Path) -> None:
    """UsageError for a name that says another kind of file than `write_mask` writes."""
    if path.suffix == ".npy":
        raise UsageError("a mask is written as .safetensors", place=str(path))


def write_mask(path: Path, mask: HeadMask, scores: Sequence[Sequence[float]] | None = None) -> None:
    """Write a .safetensors file, with the ratio that decided on each head; the same mask gives the same bytes."""
    import numpy as np
    from safetensors.numpy import save

    from toolroll.io.filesystem import write_atomically
    from toolroll.io.tensors import in_order

    tensors = {NAME: np.array(mask.heads, dtype=bool)}
    if scores is not None:
        tensors["ratios"] = np.array(scores, dtype=np.float32)
    write_atomically(path, in_order(save(tensors, metadata=dict(mask.about))))


def ratios(attention: Sequence[Sequence[Sequence[float]]], visual: Sequence[int]) -> list[float]:
    """Of each head: attention to visual keys over that to all others, [H, queries, keys] summed over queries.

    >>> [round(one, 5) for one in ratios([[[0.1, 0.2, 0.3, 0.4], [0.25] * 4]], [1, 2])]
    [1.0]
    """
    seen = set(visual)
    made = []
    for head in attention:
        inside = math.fsum(value for row in head for key, value in enumerate(row) if key in seen)
        outside = math.fsum(value for row in head for key, value in enumerate(row) if key not in seen)
        made.append(ratio(inside, outside))
    return made


def ratio(visual: float, other: float) -> float:
    """How `visual` compares with `other`; without other keys everything is visual."""
    if other > 0:
        return visual / other
    return math.inf if visual > 0 else 0.0


def voted(samples: Sequence[Sequence[float]], vote: float) -> list[float]:
    """For each head the ratio that more than a share `vote` of samples [N, H] reach: a mask is `voted > threshold`.

    A head is active when more than vote x N samples have a ratio above the threshold, that is, when the
    (floor(vote N) + 1)-th largest of its ratios is above it.

    >>> voted([[1.0, 3.0], [2.0, 0.0], [3.0, 3.0]], 0.4)
    [2.0, 3.0]
    """
    place = math.floor(round(vote * len(samples), 9))
    if not 0 <= place < len(samples):
        raise ToolrollError("no sample can decide: the vote is 1 or more, or there are no samples", place="vote")
    return [sorted(column, reverse=True)[place] for column in zip(*samples, strict=True)]


def active(scores: Sequence[Sequence[float]], threshold: float, protect: int) -> Mask:
    """Heads [L][H] whose score is above the threshold; all of the first `protect` layers."""
    return tuple(tuple(layer < protect or score > threshold for score in row) for layer, row in enumerate(scores))


def threshold_for(scores: Sequence[Sequence[float]], keep: float, protect: int) -> float:
    """The least threshold that leaves at most `keep` heads a layer on average, protected layers counted in.

    ToolrollError where the protected layers alone have more.
    """
    layers, heads = len(scores), len(scores[0])
    room = math.floor(keep * layers + 1e-9) - min(protect, layers) * heads
    free = sorted((score for row in scores[protect:] for score in row), reverse=True)
    if room < 0:
        raise ToolrollError(
            f"{keep:g} heads a layer are fewer than {protect} protected layers have on average", place="keep"
        )
    if room >= len(free):
        return -math.inf
    return free[room]


def about_text(about: dict[str, Any]) -> dict[str, str]:
    """Metadata as safetensors takes them: text."""
    return {name: value if isinstance(value, str) else str(value) for name, value in about.items()}
