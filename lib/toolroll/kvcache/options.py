"""How a command is told to quantize."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

from toolroll.errors import ToolrollError, UsageError

_RULES = ["auto", "minmax", "calibquant", "quantile", "lloyd1", "mse"]  # of scheme.Rule, which loads nothing here


@dataclass(frozen=True, slots=True)
class SchemeOptions:
    """The options of a scheme, for keys and for values."""

    rule: str = "auto"
    bits: str = "1"
    bits_k: str | None = None
    bits_v: str | None = None
    layer_bits: str | None = None
    alpha: float | None = None
    shrink: float | None = None
    group_size: int = 0
    along_k: str = "tokens"
    along_v: str = "tokens"
    layout: str = "msb8"
    ranges: str = "fp16"

    def chooser(self, layers: list[int]) -> Any:
        """What gives the scheme of a layer's keys or values. UsageError for what cannot be."""
        from toolroll.kvcache.scheme import Scheme

        usual = {"k": int(self.bits_k or self.bits), "v": int(self.bits_v or self.bits)}
        special = read_layer_bits(self.layer_bits or "")
        strange = sorted(set(special) - set(layers))
        if strange:
            raise UsageError(f"there is no layer {strange[0]}", place="--layer-bits")

        def make(part: Any, bits: int) -> Scheme:
            rule = ("lloyd1" if bits == 1 else "quantile") if self.rule == "auto" else self.rule
            along: Any = self.along_k if part == "k" else self.along_v
            kinds: tuple[Any, Any] = (self.layout, self.ranges)
            try:
                return Scheme(part, bits, rule, self.alpha, self.shrink, self.group_size, along, *kinds)  # type: ignore[arg-type]
            except ToolrollError as error:
                raise UsageError(error.why) from error

        made = {(layer, part): make(part, special.get(layer, usual)[part]) for layer in layers for part in ("k", "v")}
        return lambda layer, part: made[layer, part]


def read_layer_bits(text: str) -> dict[int, dict[str, int]]:
    """Bits of some layers: "0-1=4,31=8/2" is 4 for keys and values of layers 0 and 1, 8 for keys of 31, 2 for values.

    >>> read_layer_bits("0-1=4,5=8/2")
    {0: {'k': 4, 'v': 4}, 1: {'k': 4, 'v': 4}, 5: {'k': 8, 'v': 2}}
    """
    made: dict[int, dict[str, int]] = {}
    for part in filter(None, text.split(",")):
        where, _, what = part.partition("=")
        first, _, last = where.partition("-")
        keys, _, values = what.partition("/")
        try:
            numbers = range(int(first), int(last or first) + 1)
            bits = {"k": int(keys), "v": int(values or keys)}
        except ValueError as error:
            raise UsageError(f"{part!r} is not LAYER[-LAYER]=BITS[/BITS]", place="--layer-bits") from error
        made.update(dict.fromkeys(numbers, bits))
    return made


def scheme_options(option: type[click.Option]) -> list[click.Option]:
    """The options of `SchemeOptions`."""
    bits = click.Choice(["1", "2", "4", "8"])

    def made(*names: str, **settings: Any) -> click.Option:
        return option(names, section="Quantization", **settings)

    return [
        made(
            "--rule",
            type=click.Choice(_RULES),
            default="auto",
            show_default=True,
            help="What gives the range of a group; auto is lloyd1 at 1 bit and quantile at more.",
        ),
        made("--bits", type=bits, default="1", show_default=True, help="Bits of a code."),
        made("--bits-k", type=bits, help="Bits of keys, where they differ."),
        made("--bits-v", type=bits, help="Bits of values, where they differ."),
        made(
            "--layer-bits",
            metavar="LAYERS=BITS,...",
            help="Bits of some layers, for keys and values or as K/V: 0-1=4,31=8/2.",
        ),
        made(
            "--alpha",
            type=click.FloatRange(0, 0.5, max_open=True),
            help="quantile: the share of values below the range, and above it. Without, what suits normal values.",
        ),
        made(
            "--shrink",
            type=click.FloatRange(0, 1, min_open=True),
            help="calibquant: the factor of minimum and maximum. Without, 0.5 for keys and 0.3 for values at 1 bit, "
            "else 1, as the authors' code has it.",
        ),
        made(
            "--group-size",
            type=click.IntRange(min=0),
            default=0,
            show_default=True,
            help="So many tokens of a channel, or channels of a token, share a range; 0: all.",
        ),
        made(
            "--along-k",
            type=click.Choice(["tokens", "channels"]),
            default="tokens",
            show_default=True,
            help="Which keys share a range: tokens of a channel, or channels of a token.",
        ),
        made(
            "--along-v",
            type=click.Choice(["tokens", "channels"]),
            default="tokens",
            show_default=True,
            help="Which values share a range.",
        ),
        made(
            "--layout",
            type=click.Choice(["msb8", "kivi32"]),
            default="msb8",
            show_default=True,
            help="Codes in bytes along channels, or in 32-bit words, keys along tokens, as KIVI has them.",
        ),
        made(
            "--ranges",
            type=click.Choice(["fp16", "fp32"]),
            default="fp16",
            show_default=True,
            help="The type in which lo and scale are stored.",
        ),
    ]


def kernels_option(option: Callable[..., click.Option]) -> click.Option:
    """--kernels, whose value is the `backend`."""
    return option(
        ["--kernels", "backend"],
        type=click.Choice(["auto", "numpy", "numba"]),
        default="auto",
        show_default=True,
        help="What computes codes.",
    )


def queries_option(option: Callable[..., click.Option]) -> click.Option:
    """--queries, for files without any."""
    return option(
        ["--queries"],
        type=click.IntRange(min=0),
        default=0,
        show_default=True,
        metavar="N",
        help="Make N queries a head up, where a file has none.",
    )
