"""Draws tasks from a state: reserves their numbers, chooses arms, and chooses a task of each."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from toolroll.curriculum.draw import independent, nearest, stratified
from toolroll.curriculum.pool import Pool, Task
from toolroll.curriculum.state import State
from toolroll.errors import ToolrollError
from toolroll.io.rows import Row

BLOCK = 1024  #: numbers a resident sampler reserves at a time


@dataclass(frozen=True)
class Draw:
    """A draw: its number, its arm with its probability, the task if there is a pool, and how old the state is."""

    number: int
    arm: str
    p: float
    task: Task | None
    state_seq: int

    def row(self) -> Row[None] | dict[str, Any]:
        """The task with the fields of `records.Draw`, or these alone."""
        fields = {"draw": self.number, "distribution": self.arm, "p": self.p, "state_seq": self.state_seq}
        return fields if self.task is None else Row(self.task.line, None).add(**fields)


class Sampler:
    """Draws tasks. The numbers of draws are journaled before they are used, so that none comes twice.

    A `resident` sampler reserves them by the block and gives back what it did not use (`close`), so that a request
    need not wait for the disk. Where each task of an arm comes once a pass (not `replace`), what was drawn of each arm
    is journaled too, and there are no blocks.
    """

    def __init__(
        self,
        state: State,
        pool: Pool | None = None,
        *,
        stratify: bool = False,
        replace: bool = True,
        frozen: Collection[str] = (),
        resident: bool = False,
    ) -> None:
        self.state = state
        self.pool = pool
        self.stratify = stratify
        self.replace = replace
        self.frozen = frozenset(frozen)
        self._block = BLOCK if resident and replace and not stratify else 0
        self._next = self._end = 0

    def draw(self, size: int) -> Iterator[Draw]:
        """Draw `size` tasks, by what the state knows now."""
        if size <= 0:
            return
        if self._end - self._next >= size:
            self.state.refresh()
            yield from self._chosen(self._next, size, {})
            return
        left = self._end - self._next
        if left:
            yield from self.draw(left)
        yield from self._reserved(size - left)

    def close(self) -> None:
        """Give back the numbers that were reserved and not used, unless somebody has reserved others since."""
        unused, self._next = self._end - self._next, self._end
        if unused:
            with self.state.writing():
                if self.state.draws == self._end:
                    self.state.reserve(-unused)
            self.state.sync()

    def _reserved(self, size: int) -> Iterator[Draw]:
        with self.state.writing():
            start = self.state.draws
            draws = list(self._chosen(start, size, self.state.drawn))
            drawn: dict[str, int] = {}
            if not self.replace:
                for draw in draws:
                    drawn[draw.arm] = drawn.get(draw.arm, 0) + 1
            self.state.reserve(max(size, self._block), drawn)
        self.state.sync()
        self._next, self._end = start + size, start + max(size, self._block)
        yield from draws

    def _chosen(self, start: int, size: int, drawn: dict[str, int]) -> Iterator[Draw]:
        self._next = start + size
        bandit, seed, seq = self.state.bandit, self.state.settings.seed, self.state.seq
        if bandit.settings.policy == "adarft" and self.pool is not None:
            yield from self._nearest(start, size)
            return
        probabilities = bandit.probabilities(self.frozen)
        choose = stratified if self.stratify else independent
        names = bandit.names
        taken = dict(drawn)
        for number, i in enumerate(choose(seed, start, size, probabilities), start):
            arm = names[i]
            yield Draw(number, arm, probabilities[i], self._task(arm, number, taken), seq)

    def _task(self, arm: str, number: int, taken: dict[str, int]) -> Task | None:
        if self.pool is None:
            return None
        seed = self.state.settings.seed
        if self.replace:
            return self.pool.independent(seed, arm, number)
        before = taken.get(arm, 0)
        taken[arm] = before + 1
        return self.pool.next_of_pass(seed, arm, before)

    def _nearest(self, start: int, size: int) -> Iterator[Draw]:
        """The tasks nearest to AdaRFT's target; p is an arm's share of them."""
        assert self.pool is not None
        arms = [name for name in self.state.bandit.names if name not in self.frozen]
        graded = list(self.pool.graded(arms))
        if size > len(graded):
            raise ToolrollError(f"has {len(graded)} tasks, fewer than the {size} to draw", place=self.pool.name)
        chosen = [graded[i] for i in nearest([grade for _, _, grade in graded], self.state.bandit.target, size)]
        counts: dict[str, int] = {}
        for arm, _, _ in chosen:
            counts[arm] = counts.get(arm, 0) + 1
        for number, (arm, task, _) in enumerate(chosen, start):
            yield Draw(number, arm, counts[arm] / size, task, self.state.seq)
