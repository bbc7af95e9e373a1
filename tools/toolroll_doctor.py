"""toolroll-doctor: say what this machine can do, and what to install for the rest.

What is looked at, and how: toolroll.doctor.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from toolroll.cli import command, offers_table
from toolroll.records import field_types
from toolroll.records.machine import MachinePart

if TYPE_CHECKING:
    from toolroll.run.log import Log

EXAMPLES = """
  A table to read:
    toolroll-doctor --table
  What is missing, and how to have it:
    toolroll-doctor | jq -r 'select(.install) | "\\(.part): \\(.install)"'
  In a job, before the work begins:
    toolroll-doctor -q -o machine.jsonl || exit
"""

NOTES = """
The exit code is 1 where a core part is missing, one that commands need for their usual work, and 0 otherwise: a machine
without a GPU, vLLM or Slurm is sound.

Packages are looked up and not imported, except for torch, which has to say what it can use. Programs run in the sandbox
to see whether they do. Nothing is installed, fetched or written. A GPU that torch can use decides, not a package: vllm
and gsplat without one count as missing, and there is nothing to install.

Which GPU is free, and how much memory is left on it, was not run on a GPU here.
"""


@command(
    "toolroll-doctor",
    system="toolroll",
    adds=field_types(MachinePart, *MachinePart.__struct_fields__),
    key=("part",),
    source=True,
    slow=True,
    epilog="See toolroll(1), toolroll-records(5).",
)
@offers_table
def main(*, table: bool, log: Log) -> Iterator[dict[str, Any]]:
    """Say what this machine can do, and what to install for the rest.

    Writes a row for each part of the machine and of the installation.
    """
    from toolroll.doctor import examine

    for part in examine():
        if part.core and not part.ok:
            log.fail(f"{part.found}{f': {part.install}' if part.install else ''}", part.part)
        yield _for_people(part) if table else msgspec.structs.asdict(part)


def _for_people(part: MachinePart) -> dict[str, Any]:
    """A part as a row of the table."""
    state = "yes" if part.ok else "NO" if part.core else "no"
    return {"part": part.part, "ok": state, "found": part.found, "to have it": part.install or ""}
