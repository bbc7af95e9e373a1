"""From rows of feedback to what a batch of them says of each arm."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from toolroll.curriculum.bandit import Seen, Settings
from toolroll.curriculum.state import Batch, State
from toolroll.errors import RowError
from toolroll.io.decoding import key_reader
from toolroll.io.rows import Row
from toolroll.train.advantage import grpo

if TYPE_CHECKING:
    from toolroll.run.rows import Rows

BATCH_ROWS = 4096  #: feedback is journaled at least this often
_ARM, _ADVANTAGES, _STEP = attrgetter("distribution"), attrgetter("advantages"), attrgetter("step")
_ID, _SAMPLE, _DRAW = attrgetter("id"), attrgetter("sample"), attrgetter("draw")


class Collector:
    """Gathers feedback rows and journals them by the batch.

    A batch is what came with one `step`, at most `BATCH_ROWS` rows. `new_arms` says what becomes of a row of an arm
    that nobody named: "refuse", "add" or "skip". Rows are counted: `n_counted` that count, `n_known` that came before,
    `n_left_out` of unknown arms; `n_advantages` is how many numbers the rows that count held.
    """

    def __init__(self, state: State, *, new_arms: str = "refuse", from_rewards: bool = False) -> None:
        self.state = state
        self.n_counted = self.n_known = self.n_left_out = self.n_advantages = 0
        self._new_arms = new_arms
        self._from_rewards = from_rewards
        self._arms = state.bandit.arms
        self._new: set[str] = set()
        self._pending: list[Any] = []

    def take(self, row: Any) -> None:
        """Take in a checked row (`records.Feedback`). RowError when it says nothing that can be used."""
        if row.advantages is None or self._from_rewards:
            row = self._completed(row)
        if row.distribution not in self._arms and not self._admits(row.distribution):
            return
        self._pending.append(row)
        if len(self._pending) >= BATCH_ROWS:
            self.commit(whole=True)

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields that `take_all` wants."""
        names = ("id", "sample", "draw", "step", "distribution", "advantages", "prompt_id")
        return (*names, "rewards") if self.state.settings.policy == "adarft" else names

    def take_all(self, rows: list[Any]) -> bool:
        """Take in checked rows at one go; False, with none of them taken, when they must be looked at one by one."""
        if self._from_rewards or None in map(_ADVANTAGES, rows) or not self._arms.keys() >= set(map(_ARM, rows)):
            return False
        self._pending += rows
        if len(self._pending) >= BATCH_ROWS:
            self.commit(whole=True)
        return True

    def commit(self, *, whole: bool = False) -> None:
        """Journal what has come and was not known before; it counts from then on.

        With `whole`, the last of several batches is kept back, because more of it may come.
        """
        batches = [list(rows) for _, rows in groupby(self._pending, _STEP)]
        self._pending = batches.pop() if whole and len(batches) > 1 else []
        if not batches:
            return
        with self.state.writing():
            fresh: set[str] = set()
            self.state.learn([batch for rows in batches if (batch := self._batch(rows, fresh))], arms=self._new)
        self._arms, self._new = self.state.bandit.arms, set()

    def _batch(self, rows: list[Any], fresh: set[str]) -> Batch | None:
        """What the rows say that is neither known nor `fresh`, the names just met; None when that is nothing."""
        names = _names(rows)
        new = set(names)
        if len(new) == len(names) and None not in new and fresh.isdisjoint(new) and not self.state.knows_any(new):
            fresh |= new
            kept, ids = rows, names
        else:
            kept, ids = self._unknown(rows, names, fresh)
        self.n_counted += len(kept)
        self.n_known += len(rows) - len(kept)
        self.n_advantages += sum(map(len, map(_ADVANTAGES, kept)))
        return Batch(summed(kept, self.state.settings), ids, rows[0].step) if kept else None

    def _unknown(self, rows: list[Any], names: list[Any], fresh: set[str]) -> tuple[list[Any], list[str]]:
        """The rows that are neither known nor fresh, and their names."""
        kept, ids = [], []
        for row, name in zip(rows, names, strict=True):
            if name is not None:
                if name in fresh or self.state.knows_any((name,)):
                    continue
                fresh.add(name)
                ids.append(name)
            kept.append(row)
        return kept, ids

    def _completed(self, row: Any) -> Any:
        """The row with its advantages."""
        if row.rewards is not None:
            return _Group.of(row, grpo(row.rewards))
        if self._from_rewards:
            raise RowError("neither `rewards` nor `reward`")
        if row.advantage is None:
            raise RowError("none of `advantages`, `advantage` and `rewards`")
        return _Group.of(row, [row.advantage])

    def _admits(self, arm: str | None) -> bool:
        if arm is None:
            raise RowError("no `distribution`")
        if arm in self._new:
            return True
        if self._new_arms == "refuse":
            raise RowError(f"no arm is named {arm!r} (--new-arms add takes it in)")
        if self._new_arms == "skip":
            self.n_left_out += 1
            return False
        self._new.add(arm)
        return True


class _Group(msgspec.Struct, kw_only=True, gc=False):
    """The samples of a prompt, as one row of feedback."""

    id: Any
    distribution: str | None
    step: int | None
    sample: int | None
    draw: int | None
    prompt_id: Any
    advantages: list[float] | None
    rewards: list[float] | None

    @classmethod
    def of(cls, row: Any, advantages: list[float] | None, rewards: list[float] | None = None) -> _Group:
        """A row with other advantages, or with other rewards."""
        return cls(
            id=row.id,
            distribution=row.distribution,
            step=row.step,
            sample=row.sample,
            draw=row.draw,
            prompt_id=row.prompt_id,
            advantages=advantages,
            rewards=row.rewards if rewards is None else rewards,
        )


def grouped(rows: Rows[Any], field: str) -> Iterator[Row[Any]]:
    """Rows with one `reward` each as one row a prompt: those that follow one another with the same value of `field`.

    Rows with `rewards` stay as they are. A row without the field or without a reward is refused. The last group is left
    out where the rows end before their time.
    """
    key_of = key_reader((field,))
    last, held = None, list[Row[Any]]()
    for row in rows:
        if row.view.rewards is not None:
            yield row
            continue
        key = (*key_of(row.raw), row.view.distribution, row.view.step, row.view.draw)
        if not key[0] or _reward(row.view) is None:
            rows.refuse(row, f"no `{field}`" if not key[0] else "neither `rewards` nor `reward`")
            continue
        if held and key != last:
            yield _as_one(held)
            held = []
        last = key
        held.append(row)
    if held and not rows.cut:
        yield _as_one(held)


def _as_one(held: list[Row[Any]]) -> Row[Any]:
    """The row that stands for the samples of a prompt; it has the name of the first."""
    first = held[0]
    return Row(first.raw, _Group.of(first.view, None, [_reward(row.view) for row in held]), first.index)


def _reward(row: Any) -> Any:
    """The reward of a row: a number, or the `total` of an object."""
    total = row.reward.get("total") if isinstance(row.reward, dict) else row.reward
    return total if isinstance(total, int | float) and abs(total) <= 1e100 and not isinstance(total, bool) else None


def summed(rows: Sequence[Any], rule: Settings) -> dict[str, Seen]:
    """What rows say of each arm. Of the values that a window has no room for, only the number is kept."""
    if rule.ignore_zero_groups:
        rows = [row for row in rows if any(row.advantages)]
    values: defaultdict[str, list[float]] = defaultdict(list)
    for row in rows:
        values[row.distribution] += row.advantages
    seen = {arm: Seen(last=given[-rule.k :], rollouts=len(given)) for arm, given in values.items()}
    if rule.policy == "sec":
        for arm, given in values.items():
            seen[arm].total = math.fsum(map(abs, given))
    if rule.policy == "adarft":
        _sum_rewards(rows, seen)
    if rule.count == "prompts":
        _count_prompts(rows, seen)
    return seen


def _sum_rewards(rows: Sequence[Any], seen: dict[str, Seen]) -> None:
    rewards: defaultdict[str, list[float]] = defaultdict(list)
    for row in rows:
        rewards[row.distribution] += row.rewards or ()
    for arm, given in rewards.items():
        seen[arm].rewards, seen[arm].rewarded = math.fsum(given), len(given)


def _count_prompts(rows: Sequence[Any], seen: dict[str, Seen]) -> None:
    """A row with a list is a prompt; rows with one advantage are of one prompt if they share `prompt_id`, else `id`."""
    prompts = set()
    for i, row in enumerate(rows):
        prompt = row.prompt_id if row.prompt_id is not None else row.id
        is_sample = isinstance(row, _Group) and row.rewards is None and prompt is not None
        prompts.add((row.distribution, prompt, row.draw) if is_sample else (row.distribution, i))
    for arm, *_ in prompts:
        seen[arm].prompts += 1


def _names(rows: list[Any]) -> list[Any]:
    """What names each of the rows of one step: its id, with whatever else tells it from others; None without an id."""
    ids, step = list(map(_ID, rows)), rows[0].step
    if None in ids or set(map(_SAMPLE, rows)) != {None} or set(map(_DRAW, rows)) != {None}:
        return [None if row.id is None else _name(row.id, step, row.sample, row.draw) for row in rows]
    return list(map(str, ids)) if step is None else [f"{name} step {step}" for name in ids]


def _name(row_id: Any, step: Any, sample: Any, draw: Any) -> str:
    parts = (("step", step), ("sample", sample), ("draw", draw))
    return " ".join([str(row_id), *(f"{what} {value}" for what, value in parts if value is not None)])
