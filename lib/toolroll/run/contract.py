"""What a command promises, what a run is asked to do, and how a row fails: light enough for `--help`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from toolroll.errors import RowError

if TYPE_CHECKING:
    from toolroll.io.rows import Row
    from toolroll.io.shard import Shard

V = TypeVar("V")


class OutputClosed(Exception):
    """Whoever read our output went away."""


@dataclass(frozen=True, slots=True)
class Contract:
    """What a command promises about its rows.

    `reads` is the view of an input row, `adds` the fields it adds with their types. `key` names the fields
    that identify an output row. A `reducer` gives a result about all rows rather than rows. A command
    that is `slow` hands on each row as it is made. One that `expands` makes several rows of one. `opens` says how
    files that are no JSON lines become such, by their suffix: see `toolroll.io.inputs.Reader`. One that makes a
    `document` yields the pieces of a text, each of whole lines, in place of records. One that `makes_file` has -o of
    its own for what it makes; its rows go to --report. A `source` that is `resumable` looks itself at what is done.
    """

    reads: type | None
    adds: Mapping[str, Any] = field(default_factory=dict)
    key: tuple[str, ...] = ("id", "sample")
    reducer: bool = False
    slow: bool = False
    expands: bool = False
    consumes: bool = False
    source: bool = False
    sees_errors: bool = False
    distributed: bool = False
    opens: Mapping[str, str] = field(default_factory=dict)
    document: bool = False
    makes_file: bool = False
    resumable: bool = False

    @property
    def passes_rows(self) -> bool:
        """Whether the rows it reads come out again."""
        return self.reads is not None and not (self.reducer or self.consumes or self.source)

    @property
    def resumes(self) -> bool:
        """Whether a run can go on with an unfinished output: whether there is --resume for it."""
        return self.reads is not None and not self.reducer and (self.resumable or not self.source)

    @property
    def writes(self) -> bool:
        """Whether the command gives rows, so that it has an output."""
        return self.reads is not None or self.source


@dataclass(frozen=True, slots=True)
class Settings:
    """The options of a run that every command has.

    `kept` are options of the command's own, with the files they name, that it writes beside its output. `given` are
    files that its options name and that it reads. `state` is a file that it goes on from and writes anew.
    """

    inputs: tuple[str, ...] = ()
    output: str | None = None
    errors: str | None = None
    resume: bool = False
    line_buffered: bool = False
    on_error: str = "stop"
    max_errors: int | None = None
    strict: bool = False
    shard: Shard | None = None
    group_by: tuple[str, ...] = ()
    table: bool = False
    kept: tuple[tuple[str, str], ...] = ()
    given: tuple[str, ...] = ()
    state: str | None = None


def each(rows: Iterable[Row[V]], function: Callable[[Row[V]], Row[V]]) -> Iterator[Row[V]]:
    """`function` of every row; where it raises RowError, that row fails and the run goes on."""
    for row in rows:
        try:
            yield function(row)
        except RowError as error:
            yield row.fail(error.why)
