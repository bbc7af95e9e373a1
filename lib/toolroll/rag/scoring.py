"""From parsed trajectories to rewards: rows in, the same rows with `reward` and judged `steps` out, in order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec

from toolroll.checking.match import RULES, f1
from toolroll.errors import RowError, ToolrollError
from toolroll.io.rows import Row, clean
from toolroll.rag.judges.base import ROLES, Case, Finding, Role
from toolroll.rag.judges.confidence import query_logprobs
from toolroll.rag.judges.panel import Panel
from toolroll.rag.judges.trajectory import Trajectory, cases_of, trajectory
from toolroll.rag.reward import (
    Ablation,
    Compat,
    OnUnknown,
    RewardParts,
    beta_grpo_reward,
    r1_searcher_reward,
    search_r1_reward,
    trajectory_reward,
)
from toolroll.run.rows import Rows

__all__ = ["Scheme", "Scorer"]

WINDOW = 32  #: rows whose steps are judged together

_IGNORES: dict[str, tuple[Role, ...]] = {"none": ROLES, "over-only": ("over",), "under-only": ("under",)}


@dataclass(frozen=True, slots=True)
class Scheme:
    """Which reward is paid and how; the symbols are those of `toolroll.rag.reward`.

    f1_threshold: with match `f1`, the least F1 of a right answer. min_prob: beta-GRPO's threshold. pieces: the bytes
    of each token id, for beta-GRPO.
    """

    reward: str = "hiprag"
    match: str = "cem"
    f1_threshold: float = 0.66
    process_weight: float = 0.4
    format_weight: float = 0.2
    compat: Compat = "paper"
    on_unknown: OnUnknown = "skip"
    ablation: Ablation = "none"
    min_prob: float = 0.0
    pieces: Sequence[bytes | None] | None = None

    @property
    def roles(self) -> tuple[Role, ...]:
        """The kinds of verdict this reward depends on."""
        return _IGNORES[self.ablation] if self.reward == "hiprag" and self.process_weight > 0 else ()

    def correct(self, answer: str | None, golds: Sequence[str]) -> bool:
        """A: whether the answer is right."""
        return RULES[self.match](answer, golds) >= (self.f1_threshold if self.match == "f1" else 1)


class _Steps(msgspec.Struct):
    steps: list[dict[str, Any]]


_decode_steps = msgspec.json.Decoder(_Steps).decode


@dataclass(slots=True)
class _Entry:
    """A row whose steps are being judged: `at[i]` is step `i`'s place among the cases, if it has one."""

    row: Row[Any]
    known: Trajectory | None = None
    correct: bool = False
    at: dict[int, int] = field(default_factory=dict)
    failed: str = ""


class Scorer:
    """Gives rows their reward. After `rows`, `n_judged` and `n_unknown` are how many verdicts were wanted and lacked.

    panel: None takes the verdicts that stand in the rows. judge_all: judge steps the reward does not depend on too.
    """

    def __init__(self, scheme: Scheme, panel: Panel | None = None, *, judge_all: bool = False) -> None:
        self.scheme = scheme
        self.panel = panel
        self.judge_all = judge_all
        self.n_judged = 0
        self.n_unknown = 0
        self._pay_by_steps = lru_cache(maxsize=4096)(self._by_steps)

    def rows(self, rows: Rows[Any]) -> Iterator[Row[Any]]:
        """The rows with their rewards, in order."""
        if self.panel is None:
            yield from self._as_given(rows)
            return
        for window in _windows(rows, WINDOW):
            yield from self._judged(self.panel, window)

    def check_unknown(self, most: float | None) -> None:
        """ToolrollError if more than the share `most` of the judged steps has no verdict."""
        if most is not None and self.n_judged and self.n_unknown > most * self.n_judged:
            told = f"{self.n_unknown} of {self.n_judged} judged steps have no verdict"
            raise ToolrollError(f"{told}, more than the share {most:g} that is allowed", place="--max-unknown")

    # --- verdicts that are there already

    def _as_given(self, rows: Rows[Any]) -> Iterator[Row[Any]]:
        correct, wanted = self.scheme.correct, self._wanted
        for row in rows:
            try:
                known = trajectory(row.view)
                right = correct(known.answer, known.golds)
                verdicts = tuple([(step.kind, step.verdict or "unknown") for step in known.steps])
                if wanted(right, known):
                    self._count(verdicts)
                reward = self._reward(row, known, right, verdicts, "given")
                yield row.add(**known.made, reward=reward) if known.made else row.add(reward=reward)
            except RowError as error:
                yield row.fail(clean(error.why))

    def _count(self, verdicts: Sequence[tuple[str, str]]) -> None:
        roles = ROLES if self.judge_all else self.scheme.roles
        for kind, verdict in verdicts:
            if ("over" if kind == "search" else "under") in roles:
                self.n_judged += 1
                self.n_unknown += verdict == "unknown"

    # --- verdicts of a panel

    def _judged(self, panel: Panel, window: list[Row[Any]]) -> Iterator[Row[Any]]:
        cases: list[Case] = []
        entries = [self._entry(row, cases) for row in window]
        findings = panel.judge(cases) if cases else []
        self.n_judged += len(findings)
        self.n_unknown += sum(finding.verdict == "unknown" for finding in findings)
        for entry in entries:
            yield self._scored(entry, findings)

    def _entry(self, row: Row[Any], cases: list[Case]) -> _Entry:
        """Read a row and add its steps to `cases`, if verdicts about them are wanted."""
        entry = _Entry(row)
        try:
            known = entry.known = trajectory(row.view)
            entry.correct = self.scheme.correct(known.answer, known.golds)
        except RowError as error:
            entry.failed = error.why
            return entry
        if self._wanted(entry.correct, known):
            roles = ROLES if self.judge_all else self.scheme.roles
            for i, case in enumerate(cases_of(row.view, known)):
                if case.role in roles:
                    entry.at[i] = len(cases)
                    cases.append(case)
        return entry

    def _scored(self, entry: _Entry, findings: Sequence[Finding]) -> Row[Any]:
        row, known = entry.row, entry.known
        if known is None:
            return row.fail(clean(entry.failed))
        mine = {i: findings[at] for i, at in entry.at.items()}
        made = dict(known.made)
        if mine or any(step.verdict for step in known.steps):
            steps = made["steps"] if "steps" in made else _decode_steps(row.raw).steps
            made["steps"] = [_with_verdict(step, mine.get(i)) for i, step in enumerate(steps)]
        verdicts = tuple((step.kind, mine[i].verdict if i in mine else "unknown") for i, step in enumerate(known.steps))
        judge = self.panel.name if self.panel is not None and mine else "none"
        try:
            return row.add(**made, reward=self._reward(row, known, entry.correct, verdicts, judge))
        except RowError as error:
            return row.fail(clean(error.why), **made)

    def _wanted(self, correct: bool, known: Trajectory) -> bool:
        return self.judge_all or (correct and known.valid and bool(self.scheme.roles))

    # --- rewards

    def _reward(self, row: Row[Any], known: Trajectory, correct: bool, verdicts: Any, judge: str) -> dict[str, Any]:
        scheme = self.scheme.reward
        if scheme in ("hiprag", "search-r1"):
            return self._pay_by_steps(correct, known.valid, verdicts, judge)
        if scheme == "r1-searcher-f1":
            overlap = f1(known.answer, known.golds)
            return self._told(r1_searcher_reward(answer_f1=overlap, format_valid=known.valid, verdicts=verdicts), judge)
        pieces = self.scheme.pieces
        parts = beta_grpo_reward(
            answer_correct=correct,
            format_valid=known.valid,
            query_logprobs=query_logprobs(row.fields(), pieces or (), row.view.dialect or "hiprag"),
            threshold=self.scheme.min_prob,
            verdicts=verdicts,
        )
        return self._told(parts, judge)

    def _by_steps(self, correct: bool, valid: bool, verdicts: Any, judge: str) -> dict[str, Any]:
        """Rewards that depend on nothing but A, F and the verdicts: few enough to be kept."""
        scheme = self.scheme
        if scheme.reward == "search-r1":
            weight = scheme.format_weight
            parts = search_r1_reward(
                answer_correct=correct, format_valid=valid, format_weight=weight, verdicts=verdicts
            )
            return self._told(parts, judge)
        parts = trajectory_reward(
            answer_correct=correct,
            format_valid=valid,
            verdicts=verdicts,
            process_weight=scheme.process_weight,
            format_weight=scheme.format_weight,
            compat=scheme.compat,
            on_unknown=scheme.on_unknown,
            ablation=scheme.ablation,
        )
        return self._told(parts, judge)

    def _told(self, parts: RewardParts, judge: str) -> dict[str, Any]:
        if judge == "given" and parts.n_unknown == parts.n_steps:
            judge = "none"
        return {
            "total": parts.total,
            "parts": parts.parts,
            "A": parts.A,
            "F": parts.F,
            "n_steps": parts.n_steps,
            "n_ok": parts.n_ok,
            "n_over": parts.n_over,
            "n_under": parts.n_under,
            "n_unknown": parts.n_unknown,
            "scheme": self.scheme.reward,
            "judge": judge,
        }


def _with_verdict(step: dict[str, Any], finding: Finding | None) -> dict[str, Any]:
    """The step as this run judged it; a verdict of an earlier run does not stay."""
    if finding is None:
        return {name: value for name, value in step.items() if name not in ("verdict", "verdict_why")}
    return {**step, "verdict": finding.verdict, "verdict_why": clean(finding.why)}


def _windows(rows: Rows[Any], size: int) -> Iterator[list[Row[Any]]]:
    """Rows in batches of up to `size`, fewer where the next one would have to be waited for."""
    for first in rows:
        window = [first]
        while len(window) < size and rows.ready():
            row = next(rows, None)
            if row is None:
                break
            window.append(row)
        yield window
