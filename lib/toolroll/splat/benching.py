"""A benchmark: scores of methods over scenes, all of them and those of a label, as DL3DV-10K has it (section 4.1).

A scene's score is the mean over its test images, a group's the mean over its scenes, each counting once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import stdev
from typing import Any

from toolroll.errors import RowError, ToolrollError, UsageError

Row = dict[str, Any]
Values = tuple[float | None, ...]
METRICS = ("psnr_db", "ssim", "lpips")
KINDS = ("lpips-alex", "lpips-vgg", "lpips-vgg-3dgs")
BREAKDOWNS = {
    "environment": ("indoor", "outdoor"),
    "frequency": ("high_freq", "low_freq"),
    "reflection": ("more_ref", "less_ref"),
    "transparency": ("more_transp", "less_transp"),
}  #: in the paper's order
GROUPS = [("all", "all"), *((key, group) for key, groups in BREAKDOWNS.items() for group in groups)]
UNKNOWN = "not stated"

#: arXiv:2312.16256, Table 3: PSNR, SSIM, LPIPS over the 140 scenes of DL3DV-140, photos of 960 x 540
PAPER: dict[str, tuple[float, float, float]] = {
    "Instant-NGP": (25.01, 0.834, 0.228),
    "Nerfacto": (24.61, 0.848, 0.211),
    "Mip-NeRF 360": (30.98, 0.911, 0.132),
    "3DGS": (29.82, 0.919, 0.120),
    "Zip-NeRF*": (29.07, 0.878, 0.169),
    "Zip-NeRF": (31.22, 0.921, 0.112),
}
#: its Figure 4B: PSNR of the groups, in the order of GROUPS without the first
PAPER_GROUPS = {
    "Instant-NGP": (25.1, 23.7, 24.2, 25.4, 24.6, 24.6, 24.5, 24.7),
    "Nerfacto": (25.5, 24.4, 24.8, 25.7, 25.1, 25.2, 25.0, 25.3),
    "Mip-NeRF 360": (31.7, 29.4, 30.1, 32.7, 30.7, 31.3, 30.6, 31.4),
    "3DGS": (30.6, 28.1, 29.2, 31.1, 29.8, 29.9, 29.5, 30.2),
    "Zip-NeRF": (31.8, 30.0, 30.7, 32.2, 31.0, 31.4, 30.8, 31.6),
}
PAPER_SCENES = 140


@dataclass
class SceneScores:
    """The scores of a method's pictures of a scene, by image; or their means, of `count` images, under None."""

    images: dict[str | None, Values] = field(default_factory=dict)
    count: int = 0

    def mean(self, column: int) -> float | None:
        """The mean of a column; None where an image has no such score."""
        return mean(values[column] for values in self.images.values())


def mean(values: Iterable[float | None]) -> float | None:
    """The mean; None of nothing, or where one is None.

    >>> mean([1.0, 2.0]), mean([1.0, None]), mean([])
    (1.5, None, None)
    """
    known = list(values)
    return None if not known or None in known else math.fsum(value for value in known if value is not None) / len(known)


class Bench:
    """Scores by method and scene, all by the same rules."""

    def __init__(self) -> None:
        self.scores: dict[str, dict[str, SceneScores]] = {}
        self.frequencies: dict[str, float] = {}
        self.folders: dict[str, str] = {}
        self.sizes: dict[str, tuple[int, int]] = {}
        self.rules: tuple[str, bool] | None = None  #: border of SSIM, whether rounded to 8 bits

    def add(self, seen: Any) -> None:
        """Take a row of nvs-eval, as its view.

        RowError for one without a PSNR or an image, or whose image was there before; ToolrollError for one that was
        scored by other rules than those before.
        """
        if seen.psnr_db is None:
            raise RowError("no `psnr_db`")
        if seen.image is None and not seen.n_images:
            raise RowError("neither `image` nor `n_images`" if seen.n_images is None else "`n_images` is 0")
        self._check(seen.ssim_border, seen.eight_bit)
        scene = self.scores.setdefault(seen.method, {}).setdefault(seen.scene, SceneScores())
        if scene.images and (seen.image in scene.images or None in scene.images or seen.image is None):
            raise RowError(f"{seen.method} has a score of {seen.image or 'all images'} of {seen.scene} before")
        scene.images[seen.image] = (seen.psnr_db, seen.ssim, seen.lpips_alex, seen.lpips_vgg, seen.lpips_vgg_3dgs)
        scene.count += 1 if seen.image is not None else seen.n_images
        if seen.frequency is not None:
            self.frequencies.setdefault(seen.scene, seen.frequency)
        if seen.images_folder is not None:
            self.folders.setdefault(seen.scene, seen.images_folder)
        if seen.width and seen.height:
            self.sizes.setdefault(seen.scene, (seen.width, seen.height))

    def _check(self, border: str, eight_bit: bool) -> None:
        if self.rules is None:
            self.rules = border, eight_bit
        if border != self.rules[0]:
            raise ToolrollError(f"SSIM with border {border}, and with {self.rules[0]} before: not one benchmark")
        if eight_bit != self.rules[1]:
            raise ToolrollError("some pictures are rounded to 8 bits, and some are not: not one benchmark")

    def scenes(self) -> list[str]:
        """All scenes, in the order they came."""
        return list(dict.fromkeys(scene for scenes in self.scores.values() for scene in scenes))

    def keep_common(self) -> None:
        """Leave out scenes that not all methods have. ToolrollError where none is left."""
        shared = set(self.scenes()).intersection(*self.scores.values())
        if not shared:
            raise ToolrollError("no scene has scores of all methods", place="--common")
        for scenes in self.scores.values():
            for scene in [scene for scene in scenes if scene not in shared]:
                del scenes[scene]

    def kind(self, wanted: str | None) -> str | None:
        """Which LPIPS to tell: the wanted one, or the one there is. UsageError where that is not clear."""
        there = [
            kind
            for column, kind in enumerate(KINDS, 2)
            if any(
                values[column] is not None
                for scenes in self.scores.values()
                for scene in scenes.values()
                for values in scene.images.values()
            )
        ]
        if wanted is None and len(there) > 1:
            raise UsageError(f"there are {' and '.join(there)}: choose one", place="--lpips")
        if wanted is not None and wanted not in there:
            raise UsageError(f"no row has {wanted}", place="--lpips")
        return wanted or (there[0] if there else None)

    def differences(self, kind: str | None) -> Iterator[str]:
        """What makes methods or scenes hard to compare, in words."""
        everything = self.scenes()
        for method, scenes in self.scores.items():
            lacking = [scene for scene in everything if scene not in scenes]
            if lacking:
                yield f"{method} has no scores of {_some(lacking)} (--common leaves out such scenes)"
        for scene in everything:
            counts = {method: scenes[scene].count for method, scenes in self.scores.items() if scene in scenes}
            if len(set(counts.values())) > 1:
                told = ", ".join(f"{method} {count}" for method, count in counts.items())
                yield f"{scene}: methods have different numbers of images ({told})"
        for column, name in ((1, "SSIM"), (2 + KINDS.index(kind), kind)) if kind else ((1, "SSIM"),):
            for method, scenes in self.scores.items():
                without = [scene for scene, scores in scenes.items() if scores.mean(column) is None]
                if without:
                    yield f"{method} has no {name} of some images of {_some(without)}, so that means are null"

    def rows(self, groups: Mapping[str, Mapping[str, str]], kind: str | None) -> Iterator[Row]:
        """Rows for each method: all scenes, then those of each group that has some.

        groups: of scenes, by breakdown: {"garden": {"environment": "outdoor"}}.
        """
        columns = (0, 1, None if kind is None else 2 + KINDS.index(kind))
        assert self.rules is not None
        rules = {"lpips_kind": kind, "ssim_border": self.rules[0], "eight_bit": self.rules[1], "source": "scores"}
        for method, scenes in self.scores.items():
            for breakdown, group in GROUPS:
                chosen = [s for name, s in scenes.items() if group in ("all", groups.get(name, {}).get(breakdown))]
                if chosen:
                    row: Row = {"method": method, "breakdown": breakdown, "group": group, "n_scenes": len(chosen)}
                    row["n_images"] = sum(scene.count for scene in chosen)
                    for name, column in zip(METRICS, columns, strict=True):
                        means = [None if column is None else scene.mean(column) for scene in chosen]
                        row[name] = mean(means)
                        row[f"{name}_std"] = _spread(means)
                    yield {**row, **rules}


def _spread(means: Sequence[float | None]) -> float | None:
    known = [value for value in means if value is not None]
    return stdev(known) if len(known) == len(means) > 1 else None


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def paper_rows() -> Iterator[Row]:
    """What the paper has: Table 3, and PSNR by group read off Figure 4. It has no standard deviations as numbers."""
    rules = {"lpips_kind": UNKNOWN, "ssim_border": UNKNOWN, "eight_bit": None, "source": "paper"}
    for method, table in PAPER.items():
        for number, (breakdown, group) in enumerate(GROUPS):
            if number and method not in PAPER_GROUPS:
                continue
            values = (PAPER_GROUPS[method][number - 1], None, None) if number else table
            row: Row = {"method": f"{method} (paper)", "breakdown": breakdown, "group": group}
            row |= {"n_scenes": PAPER_SCENES if not number else None, "n_images": None}
            for name, value in zip(METRICS, values, strict=True):
                row |= {name: value, f"{name}_std": None}
            yield {**row, **rules}
