"""The search for a plan: from the dense model, always the step that costs least quality for the FLOPs it saves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from toolroll.errors import RowError, ToolrollError
from toolroll.models.load import Loaded
from toolroll.models.padded import Asked
from toolroll.pruning.answering import marks_of
from toolroll.pruning.flops import Tokens, dense_terms, kv_bytes, pruned_terms, sum_over
from toolroll.pruning.heads import Mask, active, threshold_for
from toolroll.pruning.opening import batches_of
from toolroll.pruning.plan import Plan
from toolroll.pruning.plugin import Pruner
from toolroll.pruning.shape import Shape

KNOBS = ("window", "heads", "ffn", "cut")


@dataclass(frozen=True, slots=True)
class Sample:
    """A prompt with images, the answer that is to stay probable, in token ids, and its tokens."""

    asked: Asked
    answer: tuple[int, ...]
    tokens: Tokens


@dataclass(frozen=True, slots=True)
class Ladders:
    """What each knob may be set to, from nothing pruned to most: windows, masks, ratios of neurons, layer cuts."""

    window: tuple[int | None, ...]
    heads: tuple[Mask | None, ...]
    ffn: tuple[float, ...]
    cut: tuple[int | None, ...]

    def start(self) -> dict[str, int]:
        """The rung of each knob in the dense model."""
        return dict.fromkeys(KNOBS, 0)

    def plan(self, rungs: dict[str, int], base: Plan) -> Plan:
        """The plan on these rungs."""
        chosen: dict[str, Any] = {name: getattr(self, name)[rungs[name]] for name in KNOBS}
        return replace(base, **chosen)


def ladders(
    shape: Shape,
    *,
    windows: Sequence[int],
    shares: Sequence[float],
    ratios: Sequence[float],
    cuts: Sequence[float],
    scores: Sequence[Sequence[float]],
    protect: int,
) -> Ladders:
    """Ladders from their rungs: windows, shares of heads to keep by `scores` [L][H], ratios, cuts as shares of L."""
    masks: list[Mask | None] = [None]
    for share in sorted(shares, reverse=True):
        try:
            mask = active(scores, threshold_for(scores, share * shape.heads, protect), protect)
        except ToolrollError:  # the protected layers alone have more
            continue
        if mask not in masks and not all(map(all, mask)):
            masks.append(mask)
    ends = sorted({min(shape.layers, max(1, round(share * shape.layers))) for share in cuts}, reverse=True)
    return Ladders(
        (None, *sorted(set(windows), reverse=True)),
        tuple(masks),
        (1.0, *sorted({ratio for ratio in ratios if 1 < ratio <= shape.ffn})),
        (None, *(end for end in ends if end < shape.layers)),
    )


@dataclass(frozen=True, slots=True)
class Step:
    """A plan of the search: what `changed`, its mean `nll` in nats a token, what is left of FLOPs and of the cache."""

    changed: str | None
    plan: Plan
    nll: float
    visual_ratio: float
    kv_ratio: float
    n_tried: int


class Search:
    """Judges plans by samples. `stopped` is asked between batches; then Stopped is not raised, but the search ends."""

    def __init__(
        self, loaded: Loaded, shape: Shape, samples: Sequence[Sample], *, batch: int, stopped: Callable[[], bool]
    ) -> None:
        self.loaded, self.shape, self.samples = loaded, shape, samples
        self.batch = batch
        self._batches = batches_of(loaded, stopped)
        self.n_tokens = sum(len(sample.answer) for sample in samples)

    def nll(self, plan: Plan) -> float | None:
        """Mean negative log-likelihood of the answers' tokens in nats; None when stopped."""
        values: list[float] = []
        with Pruner(self.loaded.model, plan):
            for start in range(0, len(self.samples), self.batch):
                some = self.samples[start : start + self.batch]
                found = self._batches.score([one.asked for one in some], [one.answer for one in some])
                if found is None:
                    return None
                values += [value for row in found for value in row]
        mean = -math.fsum(values) / len(values)
        return mean if mean == mean else math.inf

    def visual_ratio(self, plan: Plan) -> float:
        """What is left of the visual tokens' FLOPs."""
        dense = sum(sum_over(dense_terms(self.shape, one.tokens, "full")) for one in self.samples)
        pruned = sum(sum_over(pruned_terms(self.shape, one.tokens, plan, "full")) for one in self.samples)
        return pruned / dense

    def kv_ratio(self, plan: Plan) -> float:
        """What is left of the prompts' keys and values."""
        pruned = sum(kv_bytes(self.shape, one.tokens, plan, 1) for one in self.samples)
        return pruned / sum(kv_bytes(self.shape, one.tokens, None, 1) for one in self.samples)

    def steps(self, ladders: Ladders, base: Plan, budget: float) -> Iterator[Step]:
        """The dense model, then step after step until at most `budget` of the visual FLOPs is left.

        A step goes one rung down the ladder of one knob: of all, the one that adds least to the nll for what it
        saves. ToolrollError where no rung is left before the budget is met. Ends early when stopped.
        """
        rungs = ladders.start()
        plan = ladders.plan(rungs, base)
        nll = self.nll(plan)
        if nll is None:
            return
        now = Step(None, plan, nll, 1.0, 1.0, 1)
        yield now
        while now.visual_ratio > budget:
            tried: list[tuple[float, int, Step]] = []
            for knob in KNOBS:
                following = self._next(ladders, base, rungs, knob, now.visual_ratio)
                if following is None:
                    continue
                rung, plan, ratio = following
                found = self.nll(plan)
                if found is None:
                    return
                price = (found - now.nll) / (now.visual_ratio - ratio)
                tried.append((price, rung, Step(knob, plan, found, ratio, self.kv_ratio(plan), 0)))
            if not tried:
                raise ToolrollError(
                    f"no plan of these rungs leaves {budget:g} of the visual FLOPs; the last leaves "
                    f"{now.visual_ratio:.3f}: allow more with --windows, --keep-heads, --ffns, --cuts",
                    place="--budget",
                )
            _, rung, best = min(tried, key=lambda one: one[0])
            assert best.changed is not None
            rungs[best.changed] = rung
            now = replace(best, n_tried=len(tried))
            yield now

    def _next(
        self, ladders: Ladders, base: Plan, rungs: dict[str, int], knob: str, ratio: float
    ) -> tuple[int, Plan, float] | None:
        """The next rung of a knob that leaves less than `ratio`, its plan, and what that leaves."""
        for rung in range(rungs[knob] + 1, len(getattr(ladders, knob))):
            plan = ladders.plan(rungs | {knob: rung}, base)
            left = self.visual_ratio(plan)
            if left < ratio:
                return rung, plan, left
        return None


def sample_of(loaded: Loaded, asked: Asked, response: str | None, most: int | None) -> Sample | None:
    """A sample, or None without an image; where there is no `response` its answer is still to be written.

    RowError where the answer is none, or too long.
    """
    marks = marks_of(loaded, asked)
    n = int(marks.visual.sum())
    if not n:
        return None
    answer = () if response is None else tuple(loaded.codec.encode(response))
    if response is not None and not answer:
        raise RowError("the answer is empty")
    if most is not None and len(asked.ids) + len(answer) > most:
        raise RowError(f"the prompt and the answer have more than {most} tokens, the model's limit")
    return Sample(asked, answer, Tokens(marks.grids[0], marks.visual.shape[1] - sum(r * c for r, c in marks.grids[0])))
