"""The axes of a grid of configurations, as a user writes them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

from toolroll.errors import UsageError

PRECISIONS = ("bf16", "fp16", "fp32", "layercast")
LINEAR = ("auto", "fused", "blocked", "naive")
KEPT = ("auto", "bf16", "fp16", "fp32")
KV = ("auto", "bf16", "fp16", "fp32")
WORDS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}  #: what other options of types say
ATTENTION = ("sdpa", "eager", "alone")


@dataclass(frozen=True, slots=True)
class Setting:
    """One configuration: a point of the grid. 0 threads are those that the process was given."""

    precision: str = "layercast"
    tp: int = 1
    linear: str = "auto"
    keep: str = "auto"
    attention: str = "sdpa"
    kv: str = "auto"
    threads: int = 0
    batch: int = 8


#: Every axis, from the one that costs most to change: values of text, or None for whole numbers from 1.
AXES: Mapping[str, Sequence[str] | None] = {
    "precision": PRECISIONS,
    "tp": None,
    "linear": LINEAR,
    "keep": KEPT,
    "attention": ATTENTION,
    "kv": KV,
    "threads": None,
    "batch": None,
}


def read_axis(name: str, text: str, *, place: str) -> tuple[str | int, ...]:
    """The values of an axis, given with commas between. UsageError for what is none.

    >>> read_axis("batch", "1,8,16", place="--grid"), read_axis("precision", "bf16,float32", place="--grid")
    ((1, 8, 16), ('bf16', 'fp32'))
    """
    if name not in AXES:
        raise UsageError(f"{name!r} is not one of {', '.join(AXES)}", place=place)
    values = tuple(_value(name, part.strip(), place) for part in text.split(","))
    if len(set(values)) < len(values):
        raise UsageError(f"{name} has a value twice", place=place)
    return values


def read_grid(parts: Iterable[str]) -> dict[str, tuple[str | int, ...]]:
    """The axes of `NAME=VALUE,VALUE...` parts, of which one string may hold several, with blanks between.

    >>> read_grid(["batch=1,8 tp=2"])
    {'batch': (1, 8), 'tp': (2,)}
    """
    axes: dict[str, tuple[str | int, ...]] = {}
    for part in " ".join(parts).split():
        name, sign, text = part.partition("=")
        if not sign:
            raise UsageError(f"{part!r} is not NAME=VALUE,VALUE...", place="--grid")
        if name in axes:
            raise UsageError(f"{name} is given twice", place="--grid")
        axes[name] = read_axis(name, text, place="--grid")
    return axes


def settings(axes: Mapping[str, Sequence[str | int]]) -> list[Setting]:
    """Every combination of the axes' values; what takes longest to change changes least often.

    `linear` and `keep` are of layercast alone: for other precisions they are not varied.

    >>> [(one.precision, one.batch) for one in settings({"batch": (1, 2), "precision": ("bf16", "fp32")})]
    [('bf16', 1), ('bf16', 2), ('fp32', 1), ('fp32', 2)]
    """
    found: dict[Setting, None] = {}
    names = [name for name in AXES if name in axes]
    for values in product(*(axes[name] for name in names)):
        one = replace(Setting(), **dict(zip(names, values, strict=True)))  # type: ignore[arg-type]
        if one.precision != "layercast":
            one = replace(one, linear="auto", keep="auto")
        found[one] = None
    return list(found)


def _value(name: str, text: str, place: str) -> str | int:
    words = AXES[name]
    if words is not None:
        if WORDS.get(text, text) not in words:
            raise UsageError(f"{name}: {text!r} is not one of {', '.join(words)}", place=place)
        return WORDS.get(text, text)
    if not text.isdigit() or int(text) < 1:
        raise UsageError(f"{name}: {text!r} is not a whole number from 1", place=place)
    return int(text)
