"""Which photos are trained on and which are tested: a rule for the photos of a scene, sorted by name.

every:N         each Nth is tested, from the first on; 8 is the benchmarks' rule
fraction:F      the share F is trained on, evenly spread with both ends, as in nerfstudio
file:FILE       JSON with lists `train`, `val`, `test`, or a text with a name to test in each line
own             what the scene says
auto            own, if the scene says so, else every:8
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from toolroll.errors import ToolrollError, UsageError
from toolroll.io.filesystem import put, read_text
from toolroll.splat.entries import bare, name_of, shown
from toolroll.splat.scene import Part, Shot

PARTS: tuple[Part, ...] = ("train", "val", "test")
EVERY = 8
OWN_FILES = ("split.json", "test.txt")


def rule_of(shots: Iterable[Shot], rule: str) -> str:
    """The rule that `rule` stands for where it is auto; any other as it is."""
    if rule != "auto":
        return rule
    return "own" if any(shot.part in PARTS for shot in shots) else f"every:{EVERY}"


def part_shots(shots: Sequence[Shot], rule: str = "auto") -> tuple[list[Shot], list[str]]:
    """Shots, sorted by name, with their parts, and warnings. Those that a list leaves out have part None.

    Of a scene with one photo it is trained on. UsageError for a rule that is none; ToolrollError for a file that is not
    sound, or where nothing would be left to train on.
    """
    rule = rule_of(shots, rule)
    kind, _, value = rule.partition(":")
    shots = sorted(shots, key=lambda shot: shot.name)
    if kind == "own" and not value:
        if all(shot.part is None for shot in shots):
            raise ToolrollError("the scene has no split of its own")
        return _checked(shots, [])
    if kind == "file" and value:
        return _checked(*_by_lists(shots, read_lists(Path(value)), value))
    return _checked(_by_rule(shots, kind, value, rule), [])


def _checked(shots: list[Shot], warnings: list[str]) -> tuple[list[Shot], list[str]]:
    if not any(shot.part == "train" for shot in shots):
        raise ToolrollError("no photo is left to train on")
    if not any(shot.part == "test" for shot in shots):
        warnings = [*warnings, "no photo is left to test"]
    return shots, warnings


def _by_rule(shots: Sequence[Shot], kind: str, value: str, rule: str) -> list[Shot]:
    count = len(shots)
    if kind == "every" and value.isdecimal() and int(value) > 1:
        tested = set(range(0, count, int(value)))
    elif kind == "fraction" and (share := _share(value)) is not None:
        trained = np.linspace(0, count - 1, math.ceil(count * share), dtype=int).tolist()
        tested = set(range(count)) - set(trained)
    else:
        raise UsageError("is none of every:N (N from 2), fraction:F (0 < F < 1), file:FILE, own, auto", place=rule)
    if count == 1:
        tested = set()
    return [replace(shot, part="test" if number in tested else "train") for number, shot in enumerate(shots)]


def _share(value: str) -> float | None:
    try:
        share = float(value)
    except ValueError:
        return None
    return share if 0 < share < 1 else None


def read_lists(path: Path) -> dict[Part, list[str]]:
    """The lists of a file, by part. Pickles and the like are not read: ToolrollError, as for any unsound file."""
    text = read_text(path)
    if not text.lstrip().startswith(("{", "[")):
        return {"test": [line.strip() for line in text.split("\n") if line.strip() and not line.startswith("#")]}
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ToolrollError(f"not JSON: {error}", place=str(path)) from error
    if isinstance(data, list):
        data = {"test": data}
    lists: dict[Part, list[str]] = {}
    for part in PARTS:
        names = data.get(part, data.get(f"{part}_filenames"))
        if names is not None:
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ToolrollError(f"`{part}` is not a list of names", place=str(path))
            lists[part] = names
    if not lists:
        raise ToolrollError("no list named train, val or test", place=str(path))
    return lists


def _by_lists(shots: Sequence[Shot], lists: Mapping[Part, Sequence[str]], place: str) -> tuple[list[Shot], list[str]]:
    known = matched([shot.name for shot in shots], lists)
    if not known:
        raise ToolrollError("none of its names is one of a photo", place=place)
    rest: Part | None = None if "train" in lists else "train"
    there = {known_as for shot in shots for known_as in (shot.name, bare(shot.name))}
    names = [name for part in lists.values() for name in part]
    missing = [shown(name) for name in names if there.isdisjoint((name_of(name), bare(name_of(name))))]
    warnings = [f"{len(missing)} names of {place} are of no photo: {', '.join(missing[:3])}"] if missing else []
    twice = [name for name, count in Counter(n for part in lists.values() for n in set(part)).items() if count > 1]
    if twice:
        warnings.append(f"{len(twice)} names of {place} are in two lists, of which the last counts: {shown(twice[0])}")
    return [replace(shot, part=known.get(shot.name, rest)) for shot in shots], warnings


def matched(names: Iterable[str], lists: Mapping[Part, Sequence[str]]) -> dict[str, Part]:
    """The parts of photos by their names. Lists may name them with their folder, and without their suffix."""
    listed: dict[str, Part] = {}
    for part, entries in lists.items():
        listed |= {name_of(entry): part for entry in entries}
    stems = {bare(name): part for name, part in listed.items()}
    pairs = ((name, bare(name)) for name in names)
    found = {name: listed.get(name) or listed.get(stem) or stems.get(stem) for name, stem in pairs}
    return {name: part for name, part in found.items() if part is not None}


def own_parts(root: Path, model: Path, names: Sequence[str]) -> dict[str, Part]:
    """The parts that a scene of COLMAP's has of its own: of split.json, or of test.txt beside the model."""
    file = next((one for one in (root / OWN_FILES[0], model / OWN_FILES[1]) if one.is_file()), None)
    if file is None:
        return {}
    lists = read_lists(file)
    found = matched(names, lists)
    return found if "train" in lists else {name: found.get(name, "train") for name in names}


def write_lists(path: Path, shots: Sequence[Shot]) -> None:
    """Write the parts of shots as `read_lists` reads them."""
    lists = {part: [shot.name for shot in shots if shot.part == part] for part in PARTS}
    put(path, json.dumps(lists, indent=1).encode() + b"\n")
