"""A training in a folder that stops at any moment and goes on to the bit: its checkpoints, and rows of how it goes.

DIR/train.json   what it is of, and the step that the model is of; written last, by those that have such a file
DIR/state/       what it goes on from, see `toolroll.train.checkpoint`, and the lock of the one that is at work
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from toolroll.errors import ToolrollError
from toolroll.io.filesystem import put
from toolroll.train import checkpoint
from toolroll.train.checkpoint import Checkpoint
from toolroll.train.policy import PolicyDirectory

if TYPE_CHECKING:
    from torch import Tensor

    from toolroll.train.team import Team

ABOUT, STATE = "train.json", "state"
DATA = ("cameras", "scenes")  #: what in train.json says what is learned from
Row = dict[str, Any]


class Told(Protocol):
    """What a step did."""

    @property
    def step(self) -> int:
        """Its number, from 1."""
        ...

    @property
    def loss(self) -> float:
        """What it minimised."""
        ...


class Fit(Protocol):
    """What is trained. What a step draws by chance comes from its number alone."""

    step: int  #: that were made

    def steps(self) -> Iterator[Told]:
        """Train to the end; what each step did."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds."""
        ...

    def restore(self, tensors: dict[str, Tensor], step: int) -> None:
        """Go on behind a step. ToolrollError for tensors that are none of this training, with nothing changed."""
        ...


F = TypeVar("F", bound=Fit)


class Resumable(ABC, Generic[F]):
    """A training of so many steps in a folder, where a file `model` shows that there is a model.

    From `resume` to the end of `rows` nobody else may train in the folder. Of a `team` of processes the first writes.
    """

    def __init__(self, fit: F, steps: int, folder: Path, model: str, team: Team | None = None) -> None:
        self.fit, self.folder, self.team = fit, folder, team
        self.settings: Row = {}
        self._steps, self._model = steps, model
        self._saved = 0
        self._held = PolicyDirectory(folder)

    @property
    def step(self) -> int:
        """The steps that were made."""
        return self.fit.step

    @abstractmethod
    def write_model(self) -> None:
        """Write the model as it is."""

    def told(self) -> Row:
        """What train.json says, `step` among it; nothing where there is no such file."""
        return {}

    def scores(self) -> Row:
        """How good the model is, as part of a row."""
        return {}

    def row(self, steps: Sequence[Any]) -> Row:
        """What is said of some steps, the scores apart."""
        return {"step": steps[-1].step, "loss": sum(one.loss for one in steps) / len(steps), **self.counted(steps[-1])}

    def counted(self, told: Any) -> Row:  # noqa: ARG002
        """What else the row of a step says."""
        return {}

    # --- stops

    @property
    def _writes(self) -> bool:
        return self.team is None or self.team.is_main

    def resume(self, settings: Row, firm: frozenset[str], warn: Callable[[str], None]) -> None:
        """Take hold of the folder, and go on from its checkpoint, if there is one.

        ToolrollError for one of another training, see `checkpoint.compare`, and where another process has the folder.
        """
        self.settings = settings
        if self._writes:
            self._held.open()
        try:
            self._go_on(firm, warn)
        except BaseException:
            self._held.close()
            raise

    def _go_on(self, firm: frozenset[str], warn: Callable[[str], None]) -> None:
        saved = _loaded(self.folder / STATE)
        if saved is None:
            if (self.folder / self._model).exists():
                raise ToolrollError("has a model, and no state to go on from", place=str(self.folder))
            return
        for difference in checkpoint.compare(saved.settings, self.settings, firm):
            warn(difference)
        try:
            self.fit.restore(saved.tensors, saved.step)
        except ToolrollError as error:
            raise ToolrollError(error.why, place=str(self.folder)) from error
        self._saved = saved.step
        about = self._about()
        now = json.loads(json.dumps(self.told()))
        if any(name in about and about[name] != now.get(name) for name in DATA):
            warn("photos or cameras are not those that training began with: what comes out is another thing")
        if about.get("step") != saved.step or not (self.folder / self._model).exists():  # else it was written as well
            self._write()

    def _about(self) -> Row:
        """What train.json says; nothing where there is none."""
        try:
            made = json.loads((self.folder / ABOUT).read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        return made if isinstance(made, dict) else {}

    def save(self) -> None:
        """Write a checkpoint, and the model as it is."""
        self._saved = self.step
        if not self._writes:
            return
        tensors = {name: tensor.cpu() for name, tensor in self.fit.tensors().items()}
        (self.folder / STATE).mkdir(parents=True, exist_ok=True)
        checkpoint.save(self.folder / STATE, Checkpoint(self.step, tensors, self.settings))
        self._write()

    def _write(self) -> None:
        if not self._writes:
            return
        self.write_model()
        if told := self.told():
            put(self.folder / ABOUT, json.dumps(told, indent=1).encode() + b"\n")

    # --- steps

    def rows(
        self,
        stopped: Callable[[], bool],
        *,
        report_every: int,
        save_every: int,
        eval_every: int = 0,
        last: int | None = None,
    ) -> Iterator[Row]:
        """Train to the end, or to step `last`; a row each `report_every` steps.

        It has scores each `eval_every` (0: never), and of the last step. What a row tells of is saved before, where it
        is the turn of that.
        """
        try:
            end = self._steps if last is None else min(self._steps, last)
            yield from self._rows(stopped, report_every, eval_every, save_every, end)
        finally:
            self._held.close()

    def _rows(
        self, stopped: Callable[[], bool], report_every: int, eval_every: int, save_every: int, end: int
    ) -> Iterator[Row]:
        since: list[Told] = []  # the row before
        steps = self.fit.steps()
        while self.step < end and not (self.team.share(stopped()) if self.team else stopped()):
            told = next(steps)
            since.append(told)
            done = told.step == self._steps
            scored = done or (bool(eval_every) and told.step % eval_every == 0)
            if done or told.step % save_every == 0:
                self.save()
            if scored or told.step % report_every == 0:
                row, since = self.row(since), []
                yield row | (self.scores() if scored else {})
        if self.step != self._saved:
            self.save()


def check_alike(saved: Mapping[str, Tensor], now: Mapping[str, Tensor], free: frozenset[str] = frozenset()) -> None:
    """ToolrollError where tensors of a checkpoint are not what a training has now, by name, type and shape.

    Those that are `free` may have another number of rows, all the same one.
    """
    rows = {len(saved[name]) for name in free if name in saved and saved[name].ndim}
    for name, own in now.items():
        found = saved.get(name)
        wanted = own.shape if name not in free else (*rows, *own.shape[1:])
        if found is None or found.dtype != own.dtype or found.shape != wanted:
            raise ToolrollError("its state is of another training")


def _loaded(state: Path) -> Checkpoint | None:
    """The checkpoint of a state folder, None where there is none. ToolrollError for one that is not sound."""
    damaged = ToolrollError("its checkpoint is damaged; another --out begins anew", place=str(state / "current"))
    try:
        saved = checkpoint.load(state)
    except ToolrollError as error:
        raise damaged from error
    if saved is not None and not saved.step:
        raise damaged
    return saved
