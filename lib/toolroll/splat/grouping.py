"""What the scenes of a benchmark are like: by labels, and by how much fine detail their photos have."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from toolroll.errors import ToolrollError, UsageError
from toolroll.splat.benching import BREAKDOWNS, Bench
from toolroll.splat.labels import Labels, scene_name

Say = Callable[[str], None]
Split = float | Literal["median", "none"] | None  #: None: what the labels say, else the median


def read_split(text: str | None) -> Split:
    """How frequencies are told apart.

    >>> read_split("median"), read_split("2.6e-6"), read_split(None)
    ('median', 2.6e-06, None)
    """
    if text is None or text == "median" or text == "none":
        return text  # type: ignore[return-value]
    try:
        split = float(text)
    except ValueError:
        split = math.nan
    if not math.isfinite(split):
        raise UsageError("is none of median, a number and none", place="--freq-split")
    return split


def groups_of(
    bench: Bench, table: Mapping[str, Labels], split: Split, inform: Say, warn: Say
) -> dict[str, dict[str, str]]:
    """What each scene is like, by breakdown, as far as that is known."""
    scenes = bench.scenes()
    groups = {scene: dict(table[name].groups()) if (name := scene_name(scene)) in table else {} for scene in scenes}
    if table and not any(groups.values()):
        warn("the table of labels has none of the scenes")
    if split is not None or not any("frequency" in one for one in groups.values()):
        found = {} if split == "none" else frequencies(bench, split, inform, warn)
        for scene, one in groups.items():
            one.pop("frequency", None)
            one |= {"frequency": found[scene]} if scene in found else {}
    for key in BREAKDOWNS:
        without = sum(key not in one for one in groups.values())
        if 0 < without < len(scenes):
            warn(f"{key}: no label of {without} in {len(scenes)} scenes, which are left out")
    return groups


def frequencies(bench: Bench, split: Split, inform: Say, warn: Say) -> dict[str, str]:
    """high_freq or low_freq of scenes: of those whose rows tell the metric, or whose photos are there.

    Nothing of a single scene, unless `split` is a number.
    """
    from toolroll.splat.frequency import by_median, scene_frequency
    from toolroll.splat.pairing import photos_in

    scenes = bench.scenes()
    limit = split if isinstance(split, float) else None
    if len(scenes) < 2 and limit is None:
        return {}
    found = {scene: bench.frequencies[scene] for scene in scenes if scene in bench.frequencies}
    for scene in scenes:
        if scene in found or scene not in bench.folders:
            continue
        try:
            photos = photos_in(Path(bench.folders[scene]))
            if photos:
                inform(f"frequency of {scene}: reading its photos")
                found[scene] = scene_frequency(photos)
        except ToolrollError as error:
            warn(f"no frequency of {scene}: {error}")
    if len({bench.sizes[scene] for scene in found if scene in bench.sizes}) > 1:
        warn("photos have different sizes, so that their frequencies cannot be compared (--freq-split none)")
    return by_median(found, limit)
