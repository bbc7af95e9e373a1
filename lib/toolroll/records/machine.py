"""What a machine can do: what toolroll-doctor writes."""

from typing import Annotated

from toolroll.records.base import Record, said


class MachinePart(Record, kw_only=True, frozen=True):
    """A part of the machine or of the installation, as toolroll-doctor found it."""

    part: Annotated[str, said("Which part: a package, a program, a model, a folder.")]
    ok: Annotated[bool, said("Whether it is there and works.")]
    core: Annotated[bool, said("Whether commands fail at their usual work without it.")]
    found: Annotated[str, said("What was found, in words.")]
    used_for: Annotated[str, said("What it is good for.")]
    install: Annotated[str | None, said("What to run to have it; null where there is nothing to install.")] = None
