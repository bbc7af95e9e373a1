"""What is pruned: a window, heads, neurons and a layer cut, chosen once for a model."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from toolroll.errors import ToolrollError
from toolroll.pruning.shape import Shape

Softmax = Literal["renorm", "authors"]


@dataclass(frozen=True, slots=True)
class Drop:
    """From layer `layer` on, only a share `keep` in [0, 1] of each image's tokens goes on: those the text looks at."""

    layer: int
    keep: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What of the computation on visual tokens is left out.

    window: side w of the square of neighbours in its own image that a visual token attends to, |row - row'| <= q and
        |column - column'| <= q with q = floor((w - 1) / 2); None is no window.
    window_causal: only earlier neighbours, as the model was trained; False is what the authors' checkpoints need.
    cross_tile: with a window, visual tokens see all of earlier images and tiles; by default text alone bridges them.
    ffn: visual rows use the first floor(m / ffn) of m neurons.
    cut: the first layer that visual tokens do not enter; None is none.
    heads: [L][H], the heads that attend to visual tokens and are computed on them; None is all.
    softmax: "renorm" masks before the softmax, so that everything can be skipped; "authors" multiplies after it, as
        the authors' code does, and skips nothing in the attention.
    drops: token dropping, as other methods do it (see `toolroll.pruning.choosing`).
    """

    window: int | None = None
    window_causal: bool = True
    cross_tile: bool = False
    ffn: float = 1.0
    cut: int | None = None
    heads: tuple[tuple[bool, ...], ...] | None = None
    softmax: Softmax = "renorm"
    drops: tuple[Drop, ...] = ()

    @property
    def reach(self) -> int | None:
        """q: how many rows and columns away a neighbour may be. An even window reaches as far as one smaller."""
        return None if self.window is None else (self.window - 1) // 2

    @property
    def prunes(self) -> bool:
        """Whether it leaves anything out."""
        heads = self.heads is not None and not all(map(all, self.heads))
        return self.window is not None or self.ffn != 1 or self.cut is not None or heads or bool(self.drops)

    @property
    def hash(self) -> str:
        """16 hex digits that name it."""
        text = json.dumps(self.as_dict(), sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def active(self, layer: int, shape: Shape) -> tuple[bool, ...]:
        """Which heads of a layer attend to visual tokens."""
        return (True,) * shape.heads if self.heads is None else self.heads[layer]

    def neurons(self, shape: Shape) -> int:
        """How many neurons visual rows use."""
        return int(shape.ffn / self.ffn)

    def end(self, shape: Shape) -> int:
        """The first layer that visual tokens do not enter."""
        return shape.layers if self.cut is None else self.cut

    def checked(self, shape: Shape) -> Plan:
        """Itself, if it fits a model of this shape; else ToolrollError."""
        if self.heads is not None:
            sizes = {len(layer) for layer in self.heads}
            if len(self.heads) != shape.layers or sizes != {shape.heads}:
                found = f"{len(self.heads)} layers of {'/'.join(map(str, sorted(sizes)))} heads"
                raise ToolrollError(
                    f"is a mask of another model: it has {found}, the model {shape.layers} of {shape.heads}",
                    place="heads",
                )
        if self.cut is not None and not 0 <= self.cut <= shape.layers:
            raise ToolrollError(f"{self.cut} is not in 0..{shape.layers}, the model's layers", place="cut")
        if self.neurons(shape) < 1:
            raise ToolrollError(f"{self.ffn:g} leaves none of the {shape.ffn} neurons", place="ffn")
        if self.drops and (self.window is not None or self.heads is not None or self.softmax == "authors"):
            raise ToolrollError("go with neither a window nor heads nor the authors' softmax", place="drops")
        for drop in self.drops:
            if not 0 < drop.layer < shape.layers:
                raise ToolrollError(f"layer {drop.layer} is not in 1..{shape.layers - 1}", place="drops")
        return self

    def as_dict(self) -> dict[str, Any]:
        """As JSON takes it: heads as a line of 0 and 1 for each layer."""
        made = asdict(self)
        made["heads"] = None if self.heads is None else ["".join("01"[on] for on in row) for row in self.heads]
        return made

    @classmethod
    def from_dict(cls, made: dict[str, Any]) -> Plan:
        """What `as_dict` made. ToolrollError for anything else."""
        if (
            not isinstance(made, dict)
            or made.keys() - cls.__dataclass_fields__.keys()
            or not all(name not in made or sound(made[name]) for name, sound in _SOUND.items())
        ):
            raise ToolrollError("is no plan of vprune-plan")
        heads, drops = made.get("heads"), made.get("drops") or ()
        rows = None if heads is None else tuple(tuple(bit == "1" for bit in row) for row in heads)
        return cls(**{**made, "heads": rows, "drops": tuple(Drop(one["layer"], float(one["keep"])) for one in drops)})


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _between(value: Any, low: float, high: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _is_drop(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and value.keys() == {"layer", "keep"}
        and _whole(value["layer"], 0)
        and _between(value["keep"], 0, 1)
    )


_SOUND: dict[str, Callable[[Any], bool]] = {
    "window": lambda one: one is None or _whole(one, 1),
    "window_causal": lambda one: isinstance(one, bool),
    "cross_tile": lambda one: isinstance(one, bool),
    "ffn": lambda one: _between(one, 1, sys.float_info.max),
    "cut": lambda one: one is None or _whole(one, 0),
    "heads": lambda one: (
        one is None or (isinstance(one, list) and all(isinstance(row, str) and not set(row) - {*"01"} for row in one))
    ),
    "softmax": lambda one: one in ("renorm", "authors"),
    "drops": lambda one: one is None or (isinstance(one, list | tuple) and all(map(_is_drop, one))),
}  #: what each part of a plan may be as JSON


def read_plan(path: Path) -> Plan:
    """The plan in a file that vprune-plan wrote."""
    try:
        made = json.loads(path.read_bytes())
    except OSError as error:
        raise ToolrollError(error.strerror or str(error), place=str(path)) from error
    except (ValueError, RecursionError) as error:
        raise ToolrollError("is not JSON", place=str(path)) from error
    if not isinstance(made, dict) or not {"window", "ffn", "cut"} <= made.keys():
        raise ToolrollError("is no plan of vprune-plan", place=str(path))
    try:
        return Plan.from_dict(made)
    except ToolrollError as error:
        raise ToolrollError(error.why, place=str(path)) from error


def write_plan(path: Path, plan: Plan) -> None:
    """Write a plan as JSON, for `read_plan`."""
    from toolroll.io.filesystem import write_atomically

    write_atomically(path, json.dumps(plan.as_dict(), indent=2).encode() + b"\n")


def same_heads(count: int, shape: Shape) -> tuple[tuple[bool, ...], ...]:
    """The first `count` heads of every layer."""
    if not 0 <= count <= shape.heads:
        raise ToolrollError(f"{count} is not in 0..{shape.heads}, the model's heads", place="heads")
    return tuple(tuple(head < count for head in range(shape.heads)) for _ in range(shape.layers))


def kv_active(active: Sequence[bool], shape: Shape) -> list[int]:
    """The key and value heads that at least one active query head uses."""
    return sorted({head // shape.group for head, on in enumerate(active) if on})
