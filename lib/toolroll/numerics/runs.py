"""Answers of many configurations, gathered by group and problem as they are read.

What is held of an answer is its length, whether it is right, and its probabilities up to the first token in which it
differs from another of its problem; of tokens, those of one answer a problem. So memory grows by 16 bytes for each
position before a divergence. For pages that show answers everything is held.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from toolroll.errors import RowError
from toolroll.numerics.answers import Answer
from toolroll.numerics.configs import Config, canonical, name_of, varying
from toolroll.numerics.divergence import NO_DIVERGENCE, Floats, Gaps, common_prefix

__all__ = ["Costs", "Group", "Held", "Key", "Problem", "Runs"]

Tokens = npt.NDArray[np.int64]
Key = tuple[str | int, int]  #: id and sample


@dataclass(slots=True)
class Held:
    """What is held of an answer. `place` is where it was read; `top1` and `gaps` are as in `Answer`, cut short."""

    place: str
    n_tokens: int | None
    correct: int | None
    top1: Floats | None
    gaps: Floats | None
    tokens: Tokens | None = None
    words: list[str] | None = None
    text: str | None = None

    def cut(self, shared: int) -> None:
        """Let go of what is behind the first `shared` positions; of the gaps one more stays."""
        if self.top1 is not None and len(self.top1) > shared:
            self.top1 = self.top1[:shared].copy()
        if self.gaps is not None and len(self.gaps) > shared + 1:
            self.gaps = self.gaps[: shared + 1].copy()


@dataclass(slots=True)
class Problem:
    """The answers to one sample of one problem, by the number of the configuration.

    tokens: the first answer's. shared: how many of them all answers begin with. diverges: whether they are not equal.
    comparable: whether the tokens of all answers are known.
    """

    whole: bool
    answers: dict[int, Held] = field(default_factory=dict)
    tokens: Tokens | None = None
    shared: int = sys.maxsize
    diverges: bool = False
    comparable: bool = True

    @property
    def div_index(self) -> int:
        """Div_Index of the answers so far."""
        return self.shared if self.diverges else NO_DIVERGENCE

    def add(self, config: int, held: Held, tokens: Tokens | None) -> None:
        """Take in the answer of a configuration."""
        self.answers[config] = held
        if tokens is None:
            self.comparable = False
            return
        shared = self.shared
        if self.tokens is None:
            self.tokens, self.shared = tokens, len(tokens)
        else:
            same = common_prefix(self.tokens, tokens)
            self.diverges |= not same == len(tokens) == len(self.tokens)
            self.shared = min(shared, same)
        if not self.whole:
            for one in self.answers.values() if self.shared < shared else (held,):
                one.cut(self.shared)


@dataclass(slots=True)
class Costs:
    """What the answers of one configuration cost."""

    n_rows: int = 0
    timed_tokens: int = 0
    ms: float = 0.0
    kv_bytes: int = 0
    n_kv: int = 0
    weight_bytes: int | None = None
    peak_rss_bytes: int | None = None

    def add(self, answer: Answer) -> None:
        """Count an answer."""
        self.n_rows += 1
        if answer.ms is not None and answer.n_tokens is not None:
            self.timed_tokens += answer.n_tokens
            self.ms += answer.ms
        if answer.kv_bytes is not None:
            self.kv_bytes += answer.kv_bytes
            self.n_kv += 1
        self.weight_bytes = _larger(self.weight_bytes, answer.weight_bytes)
        self.peak_rss_bytes = _larger(self.peak_rss_bytes, answer.peak_rss_bytes)

    def together(self, other: Costs) -> Costs:
        """The costs of two configurations: sums, and the larger of what is not added up."""
        return Costs(
            self.n_rows + other.n_rows,
            self.timed_tokens + other.timed_tokens,
            self.ms + other.ms,
            self.kv_bytes + other.kv_bytes,
            self.n_kv + other.n_kv,
            _larger(self.weight_bytes, other.weight_bytes),
            _larger(self.peak_rss_bytes, other.peak_rss_bytes),
        )

    def report(self) -> dict[str, Any]:
        """The fields that records have of it."""
        return {
            "tokens_per_s": self.timed_tokens / self.ms * 1000 if self.ms else None,
            "weight_bytes": self.weight_bytes,
            "mean_kv_bytes": self.kv_bytes / self.n_kv if self.n_kv else None,
            "peak_rss_bytes": self.peak_rss_bytes,
        }


@dataclass(slots=True)
class Group:
    """The configurations that are compared with each other: those with the same values of the fields of --by."""

    shared: dict[str, str | None]
    configs: dict[Config, int] = field(default_factory=dict)
    costs: list[Costs] = field(default_factory=list)
    problems: dict[Key, Problem] = field(default_factory=dict)
    gaps: Gaps = field(default_factory=Gaps)
    spelt: dict[bool, str] = field(default_factory=dict)  #: where tokens were first texts (True), and first ids

    def number(self, config: Config) -> int:
        """The number of a configuration, from 0."""
        if config not in self.configs:
            self.configs[config] = len(self.configs)
            self.costs.append(Costs())
        return self.configs[config]

    def complete(self) -> Iterator[tuple[Key, Problem]]:
        """The problems that all configurations have answers to."""
        return ((key, one) for key, one in self.problems.items() if len(one.answers) == len(self.configs))

    def left_out(self) -> dict[str | int, tuple[int, Config]]:
        """The problems that some configurations lack: a sample that is missing, and a configuration that lacks it."""
        found: dict[str | int, tuple[int, Config]] = {}
        for (name, sample), problem in self.problems.items():
            if len(problem.answers) < len(self.configs):
                lacking = next(config for config, number in self.configs.items() if number not in problem.answers)
                found.setdefault(name, (sample, lacking))
        return found


class Runs:
    """Gathers answers. by: the fields that configurations of a group share; ignored: fields that make no difference.

    whole: hold answers as they are, to show them.

    >>> runs = Runs(["precision"])
    >>> for size, tokens in (("1", [5, 7, 9]), ("8", [5, 7, 8, 3])):
    ...     fields = {"precision": "bf16", "batch_size": size}
    ...     runs.add(Answer(id="q", fields=fields, tokens=tokens, n_tokens=len(tokens)), f"{size}.jsonl:1")
    >>> (group,) = runs.groups
    >>> group.shared, group.problems["q", 0].div_index
    ({'precision': 'bf16'}, 2)
    """

    def __init__(self, by: Iterable[str] = (), ignored: Iterable[str] = (), *, whole: bool = False) -> None:
        self.by = tuple(by)
        self._ignored = tuple(ignored)
        self._whole = whole
        self._fields: dict[str, None] = {}
        self._groups: dict[tuple[str | None, ...], Group] = {}
        self._vocabulary: dict[str, int] = {}

    @property
    def groups(self) -> list[Group]:
        """The groups, in the order in which they came."""
        return list(self._groups.values())

    def add(self, answer: Answer, place: str) -> None:
        """Take in an answer that was read at `place`. Raises RowError for one that is there already."""
        self._fields.update(dict.fromkeys(answer.fields))
        config = canonical(answer.fields, self._ignored)
        kind = tuple(answer.fields.get(name) for name in self.by)
        group = self._groups.get(kind) or Group(dict(zip(self.by, kind, strict=True)))
        tokens = self._ids(answer.tokens, place, group.spelt)
        self._groups[kind] = group
        problem = group.problems.setdefault((answer.id, answer.sample), Problem(self._whole))
        known = group.configs.get(config)
        if known is not None and known in problem.answers:
            other = problem.answers[known].place
            hint = "" if other.rpartition(":")[0] == place.rpartition(":")[0] else " (--by-file tells files apart)"
            raise RowError(f"id, sample and config are those of {other}{hint}")
        number = group.number(config)
        held = Held(place, answer.n_tokens, answer.correct, answer.top1, answer.gaps)
        if self._whole:
            held.tokens, held.text = tokens, answer.text
            if answer.tokens and isinstance(answer.tokens[0], str):
                held.words = [str(token) for token in answer.tokens]
        if answer.gaps is not None:
            group.gaps.add(answer.gaps)
        problem.add(number, held, tokens)
        group.costs[number].add(answer)

    def names(self, group: Group) -> dict[Config, str]:
        """The names of a group's configurations, by number: what they share, and the fields in which any two differ."""
        told = varying(group.configs) | set(self.by)
        fields = [name for name in self._fields if name in told]
        return {config: name_of(config, fields) for config in group.configs}

    def _ids(self, tokens: Any, place: str, spelt: dict[bool, str]) -> Tokens | None:
        """Tokens as numbers; texts are numbered as they come. `spelt` is that of the group."""
        if not tokens:
            return None if tokens is None else np.zeros(0, dtype=np.int64)
        kinds = set(map(type, tokens))
        if len(kinds) > 1:
            raise RowError("some tokens are ids, some texts")
        texts = kinds == {str}
        if (other := spelt.get(not texts)) is not None:
            raise RowError(f"tokens are {'texts' if texts else 'ids'} here but not at {other}")
        spelt.setdefault(texts, place)
        if texts:
            numbers = self._vocabulary
            return np.array([numbers.setdefault(token, len(numbers)) for token in tokens], dtype=np.int64)
        try:
            return np.array(tokens, dtype=np.int64)
        except OverflowError as error:
            raise RowError("a token's id has more than 63 bits") from error


def _larger(a: int | None, b: int | None) -> int | None:
    return b if a is None else a if b is None else max(a, b)
