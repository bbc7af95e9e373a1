"""One HTML page: the numbers, and for each problem that diverges two answers side by side from where they part.

The page is whole in itself and safe to open: see `toolroll.run.page`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

from toolroll.errors import UsageError
from toolroll.io.filesystem import put
from toolroll.numerics.configs import Config, fields_of, matches
from toolroll.numerics.divergence import common_prefix
from toolroll.numerics.report import filled, for_people
from toolroll.numerics.runs import Group, Held, Key, Problem, Runs
from toolroll.numerics.spelling import Speller, speller
from toolroll.run.page import head, safe, table

__all__ = ["write_page"]

BEFORE, AFTER = 60, 150  #: tokens shown before and after the one at which two answers part
CHARACTERS = 4  #: shown for each of these where only texts are known

_STYLE = """\
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; margin-top: .6rem; }
.two > div { min-width: 0; }
mark { background: var(--mark); color: #000; border-radius: 3px; padding: 0 .15em; }
"""


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What the configurations on both sides have, and how tokens are spelt."""

    left: Mapping[str, str]
    right: Mapping[str, str]
    spell: Speller | None


def write_page(
    runs: Runs,
    report: Sequence[Mapping[str, Any]],
    path: str,
    *,
    sides: tuple[str | None, str | None] = (None, None),
    tokenizer: str | None = None,
    most: int = 200,
    notify: Callable[[str], None] = lambda _: None,
) -> None:
    """Write the page. `runs` were held whole; `most` is how many problems of a group are shown.

    sides: what the configurations on the left and on the right have, as `batch_size=1 tp=2`. UsageError for what none
    has. tokenizer: the name of one to spell token ids with.
    """
    spell = None if tokenizer is None else speller(tokenizer, notify)
    left, right = (_side(runs, text, place) for text, place in zip(sides, ("--left", "--right"), strict=True))
    chosen = _Chosen(left, right, spell)
    parts = [head("repro-report", _STYLE), "<h1>How far the answers differ</h1>\n", table(for_people(report))]
    for group, row in zip(runs.groups, report, strict=bool(runs.groups)):
        parts += _group(runs, group, row, chosen, most)
    put(Path(path), "".join(parts).encode(errors="replace"))


def _side(runs: Runs, text: str | None, place: str) -> dict[str, str]:
    """The fields that a configuration is chosen by. UsageError where none has them."""
    if text is None:
        return {}
    wanted = fields_of(text)
    if not any(matches(config, wanted) for group in runs.groups for config in group.configs):
        raise UsageError(f"no configuration has {text}", place=place)
    return wanted


def _group(runs: Runs, group: Group, row: Mapping[str, Any], chosen: _Chosen, most: int) -> Iterator[str]:
    """The part of the page on one group."""
    names = runs.names(group)
    title = " ".join(f"{name}={value}" for name, value in group.shared.items() if value is not None)
    yield f"<h2>{safe(title or 'all configurations')}</h2>\n"
    yield table(filled([_config_row(one) for one in row["runs"]]))
    diverged = [(key, one) for key, one in group.complete() if one.comparable and one.diverges]
    pairs = [(key, one, pair) for key, one in diverged if (pair := _pair(group, one, chosen)) is not None]
    if not diverged:
        yield "<p>No problem diverges.</p>\n"
    elif len(pairs) < len(diverged):
        count = len(diverged) - len(pairs)
        yield f'<p class="soft">{count} more diverge, but not between these two configurations.</p>\n'
    if len(pairs) > most:
        yield f'<p class="soft">{len(pairs)} problems diverge; the first {most} are shown (--shown).</p>\n'
    for key, problem, pair in pairs[:most]:
        yield _problem(key, problem, pair, names, chosen.spell)


def _pair(group: Group, problem: Problem, chosen: _Chosen) -> tuple[Config, Config] | None:
    """The two configurations whose answers are shown: those that are asked for, if their answers differ.

    A side that is not asked for, or not in this group, is on the left the first configuration, on the right the one
    whose answer parts first from that on the left.
    """
    configs = list(group.configs)
    left = next((config for config in configs if chosen.left and matches(config, chosen.left)), None)
    right = next((one for one in configs if chosen.right and one != left and matches(one, chosen.right)), None)
    if left is None:
        left = next(config for config in configs if config != right)
    if right is None:
        right = min(
            (config for config in configs if config != left), key=lambda one: _parting(group, problem, left, one)
        )
    a, b = (problem.answers[group.configs[config]].tokens for config in (left, right))
    same = a is not None and b is not None and len(a) == len(b) == common_prefix(a, b)
    return None if same else (left, right)


def _parting(group: Group, problem: Problem, left: Config, right: Config) -> float:
    """Where the answers of two configurations part; infinite where they do not."""
    a, b = (problem.answers[group.configs[config]].tokens for config in (left, right))
    if a is None or b is None:
        return float("inf")
    shared = common_prefix(a, b)
    return float("inf") if len(a) == len(b) == shared else shared


def _problem(
    key: Key, problem: Problem, pair: tuple[Config, Config], names: Mapping[Config, str], spell: Speller | None
) -> str:
    """Two answers to a problem."""
    numbers = {config: number for number, config in enumerate(names)}
    sides = [problem.answers[numbers[config]] for config in pair]
    at = common_prefix(sides[0].tokens, sides[1].tokens)  # type: ignore[arg-type]
    texts = _texts(sides, at, spell)
    columns = "".join(
        f'<div><b>{safe(names[config])}</b><br><span class="soft">{_facts(side, at)}</span>\n<pre>{text}</pre></div>\n'
        for config, side, text in zip(pair, sides, texts, strict=True)
    )
    title = f"<b>{safe(str(key[0]))}</b>" + (f" sample {key[1]}" if key[1] else "")
    summary = f"<summary>{title}: the answers part after {at} tokens</summary>"
    return f'<details open>{summary}\n<div class="two">\n{columns}</div></details>\n'


def _facts(side: Held, at: int) -> str:
    """What is known of the token at which an answer parts from the other, and of the answer."""
    facts = []
    if side.top1 is not None and at < len(side.top1):
        facts.append(f"p(top 1) {side.top1[at]:.4g}")
    if side.gaps is not None and at < len(side.gaps):
        facts.append(f"gap {side.gaps[at]:.4g}")
    if side.n_tokens is not None:
        facts.append(f"{side.n_tokens} tokens")
    if side.correct is not None:
        facts.append("right" if side.correct else "wrong")
    return ", ".join(facts)


def _texts(sides: Sequence[Held], at: int, spell: Speller | None) -> list[str]:
    """The answers as HTML, each with a mark where it parts from the other."""
    if spell is None and all(side.words is None and side.text is not None for side in sides):
        texts = [side.text or "" for side in sides]
        parted = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False)))
        if texts[0] == texts[1]:
            note = '<span class="soft">(the tokens differ, their texts do not)</span>\n'
            return [note + _cut(text, parted, CHARACTERS, str) for text in texts]
        return [_cut(text, parted, CHARACTERS, str) for text in texts]
    return [_cut_tokens(side, at, spell) for side in sides]


def _cut_tokens(side: Held, at: int, spell: Speller | None) -> str:
    assert side.tokens is not None
    if side.words is not None:
        return _cut(side.words, at, 1, "".join)
    if spell is not None:
        return _cut(side.tokens.tolist(), at, 1, spell)
    return _cut(side.tokens.tolist(), at, 1, lambda ids: "".join(f"{token} " for token in ids))


def _cut(items: Sequence[Any], at: int, scale: int, text_of: Callable[[Any], str]) -> str:
    """The items around the one at `at` as HTML, that one marked."""
    unit = "tokens" if scale == 1 else "characters"
    start, end = max(0, at - BEFORE * scale), at + 1 + AFTER * scale
    before = f'<span class="soft">[{start} {unit}] </span>' if start else ""
    after = f'<span class="soft"> [{len(items) - end} more]</span>' if len(items) > end else ""
    mark = safe(text_of(items[at : at + 1])) if at < len(items) else '<span title="the answer ends here">&#8718;</span>'
    return f"{before}{safe(text_of(items[start:at]))}<mark>{mark}</mark>{safe(text_of(items[at + 1 : end]))}{after}"


def _config_row(one: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `records.ConfigStats` for people."""
    accuracy, length, rate = one["accuracy"], one["mean_output_length"], one["tokens_per_s"]
    return {
        "configuration": one["config"],
        "answers": one["n_rows"],
        "acc %": None if accuracy is None else f"{100 * accuracy:.2f}",
        "length": None if length is None else f"{length:.1f}",
        "tok/s": None if rate is None else f"{rate:.0f}",
    }
