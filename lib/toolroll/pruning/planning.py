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
    """What each knob may be set to, from nothing pruned to most: windows, masks, ratios of neurons, layer cuts.

    Between two rungs lie more masks, by `scores` [L][H] and with the first `protect` layers whole, and more ratios.
    """

    shape: Shape
    window: tuple[int | None, ...]
    heads: tuple[Mask | None, ...]
    ffn: tuple[float, ...]
    cut: tuple[int | None, ...]
    scores: Sequence[Sequence[float]]
    protect: int

    def start(self) -> dict[str, int]:
        """The rung of each knob in the dense model."""
        return dict.fromkeys(KNOBS, 0)

    def plan(self, rungs: dict[str, int], base: Plan) -> Plan:
        """The plan on these rungs."""
        chosen: dict[str, Any] = {name: getattr(self, name)[rungs[name]] for name in KNOBS}
        return replace(base, **chosen)

    def laxest(self, knob: str, rung: int, plan: Plan, fits: Callable[[Plan], bool]) -> Plan:
        """A plan with this knob pruned as little as `fits`, from rung 0 to `rung`, and to what the plan has it at.

        The plan itself where nothing less does. Windows and cuts are rungs; heads and neurons go one by one.
        """
        if knob == "ffn":
            least, most = plan.neurons(self.shape), self.shape.ffn
            make: Callable[[int], Any] = self._ratio
        elif knob == "heads":
            least, most = kept_heads(plan, self.shape), self.shape.layers * self.shape.heads
            make = self._mask
        else:
            rungs = [replace(plan, **{knob: value}) for value in getattr(self, knob)[:rung]]
            return next((one for one in rungs if fits(one)), plan)
        found = plan
        while least < most:  # `found` has `least`, and what has more than `most` does not fit
            middle = (least + most + 1) // 2
            one = replace(plan, **{knob: make(middle)})
            if fits(one):
                least, found = middle, one
            else:
                most = middle - 1
        return found

    def _ratio(self, neurons: int) -> float:
        return ratio_of(self.shape.ffn, neurons)

    def _mask(self, kept: int) -> Mask | None:
        mask = active(self.scores, threshold_for(self.scores, kept / self.shape.layers, self.protect), self.protect)
        return None if all(map(all, mask)) else mask


def kept_heads(plan: Plan, shape: Shape) -> int:
    """Active heads of all layers."""
    return sum(sum(plan.active(layer, shape)) for layer in range(shape.layers))


def ratio_of(ffn: int, neurons: int) -> float:
    """The ratio with the fewest digits of which floor(ffn / ratio) is `neurons`.

    >>> ratio_of(512, 256), ratio_of(512, 255), ratio_of(512, 512)
    (2.0, 2.004, 1.0)
    """
    for digits in range(17):
        found = round(ffn / neurons if neurons == ffn else ffn / (neurons + 0.5), digits)
        exact = round(ffn / neurons, digits)
        for one in (exact, found):
            if one >= 1 and int(ffn / one) == neurons:
                return one
    raise ValueError(f"no ratio of {ffn} is {neurons}")


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
        shape,
        (None, *sorted(set(windows), reverse=True)),
        tuple(masks),
        (1.0, *sorted({ratio for ratio in ratios if 1 < ratio <= shape.ffn})),
        (None, *(end for end in ends if end < shape.layers)),
        scores,
        protect,
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
        self._known: dict[str, float] = {}

    def nll(self, plan: Plan) -> float | None:
        """Mean negative log-likelihood of the answers' tokens in nats; None when stopped."""
        if plan.hash not in self._known:
            found = self._nll(plan)
            if found is None:
                return None
            self._known[plan.hash] = found
        return self._known[plan.hash]

    def _nll(self, plan: Plan) -> float | None:
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
        """The dense model, then step after step until at most `budget` of the visual FLOPs is left, and close to it.

        A step goes one rung down the ladder of one knob: of all, the one that adds least to the nll for what it
        saves, where what goes below the budget is not counted as saved. A rung that would is not gone down further
        than needed. In the end knobs are set back as far as the budget allows. ToolrollError where no rung is left
        before the budget is met. Ends early when stopped.
        """
        rungs = ladders.start()
        plan = ladders.plan(rungs, base)
        nll = self.nll(plan)
        if nll is None:
            return
        now = Step(None, plan, nll, 1.0, 1.0, 1)
        yield now
        while now.visual_ratio > budget:
            following = [one for knob in KNOBS if (one := self._next(ladders, now, rungs, knob, budget))]
            tried = self._tried(following)
            if tried is None:
                return
            if not tried:
                raise ToolrollError(
                    f"no plan of these rungs leaves {budget:g} of the visual FLOPs; the last leaves "
                    f"{now.visual_ratio:.3f}: allow more with --windows, --head-shares, --ffns, --cuts",
                    place="--budget",
                )
            before = now
            now = min(
                tried, key=lambda one: (one.nll - before.nll) / (before.visual_ratio - max(one.visual_ratio, budget))
            )
            assert now.changed is not None
            rungs[now.changed] = next(rung for rung, knob, _ in following if knob == now.changed)
            yield now
        while tried := self._tried(self._looser(ladders, now, rungs, budget)):
            now = min(tried, key=lambda one: one.nll)
            yield now

    def _tried(self, following: Sequence[tuple[int, str, Plan]]) -> list[Step] | None:
        """Plans that each change a knob, judged; None when stopped."""
        made: list[Step] = []
        for _, knob, plan in following:
            found = self.nll(plan)
            if found is None:
                return None
            made.append(Step(knob, plan, found, self.visual_ratio(plan), self.kv_ratio(plan), len(following)))
        return made

    def _next(
        self, ladders: Ladders, now: Step, rungs: dict[str, int], knob: str, budget: float
    ) -> tuple[int, str, Plan] | None:
        """The next rung of a knob that leaves less than now, and the plan there, or above it where that is enough."""
        for rung in range(rungs[knob] + 1, len(getattr(ladders, knob))):
            plan = replace(now.plan, **{knob: getattr(ladders, knob)[rung]})
            if self.visual_ratio(plan) < now.visual_ratio:
                return rung, knob, ladders.laxest(knob, rung, plan, self._within(budget))
        return None

    def _looser(self, ladders: Ladders, now: Step, rungs: dict[str, int], budget: float) -> list[tuple[int, str, Plan]]:
        """Plans that prune one thing less than now, as little as the budget allows."""
        loose = [
            (rungs[knob], knob, ladders.laxest(knob, rungs[knob], now.plan, self._within(budget))) for knob in KNOBS
        ]
        return [one for one in loose if self.visual_ratio(one[2]) > now.visual_ratio]

    def _within(self, budget: float) -> Callable[[Plan], bool]:
        return lambda plan: self.visual_ratio(plan) <= budget


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
