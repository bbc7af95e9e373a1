"""What this machine and this installation can do, and what to run to have the rest.

Nothing here fails: what cannot be found out is found missing, with the reason. Packages are looked up by their
metadata; only torch, which has to say whether it can use a GPU, is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from toolroll.records.machine import MachinePart

__all__ = ["examine"]


def examine() -> Iterator[MachinePart]:
    """Look at one part after the other."""
    from toolroll.doctor.hardware import cpu, gpu
    from toolroll.doctor.packages import packages, python
    from toolroll.doctor.places import cache_folder, hub, models, settings
    from toolroll.doctor.programs import bubblewrap, ffmpeg, jq, seccomp, slurm

    one_by_one: list[Callable[[], Iterator[MachinePart]]] = [
        *(python, packages, cpu, gpu),
        *(seccomp, bubblewrap, slurm, ffmpeg, jq),
        *(models, cache_folder, hub, settings),
    ]
    for look in one_by_one:
        yield from look()
