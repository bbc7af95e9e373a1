"""What users give to make pairs from, out of files of several kinds: scenes, tables, photos.

Everything comes as a row with its data: where no pair can be made of it, the row fails as rows do.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import orjson

from toolroll.errors import RowError, ToolrollError
from toolroll.io.decoding import read_error
from toolroll.io.filesystem import reason
from toolroll.io.lines import strip_bom
from toolroll.io.rows import Row, clean
from toolroll.run.log import Counts
from toolroll.world.images import SUFFIXES
from toolroll.world.tables import table_of, table_of_csv

Item = tuple[Row[Any], Any]  #: a row, and what is drawn: a scene's JSON, a Table, or a photo's row


def items(
    kind: str, paths: Sequence[str], rows: Iterable[Row[Any]], counted: Counts, chart: str | None = None
) -> Iterator[Item]:
    """The sources in files, in order; `rows` are those of "-". `chart` is the kind of chart of tables without one.

    A row whose data cannot be read at all comes back failed, with None. `counted` gets those that are read here.
    """
    index = 0
    for path in paths:
        for row in rows if path == "-" else _rows_of(kind, path):
            counted.read += path != "-"
            row.index = index
            index += 1
            try:
                yield row, _data_of(kind, row, chart)
            except RowError as error:
                yield row.fail(error.why), None


def _data_of(kind: str, row: Row[Any], chart: str | None) -> Any:
    data = row.fields()
    if isinstance(data.get("error"), dict) and set(data) <= {"raw", "error"}:
        raise RowError(str(data["error"].get("why")))
    if kind == "charts":
        if isinstance(data.get("csv"), str):
            return table_of_csv(_text(data["csv"]), Path(data["csv"]).stem.replace("_", " "), chart)
        return table_of(data, chart)
    if kind == "photos":
        for name, wanted in (("image", str), ("mask", str), ("bbox", list)):
            if data.get(name) is not None and not isinstance(data[name], wanted):
                raise RowError(f"{name} is no {'path' if wanted is str else 'list'}")
        if data.get("image") is None:
            raise RowError("no photo: it has no `image`")
    return data


def _rows_of(kind: str, path: str) -> Iterator[Row[Any]]:
    suffix = Path(path).suffix.lower()
    if kind == "charts" and suffix in (".csv", ".tsv"):
        yield _row({"csv": path}, path, 1)
    elif kind == "photos" and suffix in SUFFIXES:
        yield _row({"image": path}, path, 1)
    elif suffix == ".json":
        yield from _rows_of_json(kind, path)
    elif suffix in (".jsonl", ".ndjson"):
        yield from _rows_of_lines(path)
    else:
        raise ToolrollError(f"want {_WANTED[kind]}, .json or .jsonl", place=path)


_WANTED = {"scenes": "CLEVR scenes", "charts": ".csv", "photos": f"an image ({', '.join(SUFFIXES)})"}


def _rows_of_json(kind: str, path: str) -> Iterator[Row[Any]]:
    """The rows of one JSON value: an array, an object with an array `scenes` or `tables`, or one row."""
    try:
        data = msgspec.json.decode(strip_bom(_bytes(path)))
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ToolrollError(f"not JSON: {error}", place=path) from error
    if isinstance(data, dict):
        data = data.get("tables" if kind == "charts" else kind, data)
    for number, part in enumerate(data if isinstance(data, list) else [data], 1):
        yield _row(part, path, number)


def _rows_of_lines(path: str) -> Iterator[Row[Any]]:
    for number, line in enumerate(strip_bom(_bytes(path)).splitlines(), 1):
        if not line.strip():
            continue
        try:
            line.decode()
            data = msgspec.json.decode(line)
            yield _row(data, path, number) if not isinstance(data, dict) else Row(line.strip(), None, 0, path, number)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            why = read_error(line.strip(), error)
            yield _row({"raw": line.decode(errors="backslashreplace"), "error": {"why": why}}, path, number)


def _row(data: Any, path: str, number: int) -> Row[Any]:
    if not isinstance(data, dict):
        data = {"raw": clean(str(data)[:200]), "error": {"why": f"not an object: {type(data).__name__}"}}
    return Row(orjson.dumps(data), None, 0, path, number)


def _bytes(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ToolrollError(reason(error), place=path) from error


def _text(path: str) -> str:
    try:
        return strip_bom(_bytes(path)).decode()
    except UnicodeDecodeError as error:
        raise RowError(f"bad CSV: not UTF-8 at byte {error.start}") from error
