"""Tables of DL3DV's labels: CSV with a column `hash`, and its lists of scenes, in all the spellings there are.

What a label is about is told by its value, wherever it stands: DL3DV's tables name their columns in different ways.

    environment     indoor, outdoor            bd, bounded | unbd, unbounded
    reflection      more, medium, less, none   abs | somehow reflection, somehow | abs nonreflection
    transparency    the same                   abs | somehow transparent, somehow | abs nontransparent
    light           natural, artificial, mixed nlight | hlight, alight | mlight
    frequency       high_freq, low_freq

`more_ref`, `less_ref`, `more_transp` and `less_transp` stand for two levels each. Other columns, and values that are no
level, keep their names and texts: batch, duration, primary_poi, ...
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from toolroll.errors import ToolrollError, UsageError
from toolroll.io.filesystem import read_text

KEYS = ("environment", "frequency", "reflection", "transparency", "light")
_UNKNOWN = ("", "nan", "none", "null", "n/a", "unknown")
_NAMES = ("hash", "scene", "scene_id", "id", "name")  #: of the column that names scenes
_SHORT = {"reflection": "ref", "transparency": "transp"}
_LEVELS = {"abs {}": "more", "somehow {}": "medium", "somehow non{}": "less", "abs non{}": "none"}
_VALUES: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("bd", "bounded", "indoor"), ("environment", "indoor")),
    **dict.fromkeys(("unbd", "unbounded", "outdoor"), ("environment", "outdoor")),
    **dict.fromkeys(("nlight", "natural light"), ("light", "natural")),
    **dict.fromkeys(("hlight", "alight", "artificial light"), ("light", "artificial")),
    **dict.fromkeys(("mlight", "mixed light"), ("light", "mixed")),
    **{f"{level} freq": ("frequency", f"{level}_freq") for level in ("high", "low")},
    **{form.format("reflection"): ("reflection", level) for form, level in _LEVELS.items()},
    **{form.format("transparent"): ("transparency", level) for form, level in _LEVELS.items()},
    **{f"{level} {short}": (key, f"{level}_{short}") for key, short in _SHORT.items() for level in ("more", "less")},
}
_LEVEL_NAMES: dict[str, tuple[str, ...]] = {
    "environment": ("indoor", "outdoor"),
    "frequency": ("high_freq", "low_freq"),
    **{key: ("more", "medium", "less", "none", f"more_{short}", f"less_{short}") for key, short in _SHORT.items()},
    "light": ("natural", "artificial", "mixed"),
}


@dataclass(frozen=True, slots=True)
class Labels:
    """What a table says of a scene: levels by `KEYS`, as far as they are known, and texts by their columns."""

    levels: Mapping[str, str]
    texts: Mapping[str, str]

    def groups(self) -> dict[str, str]:
        """The groups of the benchmark: with reflection and transparency in two.

        >>> Labels({"environment": "indoor", "reflection": "medium"}, {}).groups()
        {'environment': 'indoor', 'reflection': 'more_ref'}
        """
        return {key: _merged(key, level) for key, level in self.levels.items()}

    def says(self, key: str, value: str) -> bool:
        """Whether a label has a value: a level, a group, a spelling of DL3DV's, or a text."""
        wanted = _level(key, value)
        if wanted is not None:
            level = self.levels.get(key, "")
            return wanted in (level, _merged(key, level))
        return _plain(self.texts.get(key, "")) == _plain(value)


def _level(key: str, text: str) -> str | None:
    """The level that a text means in a column of `KEYS`; None for others.

    >>> _level("frequency", "High"), _level("reflection", "bd"), _level("light", "none")
    ('high_freq', None, None)
    """
    plain = _plain(text)
    about, level = _VALUES.get(plain, (key, plain.replace(" ", "_")))
    level = f"{level}_freq" if key == "frequency" and level in ("high", "low") else level
    return level if about == key and level in _LEVEL_NAMES.get(key, ()) else None


def _merged(key: str, level: str) -> str:
    short = _SHORT.get(key)
    if short is None or not level or level.endswith(short):
        return level
    return f"{'more' if level in ('more', 'medium') else 'less'}_{short}"


def _plain(text: str) -> str:
    """Lower case; spaces, hyphens and underscores are one.

    >>> _plain(" Somehow-nonreflection")
    'somehow nonreflection'
    """
    return " ".join(re.split(r"[\s_-]+", text.strip().lower())).strip()


def read_labels(path: Path) -> dict[str, Labels]:
    """The labels of scenes by their names, which are lower case, without folders. Rows of one scene are joined.

    Fields may be missing, empty or nan, which says nothing. ToolrollError for a file that is no such table.
    """
    text = read_text(path)
    head = text.lstrip().partition("\n")[0]
    separator = max(",;\t", key=head.count)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        rows = [row for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise ToolrollError(f"not a table: {error}", place=str(path)) from error
    columns = [_plain(name).replace(" ", "_") for name in rows[0]] if rows else []
    named = next((columns.index(name) for name in _NAMES if name in columns), None)
    if named is None:
        raise ToolrollError(f"no column named {' or '.join(_NAMES)}", place=str(path))
    found: dict[str, Labels] = {}
    for row in rows[1:]:
        name = scene_name(row[named]) if named < len(row) else ""
        if name:
            cells = [pair for i, pair in enumerate(zip(columns, row, strict=False)) if i != named]
            own, before = _labels(cells), found.get(name, Labels({}, {}))
            found[name] = Labels({**own.levels, **before.levels}, {**own.texts, **before.texts})
    return found


def _labels(cells: Sequence[tuple[str, str]]) -> Labels:
    """What the cells of a row say, by the names of their columns, which may be of several, or empty."""
    levels: dict[str, str] = {}
    texts: dict[str, str] = {}
    for column, cell in cells:
        plain = _plain(cell)
        key = _VALUES.get(plain, (column, ""))[0]
        level = _level(key, cell)
        if level is not None:
            levels.setdefault(key, level)
        elif plain not in _UNKNOWN:
            texts.setdefault(column, cell.strip())
    return Labels(levels, texts)


def scene_name(path: str | Path) -> str:
    """What tables call the scene of a folder: its name, or of the folder around nerfstudio and gaussian_splat.

    >>> scene_name("3K/0A1B/"), scene_name("0a1b/nerfstudio"), scene_name("scenes/0a1b/transforms.json")
    ('0a1b', '0a1b', '0a1b')
    >>> scene_name("0a1b/gaussian_splat/sparse/0"), scene_name("0a1b/colmap/sparse"), scene_name("sparse")
    ('0a1b', '0a1b', 'sparse')
    """
    parts = [part for part in str(path).strip().split("/") if part not in ("", ".")]
    for model in (["colmap", "sparse", "0"], ["colmap", "sparse"], ["sparse", "0"], ["sparse"]):
        if len(parts) > len(model) and parts[-len(model) :] == model:
            del parts[-len(model) :]
    while len(parts) > 1 and (parts[-1] in ("nerfstudio", "gaussian_splat") or parts[-1].endswith(".json")):
        parts.pop()
    return parts[-1].lower() if parts else ""


def read_where(conditions: Sequence[str]) -> list[tuple[str, str]]:
    """Conditions KEY=VALUE. UsageError for others.

    >>> read_where(["environment=outdoor", "Primary POI=Parks"])
    [('environment', 'outdoor'), ('primary_poi', 'Parks')]
    """
    found = []
    for condition in conditions:
        key, equal, value = condition.partition("=")
        if not (equal and key.strip() and value.strip()):
            raise UsageError("want KEY=VALUE", place=condition)
        found.append((_plain(key).replace(" ", "_"), value.strip()))
    return found


def check_where(conditions: Sequence[tuple[str, str]], table: Mapping[str, Labels]) -> None:
    """UsageError for a condition that no scene of any table, or none of this one, could fulfil for its spelling."""
    columns = {column for labels in table.values() for column in labels.texts}
    for key, value in conditions:
        place = f"--where {key}={value}"
        if key not in (*KEYS, *columns):
            raise UsageError(f"there are {', '.join([*KEYS, *sorted(columns)])}", place=place)
        if key in KEYS and _level(key, value) is None and key not in columns:
            raise UsageError(f"is none of {', '.join(_LEVEL_NAMES[key])}", place=place)


def fits(labels: Labels | None, conditions: Sequence[tuple[str, str]]) -> bool:
    """Whether a scene fulfils all conditions. One of a key asked for twice is enough; one without labels never does."""
    wanted: dict[str, list[str]] = {}
    for key, value in conditions:
        wanted.setdefault(key, []).append(value)
    if labels is None:
        return not wanted
    return all(any(labels.says(key, value) for value in values) for key, values in wanted.items())
