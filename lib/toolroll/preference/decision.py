"""Keep, reverse or drop a pair of answers by their scores.

With S the score of an answer (100 cos, see `scores`), D = S(chosen) - S(rejected), and margins k, r >= 0:

    D > k     keep
    D < -r    reverse: the answers change places
    else      drop (margin)

With k = r = 0 only ties are dropped. Which margins the paper uses is not known; CLIP-DPO takes pairs whose scores are
2 or more apart. Nothing here looks at anything but the two answers, so that pairs can be decided in any order.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from toolroll.preference.answers import fault, folded, words

Action = Literal["keep", "reverse", "drop"]
OnNegative = Literal["reverse", "drop", "keep"]
GRID = tuple(step / 50 for step in range(50))  #: 0, 0.02, ... 0.98: where RLAIF-V looks for its length limit
_TWINS = (("ref_chosen_logps", "ref_rejected_logps"), ("chosen_tokens", "rejected_tokens"))


@dataclass(frozen=True, slots=True)
class Side:
    """An answer of a pair.

    Its text, its score (None or NaN where it has none), whether a limit cut it, how many tokens it has with its prompt
    (None where nobody counted).
    """

    text: str
    score: float | None = None
    cut: bool = False
    tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """How pairs are decided.

    keep_margin, reverse_margin >= 0, in the units of the scores. on_negative: what becomes of a pair whose rejected
    answer scores higher by more than the margin; "keep" does not look at scores at all. max_gap: the largest
    (len(rejected) - len(chosen)) / len(rejected) in words of a pair as it is written; two_sided: its absolute value.
    drop: further faults (`answers.FAULTS`, and "cut"). script: the letters answers are to have. max_total_tokens: the
    most tokens of the prompt with either answer; where nobody counted, nothing is dropped for it.
    """

    keep_margin: float = 0.0
    reverse_margin: float = 0.0
    on_negative: OnNegative = "reverse"
    max_gap: float | None = None
    two_sided: bool = False
    drop: Collection[str] = ()
    script: str | None = None
    max_total_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a pair. `delta` is S(chosen) - S(rejected) as the pair is written; None without scores."""

    action: Action
    reason: str | None = None
    delta: float | None = None


def decide(chosen: Side, rejected: Side, rules: Rules | None = None) -> Verdict:
    """What becomes of a pair.

    >>> decide(Side("two cubes", 26.0), Side("a dog", 23.0))
    Verdict(action='keep', reason=None, delta=3.0)
    >>> decide(Side("a dog", 21.0), Side("two cubes", 25.0))
    Verdict(action='reverse', reason=None, delta=4.0)
    >>> decide(Side("a dog", 25.0), Side("two cubes", 25.5), Rules(1, 1))
    Verdict(action='drop', reason='margin', delta=-0.5)
    """
    rules = rules or Rules()
    delta = _gap(chosen.score, rejected.score)
    reason = _unfit(chosen, rejected, rules)
    if reason is not None:
        return Verdict("drop", reason, delta)
    action: Action = "keep"
    if rules.on_negative != "keep":
        if delta is None:
            return Verdict("drop", "empty")  # no sentence in it could be scored
        if -rules.reverse_margin <= delta <= rules.keep_margin:
            return Verdict("drop", "margin", delta)
        if delta < 0:
            if rules.on_negative == "drop":
                return Verdict("drop", "negative", delta)
            action = "reverse"
    first, second = (rejected, chosen) if action == "reverse" else (chosen, rejected)
    if rules.max_gap is not None and _too_far(length_gap(first.text, second.text), rules.max_gap, rules.two_sided):
        return Verdict("drop", "length", delta)
    return Verdict(action, None, -delta if action == "reverse" and delta is not None else delta)


def length_gap(chosen: str, rejected: str) -> float:
    """(len(rejected) - len(chosen)) / len(rejected) in words: positive where the chosen answer is shorter.

    >>> length_gap("one two three four", "one two three four five"), length_gap("a b c d e f", "a b c d e")
    (0.2, -0.2)
    """
    longer = len(words(rejected))
    if not longer:
        raise ValueError("the rejected answer has no words")
    return (longer - len(words(chosen))) / longer


def best_max_gap(lengths: Iterable[tuple[int, int]], *, two_sided: bool = False) -> float | None:
    """The limit of GRID after which chosen and rejected answers are most alike in length; the largest of equal ones.

    `lengths` are words of (chosen, rejected). What is minimised is |mean chosen - mean rejected| / mean rejected over
    the pairs that stay, as RLAIF-V's get_pairs_filter_shorten.py does. None where no limit leaves a pair.

    >>> best_max_gap([(10, 10), (9, 10), (5, 10)])
    0.08
    """
    known = [(chosen, rejected) for chosen, rejected in lengths if rejected]
    found: tuple[float, float] | None = None
    for limit in GRID:
        kept = [pair for pair in known if not _too_far((pair[1] - pair[0]) / pair[1], limit, two_sided)]
        if kept:
            total = sum(rejected for _, rejected in kept)
            off = abs(sum(chosen for chosen, _ in kept) - total) / total
            if found is None or off <= found[0]:
                found = (off, limit)
    return None if found is None else found[1]


def swapped(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A pair's fields with all that is of one answer and the other in each other's place; `reversed` turns over.

    >>> swapped({"id": 1, "chosen": "a", "rejected": "b", "clip": {"chosen": 1, "rejected": 2}, "delta": -4.0})
    {'id': 1, 'chosen': 'b', 'rejected': 'a', 'clip': {'chosen': 2, 'rejected': 1}, 'delta': 4.0, 'reversed': True}
    """
    made = dict(fields)
    for one, other in (("chosen", "rejected"), *_TWINS):
        if one in fields or other in fields:
            made[one], made[other] = fields.get(other), fields.get(one)
    for name in ("clip", "made"):
        inner = fields.get(name)
        if isinstance(inner, Mapping):
            made[name] = {**inner, "chosen": inner.get("rejected"), "rejected": inner.get("chosen")}
    if isinstance(fields.get("delta"), int | float):
        made["delta"] = -fields["delta"]
    made["reversed"] = not fields.get("reversed", False)
    return made


def _unfit(chosen: Side, rejected: Side, rules: Rules) -> str | None:
    """Why the answers make no pair, whichever of them is better."""
    faults = [fault(side.text, rules.drop, rules.script) for side in (chosen, rejected)]
    for reason in ("empty", "refusal", "loop", "script"):
        if reason in faults:
            return reason
    if folded(chosen.text) == folded(rejected.text):
        return "identical"
    if "cut" in rules.drop and (chosen.cut or rejected.cut):
        return "cut"
    if (
        rules.max_total_tokens is not None
        and max(one.tokens or 0 for one in (chosen, rejected)) > rules.max_total_tokens
    ):
        return "tokens"
    return None


def _gap(chosen: float | None, rejected: float | None) -> float | None:
    if chosen is None or rejected is None:
        return None
    gap = chosen - rejected
    return gap if math.isfinite(gap) else None


def _too_far(gap: float, limit: float, two_sided: bool) -> bool:
    """Whether a gap is over the limit, for gaps that are fractions of whole numbers."""
    return (abs(gap) if two_sided else gap) > limit + 1e-12
