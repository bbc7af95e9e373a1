"""A trainer at work in a policy directory: how it starts, goes on after a kill, saves and publishes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch

from toolroll.errors import ToolrollError, UsageError
from toolroll.train import checkpoint
from toolroll.train.checkpoint import Checkpoint, Consumed
from toolroll.train.loop import Learner
from toolroll.train.options import PublishOptions, TrainOptions
from toolroll.train.policy import PolicyDirectory
from toolroll.train.setup import Trainer, open_trainer
from toolroll.train.team import Team

Notify = Callable[[str], None]


class Session:
    """One run of a trainer. The first process holds the directory and writes; all have the same `step` and weights.

    `last` is what the checkpoint remembers of the last update, for whoever was killed before saying it.
    """

    def __init__(self, options: PublishOptions, training: TrainOptions, *, seed: int, notify: Notify) -> None:
        if options.publish_as == "adapter" and not training.lora:
            raise UsageError("goes with --lora", place="--publish-as adapter")
        self.options = options
        self.training = training
        self.team = Team(training.device, training.dtype)
        self.directory = PolicyDirectory(options.policy, keep=options.keep)
        self.step = 0
        self.consumed = Consumed()
        self.last: dict[str, Any] = {}
        self.settings: dict[str, Any] = {}
        self._saved: int | None = None
        self._published: int | None = None
        try:
            self.source = self.team.share(self._start() if self.team.is_main else "")
            self.trainer: Trainer = open_trainer(training, self.source, seed=seed, team=self.team, notify=notify)
        except BaseException:
            self.directory.close()
            raise
        self.learners: dict[str, Learner] = {"policy": self.trainer.learner}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        self.directory.close()

    def close(self) -> None:
        """Save what was not saved yet, and let others in. A `with` block that fails saves nothing."""
        try:
            if self._saved is not None and (self._saved != self.step or self.consumed.n_unsaved):
                self.save()
            self.team.close()
        finally:
            self.directory.close()

    def _start(self) -> str:
        """Take hold of the directory; the model that training starts or goes on from."""
        path = self.options.policy
        if not _is_text(path.resolve()):
            raise UsageError("its name is no UTF-8, which what reads and writes models wants", place=str(path))
        if self.options.model is None and not (path / "current").is_symlink():
            why = "has no version yet; name the model to start from with --model"
            raise UsageError(why, place=str(path))
        self.directory.open()
        self._published = self.directory.published()
        if self._published is None:
            assert self.options.model is not None
            return self.options.model
        base = path / "v000000"
        if self.training.lora and (self.directory.state / "current").is_symlink():
            if not base.is_dir():
                raise ToolrollError("the base model that the adapters belong to is gone", place=str(base))
            return str(base)
        return str((path / "current").resolve())

    def resume(self, settings: dict[str, Any], firm: frozenset[str], *, again: bool, warn: Notify) -> None:
        """Take up the checkpoint, if there is one, and publish what was not yet. Before the first update.

        `settings` are kept in checkpoints; see `checkpoint.compare`. `again`: forget which rows were consumed.
        """
        self.settings = settings
        published = self.team.share(self._published)
        saved = checkpoint.load(self.directory.state)
        if saved is not None:
            for difference in checkpoint.compare(saved.settings, settings, firm):
                if self.team.is_main:
                    warn(difference)
            self._take(saved)
            self.consumed = Consumed(b"" if again else saved.consumed)
            self.last = saved.last
        self.step = self._saved = saved.step if saved is not None else published or 0
        self.team.share(None)  # nobody reads any longer
        if self.team.is_main and (published is None or published < self.step):
            self._publish()

    def save(self) -> None:
        """Save a checkpoint, then publish this step's version if it is not yet."""
        if not self.team.is_main:
            return
        tensors = {
            f"{name}/{key}": tensor
            for name, learner in self.learners.items()
            for key, tensor in learner.tensors().items()
        }
        state = Checkpoint(self.step, tensors, self.settings, self.consumed.data(), self.last)
        checkpoint.save(self.directory.state, state)
        self._saved, self.consumed.n_unsaved = self.step, 0
        if self._published != self.step:
            self._publish()

    def _take(self, saved: Checkpoint) -> None:
        for name, learner in self.learners.items():
            own = {
                key.removeprefix(f"{name}/"): tensor
                for key, tensor in saved.tensors.items()
                if key.startswith(f"{name}/")
            }
            try:
                learner.restore(own)
            except ToolrollError as error:
                raise ToolrollError(error.why, place=str(self.directory.state / "current")) from error

    def _publish(self) -> None:
        trainer, options = self.trainer, self.options
        adapter = options.publish_as == "adapter" and self.step > 0

        def write(folder: Path) -> None:
            trainer.write(folder, dtype=self._dtype(), adapter=adapter)
            if adapter:
                _name_base(folder, options.policy / "v000000")

        self.directory.publish(self.step, write, also_keep=(0,) if self.training.lora else ())
        self._published = self.step

    def _dtype(self) -> torch.dtype:
        name = self.options.publish_dtype
        if self.step == 0:
            return self.trainer.source_dtype
        if name == "auto":
            return torch.bfloat16 if self.team.choice.is_cuda else torch.float32
        dtype: torch.dtype = getattr(torch, name)
        return dtype


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _name_base(folder: Path, base: Path) -> None:
    """Write into an adapter where its base model is."""
    import json

    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = str(base.resolve())
    path.write_text(json.dumps(config, indent=2) + "\n")
