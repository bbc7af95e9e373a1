"""Pairs written by a model: records turned into requests, and answers into records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolroll.errors import RowError, ToolrollError
from toolroll.models.images import Names, folder_of, image_names, places, with_places
from toolroll.preference.foreign import answered, asked, in_form
from toolroll.preference.options import GenerationOptions
from toolroll.preference.strength import Answer, Plan, planned
from toolroll.preference.texts import text_of
from toolroll.preference.uncond import read_uncond
from toolroll.preference.work import Work
from toolroll.run.blocks import in_blocks, to_do
from toolroll.run.seeds import record_seed
from toolroll.world.questions import DESCRIBE

if TYPE_CHECKING:
    from toolroll.io.rows import Row
    from toolroll.models.base import Completion, Sampling
    from toolroll.models.options import ModelOptions
    from toolroll.models.pictures import ImageTextEngine, Request
    from toolroll.preference.unseeing import Unseeing
    from toolroll.run.log import Log
    from toolroll.run.rows import Rows

#: What is asked about an image where a row asks nothing; sprite is asked what it was asked while it learned.
PROMPTS = (
    "Describe this image in detail.",
    "What does this picture show? Describe everything you see.",
    "Give a detailed description of the image.",
    "Please write a thorough caption for this picture.",
    "Tell me what is in this image, object by object.",
    "Explain in detail what can be seen here.",
    "Describe the scene, with all objects and how they look.",
    "Write a paragraph that describes this image.",
)
_PAIRS = 32  # rows of a block while all are pairs already


@dataclass(frozen=True, slots=True)
class _Asking:
    """A row, what it asks, and the pairs that are made of it, of which those that are `missing` are not written yet."""

    work: Work
    messages: list[dict[str, Any]]
    files: list[Path]
    plan: Plan
    missing: frozenset[int]  # numbers of pairs


class Generator:
    """Writes pairs for records. Close it when done."""

    def __init__(
        self,
        options: GenerationOptions,
        model: ModelOptions,
        sampling: Sampling,
        *,
        seed: int,
        folder: Path | None,
        log: Log,
    ) -> None:
        from toolroll.models.answers import read_template
        from toolroll.preference.mixing import Mixing

        self.options = options
        self._strength, self._ladder = options.strength(), options.levels()
        mixing = Mixing(options.mix, options.plausibility)  # type: ignore[arg-type]
        mixing.check(*options.bounds(), place="--ladder" if options.ladder else "--h")
        ships = model.base_url is None and model.model in ("embedded", "sprite")
        self._lines: tuple[str, ...] = (DESCRIBE,) if ships else PROMPTS
        if options.prompt_list is not None:
            lines = read_template(options.prompt_list).splitlines()
            self._lines = tuple(line.strip() for line in lines if line.strip())
            if not self._lines:
                raise ToolrollError("no line with a prompt", place=str(options.prompt_list))
        self._sampling = replace(sampling, max_tokens=options.response_tokens)
        self._seed = seed
        self._folder = folder
        self._log = log
        self._model = model
        self._mixing = mixing
        self._uncond = read_uncond(options.uncond)
        self._engine: ImageTextEngine | None = None
        self._unseeing: Unseeing | None = None
        self._asks = False

    def close(self) -> None:
        """Free the model."""
        if self._engine is not None:
            self._engine.close()

    def engine(self) -> ImageTextEngine:
        """The model, loaded now if it was not yet."""
        if self._engine is None:
            self._engine = self._open()
        return self._engine

    def __call__(self, rows: Rows[Any]) -> Iterator[list[Work]]:
        """The records of the pairs of the rows, block by block; a row that is a pair already comes out as it is."""
        for block in in_blocks((self._read(row, rows) for row in rows), self._room, rows.ready):
            if wanted := to_do(block, _is_written, more=rows.more_written()):
                yield self._made(wanted)

    def _room(self) -> int:
        """Rows of a block. Once a row asks something, even if that is written already, the model's capacity says it."""
        if not self._asks:
            return _PAIRS
        each = 1 if self._strength is None else 2
        return max(1, 2 * self.engine().capacity // (self.options.samples * each))

    def _open(self) -> ImageTextEngine:
        if self.options.bounds() == (0.0, 0.0):
            return self._model.open_image_text(self._log.note)
        from toolroll.preference.branches import open_branches
        from toolroll.preference.unseeing import Unseeing

        engine = open_branches(self._model, self._mixing, self._log.note)
        self._unseeing = Unseeing.of(self._uncond, engine.processor)
        return engine

    def _read(self, row: Row[Any], rows: Rows[Any]) -> Work | _Asking:
        work = Work(row, {})
        try:
            work = Work.of(row)
            if work.fields.get("rejected") is None and work.fields.get("rejected_conversations") is None:
                return self._asking(work, rows)
            work.set(**in_form(work.fields))
        except RowError as error:
            work.fail(error.why)
        work.written = rows.written(row)
        return work

    def _asking(self, work: Work, rows: Rows[Any]) -> _Asking:
        fields = work.fields
        if fields.get("id") is None:
            raise RowError("no `id`, from which the seeds come")
        names = image_names(Names(fields))
        plan = planned(
            fields["id"],
            seed=self._seed,
            pairs=self.options.samples,
            positive=self.options.h_chosen,
            negative=self._strength,
            ladder=self._ladder,
        )
        if fields.get("chosen") is not None and self._strength is None:
            raise RowError("a row with `chosen` gets no ladder")
        messages = self._asked(fields, len(names))
        missing = frozenset(number for number, *_ in plan.pairs if not rows.done(fields["id"], number))
        self._log.counts.skipped += len(plan.pairs) - len(missing)
        folder = self._folder or folder_of(work.row.place)
        work.set(prompt=messages, images=names)
        self._asks = True
        return _Asking(work, messages, [folder / name for name in names], plan, missing)

    def _asked(self, fields: dict[str, Any], images: int) -> list[dict[str, Any]]:
        given = fields.get("prompt") if fields.get("prompt") is not None else fields.get("question")
        if given is None:
            seed = record_seed(self._seed, fields["id"], "prompt")
            given = self._lines[seed % len(self._lines)]
        if isinstance(given, str):
            if not given.strip():
                raise RowError("the prompt is empty")
            return asked(given, images)
        text_of(given, "prompt")
        if not given:
            raise RowError("the prompt is empty")
        return with_places(given, None if places(given) else images)

    def _made(self, wanted: Sequence[Work | _Asking]) -> list[Work]:
        """The records of all pairs."""
        answers = self._answers([one for one in wanted if isinstance(one, _Asking)])
        made: list[Work] = []
        for one in wanted:
            if isinstance(one, Work):
                made.append(one)
            else:
                made += [self._pair(one, *pair, answers[id(one)]) for pair in one.plan.pairs]
        return made

    def _answers(self, jobs: Sequence[_Asking]) -> dict[int, dict[int, Completion | Exception]]:
        """For each job the answers by their number in its plan."""
        from toolroll.models.pictures import Request

        found: dict[int, dict[int, Completion | Exception]] = {id(job): {} for job in jobs}
        plain: list[tuple[_Asking, int, Request]] = []
        both: list[tuple[_Asking, int, Request]] = []
        for job in jobs:
            given = job.work.fields.get("chosen") is not None
            needed = {place for _, *two in job.plan.pairs for place in (two[1:] if given else two)}
            for place in sorted(needed):
                answer = job.plan.answers[place]
                request = Request(job.messages, replace(self._sampling, seed=answer.seed), job.files)
                try:
                    if answer.h == 0:
                        plain.append((job, place, request))
                    else:
                        assert self._unseeing is not None
                        both.append((job, place, self._unseeing(request, answer.h)))
                except RowError as error:
                    found[id(job)][place] = error
        assert self._engine is not None or not jobs
        for asking in (plain, both):
            if asking and self._engine is not None:
                results = self._engine.answer([request for _, _, request in asking])
                for (job, place, _), result in zip(asking, results, strict=True):
                    found[id(job)][place] = result
        return found

    def _pair(
        self, job: _Asking, number: int, better: int, worse: int, answers: dict[int, Completion | Exception]
    ) -> Work:
        work = Work(job.work.row, dict(job.work.fields), dict(job.work.new), written=number not in job.missing)
        work.set(sample=number)
        given = job.work.fields.get("chosen")
        made: dict[str, Any] = {"chosen": None, "rejected": None, "mix": self.options.mix}
        made |= {"uncond": self.options.uncond, "model": self._engine.name if self._engine else None}
        made |= {"prompt_tokens": None, "round": self.options.round}
        for name, place in (("chosen", better), ("rejected", worse)):
            if name == "chosen" and given is not None:
                if isinstance(given, str):
                    work.set(chosen=answered(given))
                continue
            result = answers[place]
            if isinstance(result, RowError):
                return work.fail(str(result))
            if isinstance(result, Exception):
                raise result
            made[name] = _noted(job.plan.answers[place], result)
            made["prompt_tokens"] = None if result.prompt_ids is None else len(result.prompt_ids)
            work.set(**{name: answered(result.text)})
        return work.set(made=made, images_sha256=[_digest(file) for file in job.files])


def _is_written(one: Work | _Asking) -> bool:
    return one.written if isinstance(one, Work) else not one.missing


def _noted(answer: Answer, completion: Completion) -> dict[str, Any]:
    tokens = None if completion.ids is None else len(completion.ids)
    return {"h": answer.h, "seed": answer.seed, "tokens": tokens, "finish": completion.finish}


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
