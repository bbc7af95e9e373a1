"""Putting hypotheses to the test one by one, for commands that need more than the scores of a set."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import msgspec

from toolroll.abduction.execution import Executor
from toolroll.abduction.parse import Reply, parse_authors, parse_reply
from toolroll.abduction.pool import Pool
from toolroll.abduction.problems import Problem, Problems, Space, Spaces
from toolroll.abduction.sandbox.inputs import Inputs
from toolroll.abduction.trial import Bench, Outputs, Trial
from toolroll.errors import RowError
from toolroll.io.decoding import read_error

__all__ = ["PARSERS", "Case", "Cases", "Parser", "once"]

Parser: TypeAlias = Callable[[str], Reply]
PARSERS: dict[Literal["robust", "authors"], Parser] = {"robust": parse_reply, "authors": parse_authors}


def once(notify: Callable[[str], None]) -> Callable[[str], None]:
    """`notify`, for something that says the same several times: told once.

    >>> told = []
    >>> say = once(told.append)
    >>> say("a"), say("b"), say("a"), told
    (None, None, None, ['a', 'b'])
    """
    heard: set[str] = set()

    def tell(what: str) -> None:
        if what not in heard:
            heard.add(what)
            notify(what)

    return tell


@dataclass(frozen=True, slots=True)
class Case:
    """A problem whose hypotheses are tested, and the space they are tested on."""

    problem: Problem
    space: Space
    bench: Bench
    pool: Pool
    exclude_lookups: bool = False

    @property
    def size(self) -> int:
        """Inputs of the sample space."""
        return len(self.space.inputs)

    def begin(self, reply: Reply) -> Future[Trial]:
        """Have a hypothesis tested; one without code is a parse error at once."""
        code = reply.code
        if code is None:
            done: Future[Trial] = Future()
            done.set_result(Trial("parse_error", reply.why))
            return done
        return self.pool.submit(lambda executor: self._tested(executor, code))

    def _tested(self, executor: Executor, code: str) -> Trial:
        trial = self.bench.test_of(executor, code)
        if self.exclude_lookups:
            trial.look_up(code, [given for given, _ in self.problem.observations], exclude=True)
        return trial


class Cases:
    """Makes the case of each problem; the executors are shared by all.

    problems: None where each row is its own. open_one: makes an executor. workers: programs that run at once.
    exclude_lookups: a program that looks observations up is not consistent, but `lookup`.
    """

    def __init__(
        self,
        problems: Problems | None,
        spaces: Spaces,
        open_one: Callable[[], Executor],
        *,
        workers: int = 1,
        exclude_lookups: bool = False,
    ) -> None:
        self._problems = problems
        self._spaces = spaces
        self._exclude_lookups = exclude_lookups
        self._pool = Pool(open_one, workers)
        self._inputs: dict[str, Inputs] = {}

    def case(self, line: bytes, view: Any) -> Case:
        """The case of the row `line` with this view (`id`, `dataset`, `n_obs`). RowError where it is of no problem."""
        problem = _own(line) if self._problems is None else self._problems.of(line, view.id, view.n_obs)
        space = self._spaces.of(view.dataset if view.dataset is not None else problem.dataset)
        shared = self._inputs.get(space.name)
        if shared is None:
            shared = self._inputs[space.name] = Inputs(space.inputs)
        own = Inputs([given for given, _ in problem.observations])
        bench = Bench(problem.observations, (), own + shared, Outputs())
        return Case(problem, space, bench, self._pool, self._exclude_lookups)

    def close(self) -> None:
        """End the executors."""
        self._pool.close()


def _own(line: bytes) -> Problem:
    try:
        return Problem.of(line)
    except msgspec.MsgspecError as error:
        raise RowError(read_error(line, error)) from error
