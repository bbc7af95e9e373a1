"""The rows of a report: every head of a KV file, its keys and its values, quantized against what they were."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolroll.kvcache.block import check_finite
from toolroll.kvcache.kvfile import KVFile
from toolroll.kvcache.metrics import Looks, made_up, of_head, of_outputs, of_scores, scores_of
from toolroll.kvcache.packing import Choose
from toolroll.kvcache.ranges import F32
from toolroll.kvcache.scheme import Part
from toolroll.kvcache.spans import Mask


@dataclass(slots=True)
class Report:
    """Sees heads as they are packed (`look`), and gives the rows of a layer (`rows`).

    Attention is by the queries of the file, or else by `made_up` ones of no model for each key head; 0: none.
    """

    source: KVFile
    masks: Mask
    choose: Choose
    made_up: int = 0
    seed: int = 0
    _rows: dict[tuple[int, int, Part], dict[str, Any]] = field(default_factory=dict)
    _looks: dict[tuple[int, int], Looks] = field(default_factory=dict)

    def look(self, layer: int, part: Part, item: int, head: int, *found: F32) -> None:
        """A head's values x, x^, lo and scale."""
        x, rounded, lo, scale = found
        scheme, mask = self.choose(layer, part), self.masks[item]
        tokens, channels = x.shape
        held = scheme.code_bytes(tokens, channels) + scheme.range_bytes(tokens, channels)
        row = {
            "tokens": tokens,
            "rule": scheme.rule,
            "bits": scheme.bits,
            "effective_bits": 8 * held / x.size,
            **of_head(x, rounded, lo, scale, scheme),
            **dict.fromkeys(("score_rmse", "kl", "top1_frac", "top8_frac", "mass_shift", "output_error")),
        }
        if part == "k":
            row |= self._attention(layer, item, head, rounded)
        elif (item, head) in self._looks:
            values = self.source.head(layer, "v", item, head)
            check_whole(self.source, layer, "v", item, head, values)
            row |= of_outputs(self._looks[item, head], values, _replaced(values, mask, rounded))
        self._rows[item, head, part] = row

    def rows(self, layer: int) -> Iterator[dict[str, Any]]:
        """The rows of a layer, all heads of which were seen; forgets them."""
        for (item, head, part), row in sorted(self._rows.items()):
            yield {"layer": layer, "item": item, "head": head, "part": part, **row}
        self._rows.clear()
        self._looks.clear()

    def _attention(self, layer: int, item: int, head: int, rounded: F32) -> dict[str, Any]:
        keys, mask = self.source.head(layer, "k", item, head), self.masks[item]
        found = queries_of(self.source, layer, item, head, keys, self.made_up, self.seed)
        if found is None:
            return {}
        queries, places, scaling = found
        exact = scores_of(queries, keys, places, scaling)
        self._looks[item, head], row = of_scores(
            exact, scores_of(queries, _replaced(keys, mask, rounded), places, scaling), mask
        )
        return row


def queries_of(
    source: KVFile, layer: int, item: int, head: int, keys: F32, made: int, seed: int
) -> tuple[F32, NDArray[Any], float] | None:
    """Queries [N, D] that look at a key head, their places [N], and what scores are multiplied by."""
    scaling = scaling_of(source, layer, keys.shape[1])
    stored = source.queries(layer)
    if stored is not None or made:
        check_whole(source, layer, "k", item, head, keys)
    if stored is not None:
        queries, places = stored
        each = queries.shape[1] // source.shape(layer, "k")[1]
        mine = queries[item, head * each : (head + 1) * each]
        return mine.reshape(-1, mine.shape[-1]), np.tile(places[item], each), scaling
    if not made:
        return None
    rng = np.random.default_rng([seed, layer, item, head])
    return made_up(rng, keys, made, scaling), np.full(made, len(keys) - 1), scaling


def check_whole(source: KVFile, layer: int, part: Part, item: int, head: int, values: F32) -> None:
    """ToolrollError where a value of a head, of packed tokens or of others that attention looks at, is not finite."""
    place = f"{source.file.path}: layer {layer} {part}" + (f" item {item}" if source.items > 1 else "")
    check_finite(values, f"{place} head {head}")


def scaling_of(source: KVFile, layer: int, size: int) -> float:
    """What scores are multiplied by: as the file says, or 1 / sqrt(D)."""
    try:
        said = json.loads(source.file.about.get("scaling", "{}"))
        return float(said.get(str(layer), size**-0.5))
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise source.file.wrong("its header has a scaling that is none") from error


def _replaced(whole: F32, mask: Mask, part: F32) -> F32:
    if mask.all():
        return part
    made = whole.copy()
    made[mask] = part
    return made
