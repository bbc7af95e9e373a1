"""Deciding records: the options, and pairs with scores kept, reversed or dropped."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click
import orjson

from toolroll.errors import RowError, UsageError
from toolroll.preference.answers import folded, is_script, words
from toolroll.preference.decision import Rules, Side, best_max_gap, decide, swapped
from toolroll.preference.texts import text_of
from toolroll.preference.work import Work

PRESETS = {"none": (0.0, 0.0), "clipdpo": (2.0, 2.0)}  #: margins; CLIP-DPO takes pairs that are 2 or more apart


@dataclass(frozen=True, slots=True)
class RuleOptions:
    """The values of the options; see `decision.Rules`."""

    keep_margin: float | None = None
    reverse_margin: float | None = None
    margins: str = "none"
    on_negative: str = "reverse"
    max_gap: str | None = None
    length_two_sided: bool = False
    drop: tuple[str, ...] = ()
    script: str | None = None
    max_total_tokens: int | None = None
    with_dropped: bool = False

    def __post_init__(self) -> None:
        if self.length_two_sided and self.max_gap is None:
            raise UsageError("goes with --max-gap", place="--length-two-sided")
        if self.max_gap not in (None, "auto"):
            _limit(self.max_gap)
        if self.script is not None and not is_script(self.script):
            raise UsageError(f"Unicode has no letters of a script {self.script!r}", place="--script")

    def rules(self, max_gap: float | None = None) -> Rules:
        """The rules; `max_gap` where it is found from the pairs."""
        keep, turn = PRESETS[self.margins]
        return Rules(
            keep_margin=keep if self.keep_margin is None else self.keep_margin,
            reverse_margin=turn if self.reverse_margin is None else self.reverse_margin,
            on_negative=self.on_negative,  # type: ignore[arg-type]
            max_gap=max_gap if self.max_gap in (None, "auto") else _limit(self.max_gap),
            two_sided=self.length_two_sided,
            drop=tuple(name for name in self.drop if name != "duplicate"),
            script=self.script,
            max_total_tokens=self.max_total_tokens,
        )


def rule_options(option: Callable[..., click.Option]) -> list[click.Option]:
    """The options of `RuleOptions`, made by `option`, which is click.Option with a `section`."""

    def make(*names: str, **settings: Any) -> click.Option:
        return option(list(names), section="Decision", **settings)

    margin = click.FloatRange(min=0)
    return [
        make("--keep-margin", type=margin, help="Keep a pair whose scores are more than this apart.  [default: 0]"),
        make("--reverse-margin", type=margin, help="Reverse one that is more than this the wrong way.  [default: 0]"),
        make(
            "--margins",
            type=click.Choice(list(PRESETS)),
            default="none",
            show_default=True,
            help="Both margins: 0, or 2 as in CLIP-DPO.",
        ),
        make(
            "--on-negative",
            type=click.Choice(["reverse", "drop", "keep"]),
            default="reverse",
            show_default=True,
            help="What becomes of a pair whose rejected answer scores higher; keep does not look at scores at all.",
        ),
        make(
            "--max-gap",
            metavar="SHARE|auto",
            help="Drop a pair whose chosen answer is shorter than the other by more than this share of its words; auto "
            "takes the share of 0, 0.02 .. 0.98 after which both are most alike, and holds all pairs.",
        ),
        make("--length-two-sided", is_flag=True, help="--max-gap: also where it is longer."),
        make(
            "--drop",
            multiple=True,
            type=click.Choice(["cut", "refusal", "loop", "duplicate"]),
            help="Also drop a pair with an answer that was cut at the limit, refuses, or repeats itself, or one that "
            "came before. Repeatable.",
        ),
        make("--script", metavar="NAME", help="Drop a pair with an answer in other letters: latin, cyrillic, cjk, ..."),
        make(
            "--max-total-tokens",
            type=click.IntRange(min=2),
            metavar="N",
            help="Drop a pair whose prompt, images and all, has more tokens with either answer, so that no trainer has "
            "to cut it.",
        ),
        make("--with-dropped", is_flag=True, help="Also write pairs that are dropped, with the reason."),
    ]


class Decider:
    """Decides records and counts what became of them."""

    def __init__(self, options: RuleOptions) -> None:
        self.options = options
        self.counts: Counter[str] = Counter()
        self.max_gap: float | None = None
        self._seen: set[bytes] = set()

    def __call__(self, items: Iterable[Work]) -> Iterator[Work]:
        """The records, decided, in order."""
        if self.options.max_gap == "auto":
            items = list(items)
            self.max_gap = best_max_gap(self._lengths(items), two_sided=self.options.length_two_sided)
        rules = self.options.rules(self.max_gap)
        for work in items:
            if work.error is None:
                try:
                    self._decide(work, rules)
                except RowError as error:
                    work.fail(error.why)
            yield work

    def _decide(self, work: Work, rules: Rules) -> None:
        one, other = sides(work.fields)
        if rules.on_negative != "keep" and work.fields.get("clip") is None:
            raise RowError("no scores, which --stage score makes (or --on-negative keep)")
        if rules.max_total_tokens is not None and None in (one.tokens, other.tokens):
            raise RowError("no token counts for --max-total-tokens, which pair-logps makes")
        verdict = decide(one, other, rules)
        action, reason = verdict.action, verdict.reason
        if "duplicate" in self.options.drop and action != "drop" and self._is_known(work.fields, one, other):
            action, reason = "drop", "duplicate"
        if action == "reverse":
            work.set(**{name: value for name, value in swapped(work.fields).items() if name != "delta"})
        else:
            work.set(reversed=work.fields.get("reversed") is True)
        work.set(action=action, reason=reason, delta=verdict.delta)
        work.dropped = action == "drop" and not self.options.with_dropped
        self.counts[action if reason is None else f"drop ({reason})"] += 1

    def _lengths(self, items: Iterable[Work]) -> list[tuple[int, int]]:
        """Words of the answers of pairs that no other rule drops, as they would be written."""
        found = []
        rules = self.options.rules()
        for work in items:
            if work.error is not None:
                continue
            try:
                one, other = sides(work.fields)
            except RowError:
                continue
            verdict = decide(one, other, rules)
            if verdict.action != "drop":
                pair = (one, other) if verdict.action == "keep" else (other, one)
                found.append((len(words(pair[0].text)), len(words(pair[1].text))))
        return found

    def _is_known(self, fields: Mapping[str, Any], one: Side, other: Side) -> bool:
        """Whether the same two answers about the same images came before, whichever was the better one."""
        parts = [fields.get("images"), fields.get("prompt"), sorted([folded(one.text), folded(other.text)])]
        key = hashlib.blake2b(orjson.dumps(parts), digest_size=16).digest()
        known = key in self._seen
        self._seen.add(key)
        return known


def sides(fields: Mapping[str, Any]) -> tuple[Side, Side]:
    """The two answers of a pair. RowError for what is none."""
    one, other = (_side(fields, name) for name in ("chosen", "rejected"))
    return one, other


def _side(fields: Mapping[str, Any], name: str) -> Side:
    if fields.get(name) is None:
        raise RowError(f"no `{name}`")
    score = (_part(fields, "clip", name) or {}).get("score")
    made = _part(fields, "made", name) or {}
    if score is not None and (isinstance(score, bool) or not isinstance(score, int | float)):
        raise RowError(f"the score of `{name}` is no number")
    return Side(text_of(fields[name], name), score, made.get("finish") == "length", _total_tokens(fields, name, made))


def _total_tokens(fields: Mapping[str, Any], name: str, made: Mapping[str, Any]) -> int | None:
    """Tokens of the prompt with an answer: as pair-logps counted them, else as they were written."""
    counted = (fields.get("prompt_tokens"), fields.get(f"{name}_tokens"))
    written = ((fields.get("made") or {}).get("prompt_tokens"), made.get("tokens"))
    for prompt, answer in (counted, written):
        if isinstance(prompt, int) and isinstance(answer, int):
            return prompt + answer
    return None


def _part(fields: Mapping[str, Any], record: str, name: str) -> Mapping[str, Any] | None:
    whole = fields.get(record)
    part = whole.get(name) if isinstance(whole, Mapping) else None
    if (whole is not None and not isinstance(whole, Mapping)) or (part is not None and not isinstance(part, Mapping)):
        raise RowError(f"`{record}` is not what judgefree-pairs writes")
    return part


def _limit(text: str | None) -> float:
    try:
        found = float(text or "")
    except ValueError as error:
        raise UsageError(f"{text!r} is neither a share nor auto", place="--max-gap") from error
    if not 0 <= found < 1e100:
        raise UsageError("not from 0 up", place="--max-gap")
    return found
