"""A run of vprune: rows in, rows with answers out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import TYPE_CHECKING, Any

from toolroll.errors import ToolrollError
from toolroll.models.padded import Asked
from toolroll.pruning.answering import Answer, Answerer, cost_fields, marks_of
from toolroll.pruning.opening import one_by_one, open_model, reader_of
from toolroll.pruning.plan import Plan
from toolroll.pruning.support import parts_of
from toolroll.run.seeds import record_seed

if TYPE_CHECKING:
    from toolroll.io.rows import Row
    from toolroll.models.asked import PromptReader
    from toolroll.models.base import Sampling
    from toolroll.models.load import Loaded
    from toolroll.models.options import LocalOptions, PromptOptions
    from toolroll.pruning.flops import Pairs
    from toolroll.pruning.options import PlanOptions
    from toolroll.pruning.shape import Shape
    from toolroll.run.log import Log

Held = Sequence[tuple["Row[Any]", Asked | None]]


@dataclass(frozen=True, slots=True)
class Session:
    """A model under a plan, what reads rows for it, and what writes answers, pruned and dense."""

    loaded: Loaded
    shape: Shape
    plan: Plan
    reader: PromptReader
    pruned: Answerer
    dense: Answerer

    def close(self) -> None:
        """Take the plan out of the model."""
        self.pruned.pause()

    @classmethod
    def opened(
        cls, running: LocalOptions, pruning: PlanOptions, asking: PromptOptions, log: Log, stopped: Callable[[], bool]
    ) -> Session:
        """Load the model and see whether it can be pruned so."""
        loaded = open_model(
            running.model, running.device, running.dtype, notify=log.note, trust_remote_code=running.trust_remote_code
        )
        shape = parts_of(loaded.model, Plan()).shape
        plan = pruning.read(shape)
        try:
            parts_of(loaded.model, plan)
        except ToolrollError as error:
            raise ToolrollError(error.why, place=running.model) from error
        reader = reader_of(loaded, asking, running.images)
        return cls(loaded, shape, plan, reader, Answerer(loaded, plan, stopped), Answerer(loaded, None, stopped))

    def read(self, row: Row[Any], sampling: Sampling) -> Asked:
        """What a row asks. RowError where it asks nothing."""
        return self.reader(row, replace(sampling, seed=record_seed(sampling.seed, row.view.id, 0)))

    def answered(self, held: Held, *, pairs: Pairs, compare: bool, timings: bool, alone: bool) -> list[Row[Any]] | None:
        """The rows with their answers, in order; None when stopped.

        `alone`: no row ever shares its batch, so that what the batch took is what the row took.
        """
        asked = [one for _, one in held if one is not None]
        answers = one_by_one(self.pruned, asked) if asked else []
        dense: list[Any] | None = [None] * len(asked)
        if asked and compare:
            self.pruned.pause()
            dense = one_by_one(self.dense, asked)
        if answers is None or dense is None:
            return None
        found = iter(zip(asked, answers, dense, strict=True))
        return [
            row if one is None else self._added(row, *next(found), pairs=pairs, timings=timings, alone=alone)
            for row, one in held
        ]

    def _added(
        self, row: Row[Any], asked: Asked, answer: Any, dense: Any, *, pairs: Pairs, timings: bool, alone: bool
    ) -> Row[Any]:
        for one in (answer, dense):
            if isinstance(one, ToolrollError):
                return row.fail(one.why)
        size = self.loaded.model.dtype.itemsize
        fields: dict[str, Any] = {
            "response": answer.text,
            "finish": answer.finish,
            "n_tokens": len(answer.ids),
            **cost_fields(self.shape, marks_of(self.loaded, asked), self.plan, pairs=pairs, element_bytes=size),
            "flops_executed": answer.flops if alone else None,
            "kv_bytes_held": answer.held if alone else None,
            "softmax": self.plan.softmax,
            "cross_tile": None if self.plan.window is None else self.plan.cross_tile,
            "plan_hash": self.plan.hash,
        }
        if timings:
            fields |= {"ttft_ms": round(answer.ttft_ms, 3), "decode_ms": _rounded(answer.decode_ms)}
        if dense is not None:
            fields |= {"dense_response": dense.text, "dense_same_tokens": _same(answer, dense)}
        if dense is not None and timings:
            fields |= {"dense_ttft_ms": round(dense.ttft_ms, 3), "dense_decode_ms": _rounded(dense.decode_ms)}
        return row.add(**fields)


def _same(one: Answer, other: Answer) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one.ids, other.ids, strict=False)))


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
