"""What a sandboxed process says about its program: lines, which the parent believes no further than it can check.

The first line is `~status why`; then there is one line for each input in turn, `=` and the JSON text of the output or
`!` and a letter for why there is none. Once the program is loaded the process is the program's: it can write whatever
it likes into its own pipe, and so can make up its own outputs, which it could as well return. It cannot write into
another program's, and nothing but well-formed JSON of bounded size and depth gets past `Lines`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import get_args

import orjson

from toolroll.abduction.execution import Fault, Status

FAULTS: dict[bytes, Fault] = {
    b"e": "error",
    b"t": "timeout",
    b"m": "memory",
    b"j": "not_json",
    b"l": "too_large",
}
STATUSES: dict[bytes, Status] = {status.encode(): status for status in get_args(Status)}
MAX_DEPTH = 200  #: of lists and objects in one another; deeper is "not_json"
WHY_CHARS = 200
_PLAIN_BYTES = 4096  #: too short a text for a number that Python refuses to read
_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')


class ForgedError(Exception):
    """A line that the sandbox's own code does not write."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """The first line: whether there is a function to call."""

    status: Status
    why: str


Answer = bytes | Fault


class Lines:
    r"""Takes the bytes of one process as they come and gives back what its lines say.

    `forged` says what was wrong with the first line that the sandbox's own code does not write; nothing from there on
    is given back.

    >>> lines = Lines(output_bytes=100)
    >>> lines.feed(b"~ok \n=[1,2]\n!e\n=[")
    [Loaded(status='ok', why=''), b'[1,2]', 'error']
    >>> lines.feed(b"]\n=oops\n=1\n"), lines.forged
    ([b'[]'], 'an output that is not JSON')
    """

    def __init__(self, output_bytes: int) -> None:
        self.forged = ""
        self._output_bytes = output_bytes
        self._rest = b""
        self._loaded = False

    def feed(self, data: bytes) -> list[Loaded | Answer]:
        """The lines that these bytes complete."""
        said: list[Loaded | Answer] = []
        if self.forged:
            return said
        *lines, self._rest = (self._rest + data).split(b"\n")
        try:
            if lines and not self._loaded:
                said.append(self._first(lines.pop(0)))
            said.extend(answer(line, self._output_bytes) for line in lines)
            if len(self._rest) > max(self._output_bytes, 4 * WHY_CHARS) + 1:
                raise ForgedError("a line without end")
        except ForgedError as error:
            self.forged, self._rest = str(error), b""
        return said

    def _first(self, line: bytes) -> Loaded:
        status, _, why = line[1:].partition(b" ")
        if line[:1] != b"~" or status not in STATUSES:
            raise ForgedError("no status")
        self._loaded = True
        return Loaded(STATUSES[status], printable(why.decode("ascii", "replace")))


def answer(line: bytes, output_bytes: int) -> Answer:
    """What a line says of an input."""
    text = line[1:]
    if line[:1] == b"=":
        return checked(text, output_bytes)
    if line[:1] == b"!" and text in FAULTS:
        return FAULTS[text]
    raise ForgedError("a line that is no answer")


def printable(text: str) -> str:
    r"""One line of text for people, without anything a terminal would act on.

    >>> printable("a\x1b[31m\nb")
    'a [31m b'
    """
    return "".join(char if char.isprintable() else " " for char in text[:WHY_CHARS]).strip()


def checked(text: bytes, output_bytes: int) -> Answer:
    """An output, known to be ASCII that Python's json reads; a fault if it is nested too deep for others to read.

    >>> checked(b"[NaN]", 100), checked(b"[" * 300 + b"]" * 300, 1000)
    (b'[NaN]', 'not_json')
    """
    if len(text) > output_bytes:
        raise ForgedError("an output that is too large")
    if not text.isascii():
        raise ForgedError("an output that is not ASCII")
    if len(text) <= _PLAIN_BYTES and text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        try:
            orjson.loads(text)
        except ValueError:
            pass  # NaN, lone surrogates and large numbers are for Python's own json
        else:
            return text
    return _checked_slowly(text)


def _checked_slowly(text: bytes) -> Answer:
    try:
        json.loads(text)
    except RecursionError:
        return "not_json"
    except ValueError as error:
        raise ForgedError("an output that is not JSON") from error
    brackets = text.count(b"[") + text.count(b"{")
    return "not_json" if brackets > MAX_DEPTH and depth(text) > MAX_DEPTH else text


def depth(text: bytes) -> int:
    """How deep lists and objects are nested in a JSON text.

    >>> depth(b'[1,{"[[[":[]}]')
    3
    """
    now = deepest = 0
    for char in _STRING.sub(b"", text):
        if char in b"[{":
            now += 1
            deepest = max(deepest, now)
        elif char in b"]}":
            now -= 1
    return deepest
