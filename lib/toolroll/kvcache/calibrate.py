"""The choice of the map of visual scores: what (t1, t2) makes attention most like that by exact keys and values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from toolroll.kvcache.block import Backend, dequantize, quantize
from toolroll.kvcache.kvfile import PARTS, KVFile
from toolroll.kvcache.metrics import divergence, scores_of, softmax
from toolroll.kvcache.packing import Choose
from toolroll.kvcache.ranges import F32
from toolroll.kvcache.report import check_whole, queries_of
from toolroll.kvcache.score_map import F64, GRID, Tau, calibrated
from toolroll.kvcache.spans import Mask

By = Literal["output", "kl"]


@dataclass(slots=True)
class Tried:
    """What each map of `GRID` came to, [16], over all queries so far: squared error and what it is a part of."""

    error: F64
    whole: float = 0.0

    def add(self, other: Tried) -> None:
        """Take in those of other queries."""
        self.error = self.error + other.error
        self.whole += other.whole

    @property
    def best(self) -> Tau:
        """The map with the least error; (0, 0) where none is better, as when nothing was tried."""
        place = int(np.argmin(self.error))
        return GRID[place] if self.error[place] < self.error[0] else (0.0, 0.0)

    def of(self, tau: Tau, by: By) -> float | None:
        """How large the error is with a map: relative error of outputs, or mean KL."""
        if not self.whole:
            return None
        share = float(self.error[GRID.index(tau)]) / self.whole
        return float(np.sqrt(share)) if by == "output" else share


def nothing() -> Tried:
    """Before any query."""
    return Tried(np.zeros(len(GRID)))


def tried(exact: F64, found: F64, values: F32, rounded: F32, visual: Mask, by: By) -> Tried:
    """All maps, on scores [N, T] by exact keys and by packed ones, and values [T, D] exact and packed."""
    p = softmax(exact)
    wanted = p @ values.astype(np.float64)
    errors = np.empty(len(GRID))
    for place, tau in enumerate(GRID):
        mapped = found.copy()
        mapped[:, visual] = _where_seen(found[:, visual], tau)
        if by == "output":
            errors[place] = np.square(softmax(mapped) @ rounded.astype(np.float64) - wanted).sum()
        else:
            errors[place] = divergence(exact, mapped).sum()
    return Tried(errors, float(np.square(wanted).sum()) if by == "output" else float(len(exact)))


def _where_seen(scores: F64, tau: Tau) -> F64:
    """The map of scores of which some, of tokens that come later, are -inf."""
    seen = np.isfinite(scores)
    if seen.all():
        made: F64 = calibrated(scores, tau)
        return made
    made = scores.copy()
    for row, here in enumerate(seen):
        if here.any():
            made[row, here] = calibrated(scores[row, here], tau)
    return made


def try_all(
    sources: Sequence[tuple[KVFile, Mask]],
    choose: Choose,
    *,
    by: By = "output",
    made_up: int = 0,
    seed: int = 0,
    backend: Backend = "auto",
) -> Iterator[tuple[int, list[Tried]]]:
    """For each layer, what each key head came to over all files. Heads that no query looks at have tried nothing."""
    for layer in sources[0][0].layers:
        heads = [nothing() for _ in range(sources[0][0].shape(layer, "k")[1])]
        for source, masks in sources:
            for item, mask in enumerate(masks):
                if mask.any():
                    for head, one in enumerate(_heads(source, layer, item, mask, choose, by, made_up, seed, backend)):
                        heads[head].add(one)
        yield layer, heads


def _heads(
    source: KVFile,
    layer: int,
    item: int,
    mask: Mask,
    choose: Choose,
    by: By,
    made: int,
    seed: int,
    backend: Backend,
) -> Iterator[Tried]:
    for head in range(source.shape(layer, "k")[1]):
        whole = [source.head(layer, part, item, head) for part in PARTS]
        found = queries_of(source, layer, item, head, whole[0], made, seed)
        if found is None:
            yield nothing()
            continue
        queries, places, scaling = found
        check_whole(source, layer, "v", item, head, whole[1])
        rounded = []
        for part, values in zip(PARTS, whole, strict=True):
            chosen = values[mask]
            place = f"{source.file.path}: layer {layer} {part} (head {head} of the file)"
            block = quantize(
                partial(_only, chosen), (1, *chosen.shape), choose(layer, part), backend=backend, place=place
            )
            one = values.copy()
            one[mask] = dequantize(block, backend=backend)[0]
            rounded.append(one)
        exact, by_codes = (scores_of(queries, keys, places, scaling) for keys in (whole[0], rounded[0]))
        yield tried(exact, by_codes, whole[1], rounded[1], mask, by)


def _only(values: F32, _: int) -> F32:
    return values


def joined(parts: Iterable[Tried]) -> Tried:
    """Several as one."""
    made = nothing()
    for part in parts:
        made.add(part)
    return made
