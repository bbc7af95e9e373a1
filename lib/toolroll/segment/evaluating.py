"""Segments against the truth, over many images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from toolroll.errors import RowError
from toolroll.segment.folders import read_truth
from toolroll.segment.masks import MOST, Mask, decode
from toolroll.segment.metrics import Rule, best_ious, class_ious, confusion, iou, mean_iou
from toolroll.segment.prompts import Prompts, given_prompts
from toolroll.segment.scenes import Segment, labels_of


class Scores:
    """Sums over images. Classes are known by their names, in any case: images may be asked for different ones."""

    def __init__(self) -> None:
        self._classes: dict[str, int] = {}
        self._names: list[str] = []  # as the first image has them
        self._table = np.zeros((1, 1), np.int64)  # the last row and column are "none of them"
        self.images = 0
        self._best: list[float] = []
        self._proposals: list[int] = []
        self._selected: list[float] = []
        self._other: list[float] = []

    def add(self, row: Any) -> None:
        """Count an image: a row as pmp-seg writes it, with `truth`. RowError, with nothing counted, for another."""
        if row.truth is None or row.segments is None or row.prompts is None:
            missing = next(name for name in ("segments", "prompts", "truth") if getattr(row, name) is None)
            raise RowError(f"no `{missing}`")
        if row.height * row.width > MOST:
            raise RowError(f"an image of {row.height} x {row.width} pixels is too large")
        prompts = given_prompts(row.prompts)
        masks = [_decoded(one.rle, row) for one in row.segments]
        proposals = masks if row.proposals is None else [_decoded(one, row) for one in row.proposals]
        truth, ignore = read_truth(
            [{"prompt": one.prompt, "rle": one.rle} for one in row.truth],
            None if row.ignore is None else {"size": row.ignore.size, "counts": row.ignore.counts},
            row.height,
            row.width,
        )
        numbers = {word.casefold(): number for number, words in enumerate(prompts) for word in words}
        found = [
            (numbers.get(one.prompt.casefold()), one.score, mask) for one, mask in zip(row.segments, masks, strict=True)
        ]
        if any(number is None for number, _, _ in found):
            raise RowError("a segment's prompt is none of `prompts`")
        predicted = np.full((row.height, row.width), len(prompts))
        for number, _, mask in sorted(found, key=lambda one: one[1]):
            predicted[mask] = number
        selected = _selected(row, found, proposals, len(prompts))
        self._count(prompts, labels_of(truth, ignore, prompts, row.height, row.width), predicted)
        self._compare(prompts, truth, ignore, proposals, selected)

    def _count(self, prompts: Prompts, truth: Any, predicted: Any) -> None:
        keys = [words[0].casefold() for words in prompts]
        for key, words in zip(keys, prompts, strict=True):
            if key not in self._classes:
                self._classes[key] = len(self._classes)
                self._names.append(words[0])
        size = len(self._classes) + 1
        if size > len(self._table):
            old, self._table = self._table, np.zeros((size, size), np.int64)
            places = [*range(len(old) - 1), size - 1]
            self._table[np.ix_(places, places)] = old
        places = [*(self._classes[key] for key in keys), size - 1]
        self._table[np.ix_(places, places)] += confusion(truth, predicted, len(prompts))

    def _compare(
        self,
        prompts: Prompts,
        truth: Sequence[Segment],
        ignore: Mask | None,
        proposals: Sequence[Mask],
        selected: Sequence[Mask | None],
    ) -> None:
        counted = None if ignore is None else ~ignore
        if counted is not None:  # of what lies in them alone, nothing is known
            truth = [one for one in truth if (one.mask & counted).any()]
        names = {word.casefold(): number for number, words in enumerate(prompts) for word in words}
        owners = [names.get(one.name.casefold()) for one in truth]
        asked = [one.mask for one, owner in zip(truth, owners, strict=True) if owner is not None]
        self._best += best_ious(asked, proposals, counted)
        self._proposals.append(len(proposals))
        self.images += 1
        for number, mask in enumerate(selected):
            own = [one.mask for one, owner in zip(truth, owners, strict=True) if owner == number]
            others = [one.mask for one, owner in zip(truth, owners, strict=True) if owner != number]
            if not own:
                continue
            self._selected.append(0.0 if mask is None else max(iou(mask, one, counted) for one in own))
            if others:
                self._other.append(0.0 if mask is None else float(np.mean([iou(mask, one, counted) for one in others])))

    def report(self, rule: Rule) -> dict[str, Any]:
        """The scores of all images together."""
        ious, _, _ = class_ious(self._table)
        counted = int(self._table[:-1].sum())
        return {
            "n_images": self.images,
            "n_classes": len(self._classes),
            "n_segments": len(self._best),
            "miou": mean_iou(self._table, rule),
            "miou_rule": rule,
            "pixel_accuracy": int(np.diag(self._table)[:-1].sum()) / counted if counted else None,
            "proposal_recall": _mean(self._best),
            "recall_50": _mean([float(one >= 0.5) for one in self._best]),
            "n_proposals": _mean(self._proposals),
            "selected_iou": _mean(self._selected),
            "other_iou": _mean(self._other),
            "class_iou": dict(zip(self._names, ious, strict=True)),
        }


def _decoded(rle: Any, row: Any) -> Mask:
    mask = decode({"size": rle.size, "counts": rle.counts})
    if mask.shape != (row.height, row.width):
        raise RowError(f"a mask of {mask.shape[0]} x {mask.shape[1]} pixels in an image of {row.height} x {row.width}")
    return mask


def _selected(row: Any, found: Sequence[Any], proposals: Sequence[Mask], classes: int) -> list[Mask | None]:
    """The mask selected for each prompt: of `selected`, or the segment that scores best."""
    if row.proposals is not None and row.selected is not None:
        if len(row.selected) != classes or any(one >= len(proposals) for one in row.selected):
            raise RowError("`selected` does not fit `prompts` and `proposals`")
        return [proposals[one] for one in row.selected]
    best: list[Mask | None] = [None] * classes
    for number, _, mask in sorted(found, key=lambda one: one[1]):
        best[number] = mask
    return best


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None
