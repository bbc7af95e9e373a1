"""Every configuration of a grid over the same prompts: records of answers, batch by batch."""

from __future__ import annotations

import ctypes
import gc
import math
import resource
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import torch

from toolroll.errors import RowError
from toolroll.io.rows import Row
from toolroll.models.answers import Prompter
from toolroll.models.asked import PromptReader
from toolroll.models.base import Message, Sampling
from toolroll.models.device import Device
from toolroll.models.padded import Asked, Written
from toolroll.numerics.backends import Prepared
from toolroll.numerics.grid import AXES, Setting
from toolroll.run.log import Log
from toolroll.run.seeds import record_seed

Prepare: TypeAlias = Callable[[Setting], Prepared]


@dataclass(frozen=True, slots=True)
class Job:
    """What is the same in all configurations of a run.

    `samples` answers a prompt, drawn as `sampling` says with seeds that come from `seed`. `top` probable tokens are
    told at each position. `images` is the folder of images. `check` grades an answer: its text and the row's right
    answer to 1, 0 or None. `timings`: tell times and memory, which differ from run to run.
    """

    device: Device
    prompter: Callable[[Callable[[list[Message]], str]], Prompter]
    sampling: Sampling
    samples: int = 1
    seed: int = 0
    top: int = 5
    images: Path | None = None
    check: Callable[[str, Any], int | None] | None = None
    timings: bool = False


@dataclass(frozen=True, slots=True)
class _Sequence:
    """One answer to write: the row it belongs to and which of its samples it is."""

    row: Row[Any]
    sample: int
    asked: Asked


@dataclass(frozen=True, slots=True)
class _Failed:
    """A row that cannot be run."""

    row: Row[Any]
    why: str


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs a job under many settings.

    `prepare` makes the model for a setting. `done` tells which (config, id, sample) an earlier run wrote.
    """

    job: Job
    prepare: Prepare
    log: Log
    stopped: Callable[[], bool]
    done: Callable[..., bool]

    def run(self, rows: Iterable[Row[Any]], settings: Sequence[Setting]) -> Iterator[Row[Any]]:
        """A row for each setting, prompt and sample, in this order; the rows are held when there are several settings.

        A prompt that cannot be run is an error row in every configuration, and takes no place in a batch.
        """
        kept: Iterable[Row[Any]] = rows if len(settings) == 1 else list(rows)
        for number, setting in enumerate(settings, 1):
            if self.stopped():
                return
            prepared = self.prepare(setting)
            self.log.info(f"configuration {number} of {len(settings)}: {said(setting)}")
            yield from self._run_one(kept, setting, prepared)

    def _run_one(self, rows: Iterable[Row[Any]], setting: Setting, ready: Prepared) -> Iterator[Row[Any]]:
        job = self.job
        reader = PromptReader(ready.codec, ready.processor, job.prompter, most=ready.most, folder=job.images)
        limits = {name: getattr(job.sampling, name) for name in ("max_tokens", "temperature", "top_p", "top_k")}
        config = {**ready.config, **limits}
        forget_peak(self.job.device)
        given = iter(rows)
        while items := self._read(given, reader, setting.batch):
            asked = [one for item in items if not isinstance(item, _Failed) for one in item]
            wanted = [not self._is_written(config, one.row, one.sample) for one in asked]
            answers: Iterator[Row[Any] | None] = iter(())
            if any(wanted):
                started = time.perf_counter()
                written = ready.write([one.asked for one in asked])
                if written is None:
                    return
                spent = (time.perf_counter() - started) / len(asked)
                answers = (
                    self._record(one, answer, ready, config, spent) if new else None
                    for one, answer, new in zip(asked, written, wanted, strict=True)
                )
            for item in items:
                if not isinstance(item, _Failed):
                    yield from filter(None, islice(answers, len(item)))
                elif not self._is_written(config, item.row, 0):
                    yield item.row.fail(item.why, sample=0, config=config)

    def _is_written(self, config: dict[str, Any], row: Row[Any], sample: int) -> bool:
        """Whether an earlier run wrote this, which may be asked once; counts it if so."""
        if not self.done(config, row.view.id, sample):
            return False
        self.log.counts.skipped += 1
        return True

    def _read(self, rows: Iterator[Row[Any]], reader: PromptReader, count: int) -> list[_Failed | list[_Sequence]]:
        """The next `count` prompts that can be run, with their samples, and those between them that cannot."""
        items: list[_Failed | list[_Sequence]] = []
        good = 0
        while good < count and (row := next(rows, None)) is not None:
            try:
                asked = reader(row, self.job.sampling)
            except RowError as error:
                items.append(_Failed(row, error.why))
                continue
            items.append([self._sample(row, number, asked) for number in range(self.job.samples)])
            good += 1
        return items

    def _sample(self, row: Row[Any], number: int, asked: Asked) -> _Sequence:
        draw = row.view.draw
        seed = record_seed(self.job.seed, row.view.id, number, *(() if draw is None else (draw,)))
        return _Sequence(row, number, replace(asked, sampling=replace(asked.sampling, seed=seed)))

    def _record(
        self, one: _Sequence, answer: Written, ready: Prepared, config: dict[str, Any], seconds: float
    ) -> Row[Any]:
        known = {"sample": one.sample, "config": config, "seed": one.asked.sampling.seed}
        if answer.failed:
            return one.row.fail(answer.failed, **known, tokens=answer.ids)
        codec = ready.codec
        text = codec.decode(answer.ids[:-1] if answer.ended else answer.ids)
        told = len(answer.logprobs) == len(answer.ids)
        top = [[math.exp(value) for value in best[:2]] for best in answer.top_logprobs]
        fields: dict[str, Any] = {
            **known,
            "tokens": answer.ids,
            "text": text,
            "logprobs": answer.logprobs if told else None,
            "top1_prob": [best[0] for best in top] if told else None,
            "top2_prob": [best[1] for best in top] if told else None,
            "gap": [best[0] - best[1] for best in top] if told else None,
            "n_tokens": len(answer.ids),
            "finish": "eos" if answer.ended else "token_limit",
            "correct": self._grade(text, one.row),
            "weight_bytes": ready.weight_bytes,
            "kv_bytes": answer.kv_bytes or None,
        }
        if self.job.top and told:
            fields["top_ids"] = [ids[: self.job.top] for ids in answer.top_ids]
            fields["top_logprobs"] = [values[: self.job.top] for values in answer.top_logprobs]
        if self.job.timings:
            fields["ms"] = seconds * 1000
            fields["peak_rss_bytes"] = peak(self.job.device)
        return one.row.add(**fields)

    def _grade(self, text: str, row: Row[Any]) -> int | None:
        if self.job.check is None or row.view.answer is None:
            return None
        return self.job.check(text, row.view.answer)


def said(setting: Setting) -> str:
    """A setting in a line: its values that are not the defaults, and always its precision and batch."""
    default = Setting()
    shown = {name: getattr(setting, name) for name in AXES}
    return " ".join(
        f"{name}={value}"
        for name, value in shown.items()
        if name in ("precision", "batch") or value != getattr(default, name)
    )


def forget_peak(device: Device) -> None:
    """Let the peak of memory begin anew at what is held now."""
    gc.collect()
    if device.is_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device.name)
        return
    with suppress(OSError, AttributeError):  # other systems than Linux with glibc: the peak is the process's
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")


def peak(device: Device) -> int:
    """Bytes of memory at the peak since `forget_peak`: allocated on a GPU, else resident."""
    if device.is_cuda:
        return int(torch.cuda.max_memory_allocated(device.name))
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
