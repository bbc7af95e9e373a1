"""Answers to prompts with images, many at a time, with all that training needs: what image-rollout writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolroll.errors import RowError
from toolroll.io.rows import Row
from toolroll.models.answers import FINISH, Prompter
from toolroll.models.base import Completion, Message, Sampling
from toolroll.models.images import image_files
from toolroll.models.options import ModelOptions, PolicyOptions
from toolroll.models.pictures import ImageTextEngine, Request, in_text, placed
from toolroll.models.policy import PolicyVersion, current_policy
from toolroll.models.rollouts import sample_fields, sample_seed
from toolroll.run.blocks import in_blocks, to_do
from toolroll.run.log import Log
from toolroll.run.rows import Rows
from toolroll.run.signals import StopFlag

_ROOM = 4  # times what an engine answers at once: so many requests are handed to it together


@dataclass(frozen=True, slots=True)
class _Task:
    row: Row[Any]
    number: int
    seed: int
    request: Request | RowError
    done: bool  # by the run that is resumed


@dataclass(slots=True)
class PictureRollouts:
    """`samples` answers to every row, by the model, or by the current version of a policy directory.

    Following it, a newer version is loaded between two batches. `draw` says how an answer with a seed is drawn. Images
    are in `folder`, else in that of the row's file. The seed and the row's id, its draw and the number of the sample
    determine each answer's own seed. Asked to stop, it answers what is in hand. Close it when done.
    """

    model: ModelOptions
    policy: PolicyOptions
    prompter: Prompter
    draw: Callable[[int], Sampling]
    samples: int
    seed: int
    folder: Path | None
    log: Log
    stop: StopFlag
    version: PolicyVersion | None = None
    _engine: ImageTextEngine | None = None
    _left: int = field(default=0)  # samples of the row in hand that are still to be asked for

    @property
    def engine(self) -> ImageTextEngine:
        """The model; loaded now if it was not yet."""
        if self._engine is None:
            self.version = self._newest()
            path = None if self.version is None else str(self.version.path)
            self._engine = self.model.open_image_text(self.log.note, model=path)
        return self._engine

    def close(self) -> None:
        """Free the model."""
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def run(self, rows: Rows[Any]) -> Iterator[Row[Any]]:
        """A row for each sample of each of `rows`, in order."""
        room = _ROOM * self.engine.capacity
        for block in in_blocks(self._tasks(rows), lambda: room, lambda: self._left > 0 or rows.ready()):
            if tasks := to_do(block, lambda task: task.done, more=rows.more_written()):
                yield from self._answered(tasks)

    def _newest(self) -> PolicyVersion | None:
        return None if self.policy.policy is None else current_policy(self.policy.policy)

    def _tasks(self, rows: Rows[Any]) -> Iterator[_Task]:
        for row in rows:
            for number in range(self.samples):
                self._left = self.samples - number - 1
                if self.stop:
                    return
                done = rows.done(row.view.id, number)
                self.log.counts.skipped += done
                seed = sample_seed(self.seed, row, number)
                try:
                    request: Request | RowError = self._request(row, seed)
                except RowError as error:
                    request = error
                yield _Task(row, number, seed, request, done)

    def _request(self, row: Row[Any], seed: int) -> Request:
        images = image_files(row.view, row.place, self.folder)
        messages: list[Message] = self.prompter.messages(row)
        return Request(messages, self.draw(seed), images)

    def _answered(self, tasks: list[_Task]) -> list[Row[Any]]:
        if self.policy.follow and self._newest() != self.version:
            self.close()
        engine = self.engine
        asked = [task.request for task in tasks if isinstance(task.request, Request)]
        answers = iter(engine.answer(asked) if asked else [])
        made = []
        for task in tasks:
            answer = task.request if isinstance(task.request, RowError) else next(answers)
            if not task.done:
                made.append(self._row(task, answer))
        return made

    def _row(self, task: _Task, answer: Completion | Exception) -> Row[Any]:
        own = sample_fields(task.row, task.number, task.seed, self.engine.name, self.version)
        if isinstance(answer, RowError):
            return task.row.fail(str(answer), **own)
        if isinstance(answer, Exception):
            raise answer
        assert isinstance(task.request, Request)
        return task.row.add(**own, **answer_fields(self.engine, task.request, answer))


def answer_fields(engine: ImageTextEngine, request: Request, answer: Completion) -> dict[str, Any]:
    """An answer as fields of a row; of the prompt what the engine says, which for images alone knows, or else ours."""
    prompt, prompt_ids = answer.prompt, answer.prompt_ids
    if prompt_ids is None and engine.codec is not None and not engine.takes_images:
        prompt = engine.codec.chat(in_text(placed(request)))
        prompt_ids = engine.codec.encode(prompt)
    known = answer.ids is not None
    return {
        "prompt": prompt,
        "response": answer.text,
        "finish": FINISH[answer.finish],
        "prompt_ids": prompt_ids if known else None,
        "response_ids": answer.ids,
        "loss_mask": [1] * len(answer.ids or ()) if known else None,
        "logprobs": answer.logprobs,
    }
