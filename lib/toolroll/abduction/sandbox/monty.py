"""The executor on pydantic-monty (extra `monty`): an interpreter in Rust for a part of Python without system calls.

Differences from CPython: only a part of the language and of the standard library is there (no heapq, operator, string,
statistics, fractions, for instance); imported functions are not told from builtin ones, so they do not make a program
`many_functions`; waiting takes no time. Inputs are answered in batches; when the limit of time or memory ends one, its
inputs are asked again one by one in a new session, so that state which a program keeps between calls is lost there.
"""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Sequence
from typing import Any

from toolroll.abduction.execution import Fault, Limits, Outcome
from toolroll.abduction.sandbox.inputs import Inputs
from toolroll.abduction.sandbox.progress import Progress
from toolroll.abduction.sandbox.wire import Answer, ForgedError, Loaded, answer, printable
from toolroll.errors import ToolrollError

BATCH = 256  #: inputs a turn, at most
_NAMES = re.compile(r"^(?:async[ \t]+)?def[ \t]+(\w+)|^(\w+)[ \t]*(?::[^=\n]*)?=(?!=)", re.MULTILINE)
_ANSWERS = """
import json as _json

def _answers(function, texts, most):
    lines = []
    for text in texts:
        try:
            value = function(_json.loads(text))
        except BaseException:
            lines.append("!e")
            continue
        try:
            line = "=" + _json.dumps(value, separators=(",", ":"))
            lines.append("!l" if len(line) > most else line)
        except BaseException:
            lines.append("!j")
    return lines
"""


class LostError(Exception):
    """A turn did not come to its end; the session is not to be used any more."""

    def __init__(self, fault: Fault, why: str) -> None:
        super().__init__(why)
        self.fault: Fault = fault


class Monty:
    """Runs programs one after the other, each in a session of its own."""

    def __init__(self, limits: Limits) -> None:
        try:
            self._lib: Any = importlib.import_module("pydantic_monty")
        except ImportError as error:
            raise ToolrollError(
                "--sandbox monty needs the package pydantic-monty: pip install 'toolroll[monty]'"
            ) from error
        self._limits = limits
        self._pool = self._lib.Monty(max_processes=1, request_timeout=6 * limits.timeout_s + 5)
        try:
            self._pool.__enter__()
        except (OSError, self._lib.MontyError) as error:
            raise ToolrollError(f"pydantic-monty does not start: {error}") from error

    def run(self, code: str, inputs: Sequence[bytes]) -> Outcome:
        """Run the one function that `code` defines on each input."""
        given = Inputs.of(inputs)
        progress = Progress(self._limits, len(given))
        while not progress.ended:
            with self._checkout() as session:
                self._stretch(session, code, given, progress)
        return progress.result()

    def close(self) -> None:
        """End the workers."""
        self._pool.__exit__(None, None, None)

    def _checkout(self) -> Any:
        return self._pool.checkout(
            limits={"max_feed_duration_secs": self._limits.timeout_s, "max_memory": self._limits.memory_mb << 20},
            os_policy={"sleep": "zero", "random_start": {"seed": 0}},
            assert_message_annotations=False,
        )

    def _stretch(self, session: Any, code: str, inputs: Inputs, progress: Progress) -> None:
        """One session: from the input at hand on, until all are answered or the session is lost."""
        progress.loaded = False
        try:
            name, loaded = self._load(session, code)
        except LostError as error:
            progress.interrupted(error.fault, f"while it was being defined: {error}")
            return
        progress.take([loaded])
        while not progress.ended:
            if time.monotonic() > progress.deadline:
                progress.overdue()
                return
            size = 1 if progress.suspect else BATCH
            try:
                said = self._ask(session, name, inputs[progress.done : progress.done + size])
            except LostError as error:
                if progress.suspect:
                    progress.interrupted(error.fault, str(error))
                progress.suspect = progress.suspect - 1 if progress.suspect else size
                return
            except ForgedError as error:
                progress.stop("killed", f"it wrote among its results: {error}")
                return
            progress.take(said)
            progress.suspect = max(0, progress.suspect - 1)

    def _load(self, session: Any, code: str) -> tuple[str, Loaded]:
        """The name of the one function, and whether there is one."""
        self._feed(session, _ANSWERS)
        try:
            self._feed(session, code)
        except self._lib.MontySyntaxError as error:
            return "", Loaded("syntax_error", printable(error.display(format="type-msg")))
        except self._lib.MontyRuntimeError as error:
            return "", Loaded("failed", printable(error.display(format="type-msg")))
        names = dict.fromkeys(name for pair in _NAMES.findall(code) for name in pair if name)
        functions = [name for name in names if self._is_function(session, name)]
        if len(functions) == 1:
            return functions[0], Loaded("ok", "")
        if functions:
            return "", Loaded("many_functions", f"{len(functions)} functions in its namespace")
        return "", Loaded("no_function", "no function in its namespace")

    def _is_function(self, session: Any, name: str) -> bool:
        try:
            return bool(self._feed(session, f"type({name}).__name__") == "function")
        except self._lib.MontyError:
            return False

    def _ask(self, session: Any, name: str, texts: Sequence[bytes]) -> list[Loaded | Answer]:
        most = self._limits.output_bytes
        given = {"_texts": [text.decode() for text in texts]}
        try:
            lines = self._feed(session, f"_answers({name}, _texts, {most + 1})", inputs=given)
        except self._lib.MontyError as error:
            raise LostError("error", str(error)) from error
        if not isinstance(lines, list) or len(lines) != len(texts):
            raise ForgedError("an answer that is none")
        return [answer(line.encode() if isinstance(line, str) else b"", most) for line in lines]

    def _feed(self, session: Any, code: str, **more: Any) -> Any:
        """Run a snippet. LostError when a limit ended it or its worker has died."""
        try:
            return session.feed_run(code, print_callback=_drop, **more)
        except self._lib.MontyCrashedError as error:
            raise LostError("timeout" if error.timed_out else "killed", "its worker ended") from error
        except self._lib.MontyRuntimeError as error:
            kind = type(error.exception())
            if kind in (TimeoutError, MemoryError):
                raise LostError("timeout" if kind is TimeoutError else "memory", str(error)) from error
            raise


def _drop(_stream: str, _text: str) -> None:
    """What programs print."""
