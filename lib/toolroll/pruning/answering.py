"""Answers of a pruned model, and of the same model dense: how long they took, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from toolroll.models.answers import FINISH
from toolroll.models.load import Loaded
from toolroll.models.padded import Asked, Batches, Strand, Written
from toolroll.pruning.account import convention
from toolroll.pruning.cached import held_bytes
from toolroll.pruning.executed import executed
from toolroll.pruning.flops import Pairs, Tokens, dense_terms, kv_bytes, pruned_terms, sum_over
from toolroll.pruning.opening import batches_of
from toolroll.pruning.plan import Plan
from toolroll.pruning.plugin import Pruner
from toolroll.pruning.shape import Shape
from toolroll.pruning.spans import Marks, marked


class Timed(Batches):
    """Batches that note when the first token was there, when the last one, and how large the cache was at the first."""

    first_s: float | None = None
    whole_s: float = 0.0
    held: int = 0
    noted: Callable[[], None] = staticmethod(lambda: None)

    def _write(self, batch: Sequence[Asked]) -> list[Written] | None:
        self.first_s = None
        began = self._began = self._time()
        written = super()._write(batch)
        self.whole_s = self._time() - began
        return written

    def _next(self, strand: Strand, batch: Sequence[Asked], written: Sequence[Written]) -> Tensor:
        logits = super()._next(strand, batch, written)
        if self.first_s is None:
            self.first_s = self._time() - self._began
            self.held = held_bytes(strand.cache)
            self.noted()
        return logits

    def _time(self) -> float:
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of T tokens, `finish` as records call it.

    Times are those of the batch it was in: `ttft_ms` until the first token, images and all; `decode_ms` a further token
    of each of its prompts (None where there was one alone). `held` and `flops` are bytes of keys and values at the
    first token and FLOPs of the language model until then, a prompt; flops are None for a model without a plan.
    """

    ids: tuple[int, ...]
    text: str
    finish: str
    ttft_ms: float
    decode_ms: float | None
    held: int
    flops: int | None


class Answerer:
    """Writes answers with `loaded` under `plan`, or dense with None. The plan stays in the model until `pause`."""

    def __init__(self, loaded: Loaded, plan: Plan | None, stopped: Callable[[], bool]) -> None:
        self.loaded, self.plan = loaded, plan
        self._batches: Timed = batches_of(loaded, stopped, Timed)
        self._pruner: Pruner | None = None

    def pause(self) -> None:
        """Take the plan out of the model, until the next batch."""
        if self._pruner is not None:
            self._pruner.remove()
            self._pruner = None

    def __call__(self, asked: Sequence[Asked]) -> list[Answer] | None:
        """Answers to a batch of prompts; None when stopped."""
        if self.plan is None:
            return self._answers(self._batches.write(asked), len(asked), None)
        if self._pruner is None:
            self._pruner = Pruner(self.loaded.model, self.plan)
        pruner = self._pruner
        flops: list[int] = []
        if self.plan.softmax == "renorm":
            self._batches.noted = lambda: flops.append(sum_over(executed(pruner)) // len(asked))
        written = self._batches.write(asked)
        return self._answers(written, len(asked), flops[0] if flops else None)

    def _answers(self, written: list[Written] | None, count: int, flops: int | None) -> list[Answer] | None:
        if written is None:
            return None
        times = self._batches
        assert times.first_s is not None
        steps = max(len(one.ids) for one in written) - 1
        each = (times.whole_s - times.first_s) * 1000 / steps if steps > 0 else None
        return [self._answer(one, times.first_s * 1000, each, times.held // count, flops) for one in written]

    def _answer(self, one: Written, first_ms: float, each_ms: float | None, held: int, flops: int | None) -> Answer:
        finish = "eos" if one.ended else "stop" if one.stop is not None else "length"
        text = self.loaded.codec.decode(one.ids[:-1] if one.ended else one.ids)
        return Answer(tuple(one.ids), text, FINISH[finish], first_ms, each_ms, held, flops)


def marks_of(loaded: Loaded, asked: Asked) -> Marks:
    """The visual tokens of a prompt."""
    ids = torch.tensor([list(asked.ids)])
    if not asked.features:
        none = torch.zeros_like(ids)
        return Marks(none.bool(), ~none.bool(), none - 1, none - 1, none - 1, ((),))
    return marked(loaded.model.config, ids, None, asked.features)


def cost_fields(shape: Shape, marks: Marks, plan: Plan, *, pairs: Pairs, element_bytes: int) -> dict[str, Any]:
    """What the visual tokens of a prompt cost, dense and pruned, by the formulas."""
    grids, n = marks.grids[0], int(marks.visual.sum())
    whole = sum(rows * columns for rows, columns in grids)
    tokens = Tokens(grids, marks.visual.shape[1] - n, whole - n)
    f0, f1 = (sum_over(part) for part in (dense_terms(shape, tokens, pairs), pruned_terms(shape, tokens, plan, pairs)))
    return {
        "grids": [list(grid) for grid in grids],
        "n_visual": n,
        "n_text": tokens.text,
        "flops_convention": convention(pairs),
        "flops_dense": f0,
        "flops_pruned": f1,
        "visual_ratio": f1 / f0 if f0 else 1.0,
        "kv_bytes_dense": kv_bytes(shape, tokens, None, element_bytes),
        "kv_bytes_pruned": kv_bytes(shape, tokens, plan, element_bytes),
    }
