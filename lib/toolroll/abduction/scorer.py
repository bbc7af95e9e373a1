"""From rows of hypotheses to scored rows, in order, a few problems at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from toolroll.abduction.equality import UNDEFINED_TEXT
from toolroll.abduction.execution import Executor
from toolroll.abduction.parse import Reply, parse_authors, parse_reply
from toolroll.abduction.pool import Pool
from toolroll.abduction.problems import Problem, Problems, Space, Spaces
from toolroll.abduction.sandbox.inputs import Inputs
from toolroll.abduction.trial import Bench, Outputs, Trial
from toolroll.abduction.verdict import Rules, judge, row_fields
from toolroll.errors import RowError
from toolroll.io.rows import Row, clean
from toolroll.run.rows import Rows
from toolroll.run.seeds import record_seed

__all__ = ["Scored", "Scorer"]


@dataclass(slots=True)
class _Entry:
    """A row whose hypotheses are being run: each is a trial already, or will be one."""

    row: Row[Any]
    why: str = ""
    dataset: str | None = None
    problem: Problem | None = None
    space: Space | None = None
    replies: list[Reply] = field(default_factory=list)
    trials: list[Trial | Future[Trial]] = field(default_factory=list)
    outputs: Outputs = field(default_factory=Outputs)

    def done(self) -> bool:
        """Whether all have run."""
        return all(isinstance(trial, Trial) or trial.done() for trial in self.trials)


class Scored(NamedTuple):
    """A row with the fields it is to get; one that failed gets none."""

    row: Row[Any]
    dataset: str | None = None
    fields: dict[str, Any] | None = None


class Scorer:
    """Scores rows of hypotheses.

    open_one: makes an executor. workers: how many work at once; up to twice as many problems are in hand, fewer when
    no more rows are there yet. sensitivity, explain: add these fields, too. seed: of the subsamples of `sensitivity`.
    """

    def __init__(
        self,
        problems: Problems,
        spaces: Spaces,
        rules: Rules,
        open_one: Callable[[], Executor],
        *,
        workers: int = 1,
        sensitivity: bool = False,
        explain: bool = False,
        seed: int = 0,
    ) -> None:
        self.problems = problems
        self.spaces = spaces
        self.rules = rules
        self.sensitivity = sensitivity
        self.explain = explain
        self.seed = seed
        self._pool = Pool(open_one, workers)
        self._parse = parse_authors if rules.authors else parse_reply
        self._inputs: dict[str, Inputs] = {}

    def close(self) -> None:
        """End the executors."""
        self._pool.close()

    def rows(self, rows: Rows[Any]) -> Iterator[Row[Any]]:
        """The rows with their scores, in order."""
        for scored in self.scored(rows):
            yield scored.row if scored.fields is None else scored.row.add(**scored.fields)

    def scored(self, rows: Rows[Any]) -> Iterator[Scored]:
        """The rows and their scores, in order."""
        in_hand: deque[_Entry] = deque()
        for row in rows:
            in_hand.append(self._begin(row))
            while in_hand and (len(in_hand) >= 2 * self._pool.workers or in_hand[0].done() or not rows.ready()):
                yield self._finish(in_hand.popleft())
        while in_hand:
            yield self._finish(in_hand.popleft())

    def _begin(self, row: Row[Any]) -> _Entry:
        """Have the hypotheses of a row run."""
        seen = row.view
        try:
            problem = self.problems.of(row.raw, seen.id, seen.n_obs)
            space = self.spaces.of(seen.dataset if seen.dataset is not None else problem.dataset)
        except RowError as error:
            return _Entry(row, why=error.why)
        dataset = seen.dataset if seen.dataset is not None else problem.dataset
        outputs = Outputs(shown=self.explain, blank=UNDEFINED_TEXT if self.rules.authors else None)
        entry = _Entry(row, dataset=dataset, problem=problem, space=space, outputs=outputs)
        entry.replies = [self._reply(said) for said in seen.hypotheses or ()]
        if any(reply.code is not None for reply in entry.replies):
            bench = self._bench(entry, problem, space)
            entry.trials = [self._submit(bench, reply) for reply in entry.replies]
        else:
            entry.trials = [Trial("parse_error", reply.why) for reply in entry.replies]
        return entry

    def _reply(self, said: Any) -> Reply:
        if isinstance(said, str):
            return self._parse(said)
        return Reply(said.text or "", said.code, "" if said.code is not None else "no code")

    def _bench(self, entry: _Entry, problem: Problem, space: Space) -> Bench:
        shared = self._inputs.get(space.name)
        if shared is None:
            shared = self._inputs[space.name] = Inputs(space.inputs)
        test = problem.test if self.rules.top_k else ()
        own = Inputs([given for given, _ in (*problem.observations, *test)])
        return Bench(problem.observations, test, own + shared, entry.outputs, self.rules.authors)

    def _submit(self, bench: Bench, reply: Reply) -> Trial | Future[Trial]:
        code = reply.code
        if code is None:
            return Trial("parse_error", reply.why)
        return self._pool.submit(lambda executor: bench.test_of(executor, code))

    def _finish(self, entry: _Entry) -> Scored:
        """Wait for the trials of a row, and score it."""
        if entry.problem is None or entry.space is None:
            return Scored(entry.row.fail(clean(entry.why)))
        trials = [trial if isinstance(trial, Trial) else trial.result() for trial in entry.trials]
        if self.rules.lookups:
            self._look_up(trials, entry.replies, entry.problem)
        space = len(entry.space.inputs)
        verdict = judge(trials, space, self.rules)
        fields = row_fields(verdict, self.rules, has_test=bool(entry.problem.test))
        if self.explain:
            from toolroll.abduction.sensitivity import differences

            fields["differences"] = differences(verdict, entry.space.inputs, entry.outputs)
        if self.sensitivity:
            from toolroll.abduction.sensitivity import sweep

            seen = entry.row.view
            fields["sensitivity"] = sweep(trials, space, self.rules, record_seed(self.seed, seen.id, seen.n_obs))
        return Scored(entry.row, entry.dataset, fields)

    def _look_up(self, trials: list[Trial], replies: list[Reply], problem: Problem) -> None:
        inputs = [given for given, _ in problem.observations]
        for trial, reply in zip(trials, replies, strict=True):
            if reply.code is not None:
                trial.look_up(reply.code, inputs, exclude=self.rules.exclude_lookups)
