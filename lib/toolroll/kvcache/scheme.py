"""How keys or values become codes: the rule of the range, the bits, the groups, the order in bytes.

With L = 2^bits - 1 and x of one group,

    code = round((x - lo) / scale) clamped to [0, L], ties to even          x^ = lo + scale code

where scale = (hi - lo) / L, and the rule gives lo and hi. A group is all tokens of a channel (group 0, CalibQuant), so
many tokens of a channel, or so many channels of a token (KIVI's values). The last group may be smaller.

Layouts. msb8: codes of neighbouring channels in a byte, the first channel in the highest bits. kivi32: 32-bit
little-endian words, the first code in the lowest bits; keys along tokens (filled up with zeros), values along channels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from toolroll.errors import ToolrollError

Rule = Literal["minmax", "calibquant", "quantile", "lloyd1", "mse"]
Part = Literal["k", "v"]
Along = Literal["tokens", "channels"]
Layout = Literal["msb8", "kivi32"]
Order = Literal["msb", "lsb"]
Meta = Literal["fp16", "fp32"]
RULES: tuple[str, ...] = get_args(Rule)
BITS = (1, 2, 4, 8)
#: Quantiles that are best for normal values, measured with 3,328 of them.
ALPHAS = {1: 0.2125, 2: 0.0683, 4: 0.005, 8: 0.0}
#: The factors of CalibQuant's code at 1 bit; at other widths it has 1.
SHRINKS: dict[Part, float] = {"k": 0.5, "v": 0.3}


@dataclass(frozen=True, slots=True)
class Scheme:
    """How the keys or the values of a head [T, D] are stored.

    `alpha` in [0, 0.5) is for the rule quantile, `shrink` in (0, 1] for calibquant; None takes what suits the bits.
    `group` tokens or channels have a range of their own, 0: all.
    """

    part: Part
    bits: int = 1
    rule: Rule = "lloyd1"
    alpha: float | None = None
    shrink: float | None = None
    group: int = 0
    along: Along = "tokens"
    layout: Layout = "msb8"
    meta: Meta = "fp16"

    def __post_init__(self) -> None:
        if self.bits not in BITS:
            raise ToolrollError(f"{self.bits} bits: one of 1, 2, 4, 8 is possible")
        if self.rule not in RULES:
            raise ToolrollError(f"no rule {self.rule!r}: one of {', '.join(RULES)} is")
        if self.rule == "lloyd1" and self.bits != 1:
            raise ToolrollError(f"the rule lloyd1 is for 1 bit, not {self.bits}")
        if self.alpha is not None and not 0 <= self.alpha < 0.5:
            raise ToolrollError(f"alpha is {self.alpha}: from 0 to less than 0.5 is possible")
        if self.shrink is not None and not 0 < self.shrink <= 1:
            raise ToolrollError(f"shrink is {self.shrink}: more than 0 and at most 1 is possible")
        if self.group < 0:
            raise ToolrollError("a group has at least 1 member; 0 takes all")
        if self.along == self.packed_along and self.group % self.unit:
            raise ToolrollError(
                f"groups of {self.group} {self.along} do not begin where a {self.word} of codes does: "
                f"a multiple of {self.unit} is possible"
            )

    @property
    def levels(self) -> int:
        """L, the largest code."""
        return (1 << self.bits) - 1

    @property
    def the_alpha(self) -> float:
        """The share of values below lo, and above hi, for the rule quantile."""
        return ALPHAS[self.bits] if self.alpha is None else self.alpha

    @property
    def the_shrink(self) -> float:
        """The factor of minimum and maximum for the rule calibquant."""
        if self.shrink is not None:
            return self.shrink
        return SHRINKS[self.part] if self.bits == 1 else 1.0

    @property
    def order(self) -> Order:
        """Whether the first code of a byte is in its highest or its lowest bits."""
        return "msb" if self.layout == "msb8" else "lsb"

    @property
    def packed_along(self) -> Along:
        """Which neighbours share a byte."""
        return "tokens" if self.layout == "kivi32" and self.part == "k" else "channels"

    @property
    def unit(self) -> int:
        """Codes of a byte or of a word, of which a packed row has a whole number."""
        return (8 if self.layout == "msb8" else 32) // self.bits

    @property
    def word(self) -> str:
        """What `unit` codes fill."""
        return "byte" if self.layout == "msb8" else "word"

    def check_channels(self, channels: int) -> None:
        """ToolrollError if heads of so many channels cannot be packed."""
        if self.packed_along == "channels" and channels % self.unit:
            raise ToolrollError(
                f"heads have {channels} channels, no multiple of {self.unit}: "
                f"{self.unit} codes of {self.bits} bit{'s' * (self.bits > 1)} are in a {self.word}"
            )

    def groups(self, tokens: int, channels: int) -> tuple[int, int]:
        """The shape of lo and scale of a head [T, D]; without tokens there are none."""
        if not tokens:
            return (0, channels) if self.along == "tokens" else (0, 0)
        if self.along == "tokens":
            return (-(-tokens // (self.group or tokens)), channels)
        return (tokens, -(-channels // (self.group or channels)))

    def packed(self, tokens: int, channels: int) -> tuple[int, int]:
        """Rows and bytes a row of the codes of a head [T, D]."""
        if self.packed_along == "channels":
            return (tokens, channels * self.bits // 8)
        return (channels, -(-tokens // self.unit) * self.unit * self.bits // 8)

    def code_bytes(self, tokens: int, channels: int) -> int:
        """Bytes of the codes of a head."""
        rows, row_bytes = self.packed(tokens, channels)
        return rows * row_bytes

    def range_bytes(self, tokens: int, channels: int) -> int:
        """Bytes of lo and scale of a head."""
        rows, columns = self.groups(tokens, channels)
        return 2 * rows * columns * (2 if self.meta == "fp16" else 4)

    def as_dict(self) -> dict[str, Any]:
        """What a file's header says of it; `scheme_of` reads it."""
        return {
            "bits": self.bits,
            "rule": self.rule,
            "alpha": self.the_alpha if self.rule == "quantile" else None,
            "shrink": self.the_shrink if self.rule == "calibquant" else None,
            "group": self.group,
            "along": self.along,
            "layout": self.layout,
            "meta": self.meta,
        }


def scheme_of(part: Part, said: dict[str, Any]) -> Scheme:
    """The scheme that `as_dict` wrote. ToolrollError for what is none."""
    try:
        scheme = Scheme(part, **said)
        known = scheme.along in get_args(Along) and scheme.layout in get_args(Layout) and scheme.meta in get_args(Meta)
    except TypeError as error:
        raise ToolrollError("its scheme has fields that are not known") from error
    if not known:
        raise ToolrollError("its scheme has values that are not known")
    return scheme
