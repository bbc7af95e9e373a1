"""Many samples of many rows on one engine: what all rollout commands have in common.

A command says how one sample of a row is made, as an episode; here are the engine, the versions of the policy it
follows, the seeds, the order, and the fields that every trajectory has.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Self, TypeAlias

from toolroll.errors import RowError, UsageError
from toolroll.io.rows import Row
from toolroll.models.base import Completion, engine_identity
from toolroll.models.episodes import Calls, Episode, drive
from toolroll.models.options import ModelOptions, PolicyOptions
from toolroll.models.policy import PolicyVersion, current_policy
from toolroll.run.log import Log
from toolroll.run.rows import Rows
from toolroll.run.seeds import record_seed
from toolroll.run.signals import StopFlag


@dataclass(slots=True)
class Transcript:
    """The response as it grows, with what training needs: ids, who wrote each, and log-probs.

    `ids` become None for good when a back end does not tell its token ids.
    """

    text: str = ""
    ids: list[int] | None = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    logprobs: list[float] | None = field(default_factory=list)

    def inject(self, text: str, ids: tuple[int, ...] | None) -> None:
        """Text that is not the model's: no loss on it."""
        self.text += text
        if self.ids is not None and ids is not None:
            self.ids += ids
            self.mask += [0] * len(ids)
            if self.logprobs is not None:
                self.logprobs += [0.0] * len(ids)
        else:
            self.ids = None

    def write(self, completion: Completion) -> None:
        """Text of the model."""
        self.text += completion.text
        if self.ids is None or completion.ids is None:
            self.ids = None
            return
        self.ids += completion.ids
        self.mask += [1] * len(completion.ids)
        if self.logprobs is not None and completion.logprobs is not None:
            self.logprobs += completion.logprobs
        else:
            self.logprobs = None

    def fields(self, prompt_ids: Sequence[int] | None) -> dict[str, Any]:
        """The fields of a trajectory that training needs; null where token ids are not known."""
        known = self.ids is not None and prompt_ids is not None
        return {
            "prompt_ids": prompt_ids if known else None,
            "response_ids": self.ids if known else None,
            "loss_mask": self.mask if known else None,
            "logprobs": self.logprobs if known else None,
        }


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample to make.

    `episode` returns its fields; `so_far` tells those of one that failed on the way. `known` are fields that it has in
    any case; they come first.
    """

    episode: Episode
    so_far: Callable[[], dict[str, Any]]
    known: dict[str, Any] = field(default_factory=dict)


#: How a command begins sample number `sample` of a row, with this seed. A RowError fails the sample.
Begin: TypeAlias = Callable[[Row[Any], int, int], Sample]


@dataclass(slots=True)
class _Task:
    row: Row[Any]
    number: int
    seed: int
    sample: Sample | None = None


def sample_seed(seed: int, row: Row[Any], number: int) -> int:
    """The own seed of a sample. A curriculum may draw one prompt several times, and wants other samples then."""
    draw = row.view.draw
    return record_seed(seed, row.view.id, number, *(() if draw is None else (draw,)))


def sample_fields(row: Row[Any], number: int, seed: int, model: str, version: PolicyVersion | None) -> dict[str, Any]:
    """What every sample says of itself, however it ended."""
    return {
        "sample": number,
        "prompt_id": row.view.id,
        "model": model,
        "policy_version": version.name if version else None,
        "seed": seed,
    }


class Rollouts:
    """The engine of a run, and `samples` samples of every row; close it when done.

    With a policy directory the model is its current version; following it, a newer version is loaded as soon as those
    samples have ended that are under way when it is seen. `seed` and the row's id, its draw and the number of the
    sample determine each sample's own seed.
    """

    def __init__(
        self, model: ModelOptions, policy: PolicyOptions, *, samples: int, seed: int, log: Log, stop: StopFlag
    ) -> None:
        self.samples = samples
        self.seed = seed
        self.log = log
        self.stop = stop
        self._policy = policy
        self.version: PolicyVersion | None = current_policy(policy.policy) if policy.policy else None
        self.engine = model.open(log.note, model=str(self.version.path) if self.version else None)
        self._ended = 0
        self._held: Row[Any] | None = None  # read, but to be answered by a newer version
        self._left = 0  # samples of the row in hand that are still to be begun

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free the model."""
        self.engine.close()

    @property
    def model(self) -> dict[str, Any]:
        """What runs here, for the manifest: results may differ in the last bits where any of this does."""
        device = getattr(self.engine, "device", None)
        return {
            "engine": engine_identity(self.engine),
            "device": None if device is None else device.text,
            "sequences": self.engine.capacity,
            "context_tokens": self.engine.max_context,
        }

    def encode(self, text: str) -> tuple[int, ...] | None:
        """Token ids of `text`; None where the engine works in text."""
        codec = self.engine.codec
        return None if codec is None else codec.encode(text)

    def chat(self, messages: list[dict[str, str]]) -> str:
        """The prompt for `messages`; where the engine has no template that is known here, their contents."""
        codec = self.engine.codec
        return codec.chat(messages) if codec is not None else "\n\n".join(part["content"] for part in messages) + "\n\n"

    def run(self, rows: Rows[Any], begin: Begin, *, calls: Calls | None = None) -> Iterator[Row[Any]]:
        """A row for each sample of each of `rows`, in order. `calls` answers effects that are not the engine's."""
        while True:
            tasks: dict[Hashable, _Task] = {}
            results = drive(
                self.engine,
                self._episodes(rows, begin, tasks),
                calls=calls,
                ready=lambda: self._left > 0 or self._held is not None or rows.ready(),
                stop=lambda: bool(self.stop),
                ordered=True,
            )
            for key, result in results:
                yield self._finished(tasks.pop(key), result)
            if self._held is None or self.stop:
                return
            self._reload()

    def _episodes(
        self, rows: Rows[Any], begin: Begin, tasks: dict[Hashable, _Task]
    ) -> Iterator[tuple[Hashable, Episode]]:
        """The samples of all rows; ends before a row that a newer version of the policy is to answer."""
        held, self._held = ([] if self._held is None else [self._held]), None
        for row in chain(held, rows):
            if self._is_outdated():
                self._held = row
                return
            for number in range(self.samples):
                self._left = self.samples - number - 1
                if rows.done(row.view.id, number):
                    self.log.counts.skipped += 1
                    continue
                task = _Task(row, number, sample_seed(self.seed, row, number))
                tasks[row.index, number] = task
                yield (row.index, number), self._episode(task, begin)

    def _episode(self, task: _Task, begin: Begin) -> Generator[Any, Any, Any]:
        task.sample = begin(task.row, task.number, task.seed)  # here, so that a RowError is this sample's own
        fields = yield from task.sample.episode
        self._ended += 1
        self.log.status(f"{self._ended} trajectories ended")
        return fields

    def _finished(self, task: _Task, result: dict[str, Any] | Exception) -> Row[Any]:
        known = task.sample.known if task.sample else {}
        own = known | sample_fields(task.row, task.number, task.seed, self.engine.name, self.version)
        if isinstance(result, RowError):
            return task.row.fail(str(result), **own, **(task.sample.so_far() if task.sample else {}))
        if isinstance(result, Exception):
            raise result
        return task.row.add(**own, **result)

    def _is_outdated(self) -> bool:
        directory = self._policy.policy
        return self._policy.follow and directory is not None and current_policy(directory) != self.version

    def _reload(self) -> None:
        """Load the current version of the policy. No sequence may be under way."""
        assert self._policy.policy is not None
        version = current_policy(self._policy.policy)
        reload = getattr(self.engine, "reload", None)
        if reload is None:
            raise UsageError(f"{self.engine.name} cannot load new weights while it runs", place="--follow")
        reload(version.path)
        self.version = version
        self.log.info(f"policy version {version.name}")
