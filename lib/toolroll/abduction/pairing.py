"""From rows of hypotheses to preference pairs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, NamedTuple

from toolroll.abduction.cases import PARSERS, Case, Cases
from toolroll.abduction.pairs import REASONS, Judge, Plan, Weights, answer_pairs, compare, contexts, shares
from toolroll.abduction.parse import Reply
from toolroll.abduction.prompts import Prompts, conversation, spelled
from toolroll.abduction.trial import Trial
from toolroll.errors import RowError, UsageError
from toolroll.io.rows import Row
from toolroll.run.rows import Rows
from toolroll.run.seeds import record_seed

__all__ = ["Pairing", "read_weights"]


@dataclass(slots=True)
class _Problem:
    """A problem with hypotheses of one row, or of several that were pooled."""

    name: str
    view: Any
    case: Case
    fields: dict[str, Any]
    replies: list[str]
    trials: list[Future[Trial]]


class _Pair(NamedTuple):
    problem: _Problem
    context: tuple[int, ...]
    chosen: int
    rejected: int
    reason: str
    scores: tuple[float, float] | None

    @property
    def id(self) -> str:
        """Names the pair: its problem, the context, and the two."""
        return f"{self.problem.name}:{'+'.join(map(str, self.context))}:{self.chosen}-{self.rejected}"


class Pairing:
    """Makes pairs of the hypotheses of rows.

    pool: rows about one problem that stand together are one set. balance: weights of reasons, or none; most: pairs in
    all, or any number. `made` counts the pairs that are given, by reason; `discarded` the comparisons that made none,
    by the level at which they ended.
    """

    def __init__(
        self,
        cases: Cases,
        prompts: Prompts,
        plan: Plan,
        weights: Weights,
        *,
        parser: str = "robust",
        pool: bool = False,
        balance: dict[str, float] | None = None,
        most: int | None = None,
    ) -> None:
        self.cases = cases
        self.prompts = prompts
        self.plan = plan
        self.weights = weights
        self.balance = balance
        self.most = most
        self.made: Counter[str] = Counter()
        self.discarded: Counter[str] = Counter()
        self._parse = PARSERS[parser]  # type: ignore[index]
        self._pool = pool

    def records(self, rows: Rows[Any]) -> Iterator[dict[str, Any]]:
        """The pairs, as records. With a balance, or a number of pairs, none comes before the last row was read."""
        pairs = self._pairs(rows)
        if self.balance is not None or self.most is not None:
            pairs = self._chosen(list(pairs), rows)
        for pair in pairs:
            self.made[pair.reason] += 1
            if not rows.done(pair.id):
                yield self._record(pair)

    def _pairs(self, rows: Rows[Any]) -> Iterator[_Pair]:
        for problem in self._problems(rows):
            yield from self._of(problem)

    def _problems(self, rows: Rows[Any]) -> Iterator[_Problem]:
        if not self._pool:
            for row in rows:
                yield from self._begun(rows, [row])
            return
        for _, several in groupby(rows, lambda row: (row.view.id, row.view.n_obs)):
            yield from self._begun(rows, list(several))

    def _begun(self, rows: Rows[Any], several: list[Row[Any]]) -> Iterator[_Problem]:
        """The problem of these rows, its hypotheses under way; nothing for a row that is refused."""
        first = several[0]
        try:
            case = self.cases.case(first.raw, first.view)
            fields = first.fields() if self.prompts.template is not None else {}
            self.prompts.first(case.problem.observations, fields)  # what the template lacks is told here
        except RowError as error:
            rows.refuse(first, error.why)
            return
        if any(row.view.hypotheses is None for row in several):
            rows.refuse(first, "no `hypotheses`")
            return
        said = [self._said(one) for row in several for one in row.view.hypotheses]
        trials = [case.begin(reply) for _, reply in said]
        name = _name(first.view, pooled=self._pool)
        yield _Problem(name, first.view, case, fields, [text for text, _ in said], trials)

    def _said(self, hypothesis: Any) -> tuple[str, Reply]:
        """What was said, as it was said where that is known, and what it means."""
        if isinstance(hypothesis, str):
            return hypothesis, self._parse(hypothesis)
        text, code = hypothesis.text or "", hypothesis.code
        said = hypothesis.reply if hypothesis.reply is not None else spelled(text, code)
        return said, Reply(text, code, "" if code is not None else "no code")

    def _of(self, problem: _Problem) -> Iterator[_Pair]:
        trials = [future.result() for future in problem.trials]
        valid = [place for place, trial in enumerate(trials) if trial.status == "consistent"]
        view = problem.view
        sample = () if self._pool or view.sample is None else (view.sample,)
        plan = replace(self.plan, seed=record_seed(self.plan.seed, view.id, view.n_obs, *sample))
        for context in contexts(valid, plan):
            judge = Judge([trials[place].ids for place in context], problem.case.size, self.weights)  # type: ignore[misc]
            for a, b in answer_pairs(len(trials), context, plan):
                found = compare(judge, trials, a, b)
                if found.better is None:
                    self.discarded[found.reason] += 1
                    continue
                chosen, rejected = ((a, b), (b, a))[found.better]
                scores = found.scores[:: -1 if found.better else 1] if found.scores else None
                yield _Pair(problem, context, chosen, rejected, found.reason, scores)  # type: ignore[arg-type]

    def _chosen(self, pairs: list[_Pair], rows: Rows[Any]) -> Iterator[_Pair]:
        """As many as are wanted, drawn by their names, in the order in which they came."""
        if rows.cut:
            return
        kinds: dict[str, list[_Pair]] = {}
        for pair in pairs:
            kinds.setdefault(pair.reason if self.balance is not None else "", []).append(pair)
        counts = {kind: len(those) for kind, those in kinds.items()}
        kept = shares(counts, self.balance if self.balance is not None else {"": 1.0}, self.most)
        names: set[str] = set()
        for kind, those in kinds.items():
            drawn = sorted(those, key=lambda pair: (record_seed(self.plan.seed, "keep", pair.id), pair.id))
            names.update(pair.id for pair in drawn[: kept.get(kind, 0)])
        yield from (pair for pair in pairs if pair.id in names)

    def _record(self, pair: _Pair) -> dict[str, Any]:
        problem = pair.problem
        said = problem.replies
        observations = problem.case.problem.observations
        before = [said[place] for place in pair.context]
        record: dict[str, Any] = {"id": pair.id, "prompt_id": problem.view.id}
        for name in ("dataset", "n_obs"):
            if getattr(problem.view, name) is not None:
                record[name] = getattr(problem.view, name)
        record |= {
            "prompt": conversation(self.prompts, observations, problem.fields, before),
            "chosen": [{"role": "assistant", "content": said[pair.chosen]}],
            "rejected": [{"role": "assistant", "content": said[pair.rejected]}],
            "reason": pair.reason,
            "context": list(pair.context),
            "pair": [pair.chosen, pair.rejected],
        }
        return record if pair.scores is None else {**record, "scores": list(pair.scores)}


def _name(view: Any, *, pooled: bool) -> str:
    n_obs = "" if view.n_obs is None else f"@{view.n_obs}"
    return f"{view.id}{n_obs}" if pooled or view.sample is None else f"{view.id}{n_obs}#{view.sample}"


def read_weights(text: str) -> dict[str, float]:
    """The weights of reasons in `even`, REASON=W,... or a JSON object, as gear-momentum writes one.

    >>> read_weights("parsing=1,fair=0.5"), read_weights('{"fair": 2}')
    ({'parsing': 1.0, 'fair': 0.5}, {'fair': 2.0})
    """
    if text == "even":
        return dict.fromkeys(REASONS, 1.0)
    try:
        if text.startswith("{"):
            named = {name: float(weight) for name, weight in json.loads(text).items()}
        else:
            parts = [part.partition("=") for part in text.split(",")]
            named = {name.strip(): float(weight) for name, _, weight in parts}
    except (ValueError, TypeError, RecursionError) as error:
        raise UsageError("expected even, REASON=WEIGHT,... or a JSON object", place="--balance") from error
    for name, weight in named.items():
        if name not in REASONS:
            raise UsageError(f"no such reason: {name!r}, not one of {', '.join(REASONS)}", place="--balance")
        if not 0 <= weight <= 1e6:
            raise UsageError(f"the weight of {name} is not between 0 and a million", place="--balance")
    return named
