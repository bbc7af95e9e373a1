"""What running a hypothesis means, whichever sandbox does it (`toolroll.abduction.sandbox`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

#: How a program ended up. Only "ok" has been called; "timeout" and "killed" stopped on the way.
Status = Literal["ok", "syntax_error", "no_function", "many_functions", "failed", "timeout", "killed"]
#: Why a program has no output for an input. "skipped": it was not called any more.
Fault = Literal["error", "timeout", "memory", "not_json", "too_large", "killed", "skipped"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a program may use.

    `timeout_s`: CPU seconds a call (and the program's definition); a call that waits is given four times as long.
    `total_s`: wall-clock seconds in all. `memory_mb`: address space, besides what Python itself takes. `output_bytes`:
    of one output. `total_bytes`: of all outputs. `max_timeouts`: calls that may be cut short, by time or because they
    ended the process, before the program is given up.
    """

    timeout_s: float = 0.5
    total_s: float = 60.0
    memory_mb: int = 512
    output_bytes: int = 65_536
    total_bytes: int = 67_108_864
    max_timeouts: int = 3


@dataclass(slots=True)
class Outcome:
    """What came of running a program on inputs.

    `outputs[i]` is the compact JSON text of the output for input i, None where it is undefined; then `faults[i]` says
    why. Both speak of every input, whatever the status is. `status` is of the program as a whole, `why` one line about
    it. An output that JSON has no word for is written as Python's json does: `NaN`, `Infinity`, `-Infinity`; the
    strings of these names have quotation marks around them.
    """

    status: Status
    why: str = ""
    outputs: list[bytes | None] = field(default_factory=list)
    faults: dict[int, Fault] = field(default_factory=dict)


class Executor(Protocol):
    """Something that runs programs. Inputs are JSON texts; each call gets its own fresh value of one."""

    def run(self, code: str, inputs: Sequence[bytes]) -> Outcome:
        """Run the one function that `code` defines on each input."""
        ...

    def close(self) -> None:
        """End it."""
        ...
