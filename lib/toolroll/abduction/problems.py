"""Problems and sample spaces, as files have them.

A problem is a few observations, pairs of input and output; both are kept as compact JSON texts, as which they go into
the sandbox and come out of it. A sample space is a file of inputs without outputs, one JSON value a line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from toolroll.errors import RowError, Stopped, ToolrollError, UsageError
from toolroll.io.decoding import is_error_row, read_error
from toolroll.io.inputs import Reader
from toolroll.run.signals import StopFlag

__all__ = ["Pair", "Problem", "Problems", "Space", "Spaces", "compact", "json_lines"]

Pair = tuple[bytes, bytes]  #: an input and its output, each a compact JSON text
Key = tuple[str, int | None]


class _Named(msgspec.Struct, gc=False):
    """A pair as raw files have it. One whose output is not known has none."""

    input: msgspec.Raw
    output: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_Pairs = list[tuple[msgspec.Raw, msgspec.Raw] | _Named] | None


class _Row(msgspec.Struct, gc=False):
    id: str | int | None = None
    dataset: str | None = None
    n_obs: int | None = None
    observations: _Pairs = None
    train: _Pairs = None
    test: _Pairs = None


_decode = msgspec.json.Decoder(_Row).decode


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem. `test` are pairs that were held back, if there are any."""

    dataset: str | None
    observations: tuple[Pair, ...]
    test: tuple[Pair, ...] = ()

    @classmethod
    def of(cls, line: bytes) -> Problem:
        """The problem in a row with `observations`, or else `train`, as [input, output] or {"input", "output"}.

        Raises RowError, or msgspec.MsgspecError for a row of another form.

        >>> Problem.of(b'{"observations": [[[1, 2], "a"]]}').observations
        ((b'[1,2]', b'"a"'),)
        """
        row = _decode(line)
        name = "train" if row.observations is None else "observations"
        given = row.train if row.observations is None else row.observations
        if given is None:
            raise RowError("no `observations` and no `train`")
        if not given:
            raise RowError(f"`{name}` is empty")
        observations, test = _known(given), _known(row.test or [])
        if len(observations) < len(given):
            raise RowError(f"`{name}` has an input without an output")
        return cls(row.dataset, observations, test if len(test) == len(row.test or []) else ())


def _known(pairs: Sequence[tuple[msgspec.Raw, msgspec.Raw] | _Named]) -> tuple[Pair, ...]:
    """The pairs whose output is known."""
    found = (pair if isinstance(pair, tuple) else (pair.input, pair.output) for pair in pairs)
    return tuple((compact(given), compact(out)) for given, out in found if not isinstance(out, msgspec.UnsetType))


def compact(text: Any) -> bytes:
    r"""A JSON text without spaces, every value written in one way.

    >>> compact(b'[1, 2.50, "\\u00e9"]').decode()
    '[1,2.5,"é"]'
    """
    return msgspec.json.encode(msgspec.json.decode(text))


def json_lines(path: str, stop: StopFlag | None = None) -> Iterator[tuple[str, bytes]]:
    """(place, line) of each line of a file that is not blank; `path` may be compressed."""
    if path == "-":
        raise UsageError("stdin is for the rows; name a file", place="-")
    stop = stop or StopFlag()
    reader = Reader((path,), stop=stop, before_wait=lambda: None)
    try:
        for name, number, line in reader.lines():
            if line := line.strip():
                yield f"{name}:{number}", line
    finally:
        reader.close()
    if stop:
        raise Stopped(f"stopped by {stop.asked_by}")


@dataclass
class Problems:
    """The problems of some files by id, held as the lines they came in. Without files, rows bring their own."""

    lines: dict[Key, bytes] = field(default_factory=dict)
    variants: dict[str, list[int | None]] = field(default_factory=dict)
    given: bool = False

    @classmethod
    def read(cls, paths: Sequence[str], stop: StopFlag | None = None) -> Problems:
        """The problems in files. Raises ToolrollError for a row that is none, and for a second one of its name."""
        problems = cls(given=bool(paths))
        for path in paths:
            for place, line in json_lines(path, stop):
                problems._take(place, line)
        return problems

    def _take(self, place: str, line: bytes) -> None:
        if is_error_row(line):
            return
        try:
            line.decode()
            row = _decode(line)
            Problem.of(line)
            if row.id is None:
                raise RowError("no `id`")
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise ToolrollError(read_error(line, error), place=place) from error
        except RowError as error:
            raise ToolrollError(error.why, place=place) from error
        key = (str(row.id), row.n_obs)
        if key in self.lines:
            which = f" with n_obs {row.n_obs}" if row.n_obs is not None else ""
            raise ToolrollError(f"a second problem {row.id!r}{which}", place=place)
        self.lines[key] = line
        self.variants.setdefault(key[0], []).append(row.n_obs)

    def of(self, line: bytes, name: str | int, n_obs: int | None) -> Problem:
        """The problem a row is about: that of its id, and of its `n_obs` where an id has several; or its own.

        line: the row. Raises RowError for a row about no known problem.
        """
        if not self.given:
            try:
                return Problem.of(line)
            except RowError as error:
                raise RowError(f"{error.why} (name the problems with --problems)") from error
            except msgspec.MsgspecError as error:
                raise RowError(read_error(line, error)) from error
        known = self.variants.get(str(name))
        if known is None:
            raise RowError(f"no problem has the id {name!r}")
        if n_obs is None and len(known) == 1:
            n_obs = known[0]
        if n_obs not in known and known != [None]:
            choice = ", ".join(map(str, known))
            has = "no `n_obs`" if n_obs is None else f"n_obs {n_obs}"
            raise RowError(f"problem {name!r} is there with n_obs {choice}, the row has {has}")
        return Problem.of(self.lines[str(name), n_obs if n_obs in known else None])


@dataclass(frozen=True, slots=True)
class Space:
    """A sample space: inputs, each once, as compact JSON texts."""

    name: str
    inputs: tuple[bytes, ...]

    @classmethod
    def read(cls, path: str, warn: Callable[[str, str], None], stop: StopFlag | None = None) -> Space:
        """The inputs in a file. One that comes again is left out, and told through `warn`.

        Raises ToolrollError for a line that is not JSON, and for a file without inputs.
        """
        inputs: dict[bytes, None] = {}
        count = 0
        for place, line in json_lines(path, stop):
            try:
                line.decode()
                inputs[compact(line)] = None
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
                raise ToolrollError(read_error(line, error).partition(";")[0], place=place) from error
            count += 1
        if not inputs:
            raise ToolrollError("no inputs", place=path)
        if count > len(inputs):
            warn(f"{count - len(inputs)} of {count} inputs came before and count once", path)
        return cls(path, tuple(inputs))


@dataclass
class Spaces:
    """The sample spaces of a run: one for all data sets, or one for each."""

    by_dataset: dict[str | None, Space]

    @classmethod
    def read(cls, texts: Sequence[str], warn: Callable[[str, str], None], stop: StopFlag | None = None) -> Spaces:
        """The spaces of `FILE` and `DATASET=FILE` texts."""
        spaces: dict[str | None, Space] = {}
        for text in texts:
            name, sign, path = text.partition("=")
            dataset = name if sign and "/" not in name and not Path(text).exists() else None
            if dataset in spaces:
                what = "for all data sets" if dataset is None else f"for {dataset}"
                raise UsageError(f"a second space {what}", place="--space")
            spaces[dataset] = Space.read(text if dataset is None else path, warn, stop)
        return cls(spaces)

    def of(self, dataset: str | None) -> Space:
        """The space of a data set. Raises RowError where there is none."""
        found = self.by_dataset.get(dataset) or self.by_dataset.get(None)
        if found is None:
            has = "no `dataset`" if dataset is None else f"dataset {dataset!r}"
            known = ", ".join(sorted(filter(None, self.by_dataset)))
            raise RowError(f"there is no space for a row with {has}, only for {known}")
        return found
