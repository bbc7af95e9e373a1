"""Which records of an input are this process's share.

`I/N` takes the records whose index modulo N is I, counting from 0. With a group key, whole groups
stay together: a group belongs to the shard its key hashes to. `slurm` reads a job array's
environment, and only when asked: it refuses arrays whose ids have gaps, because a share that
nobody takes would be missing without a word, and arrays that begin above 1, because they look like
a part of a larger one that is run again, and its tasks would take other shares than before.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from toolroll.errors import UsageError


@dataclass(frozen=True, slots=True)
class Shard:
    """Share `index` (0 .. count - 1) of `count`."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"

    def takes(self, index: int) -> bool:
        """Whether the record with this index (from 0) is ours.

        >>> [Shard(1, 3).takes(i) for i in range(5)]
        [False, True, False, False, True]
        """
        return index % self.count == self.index

    def takes_group(self, key: tuple[bytes, ...]) -> bool:
        """Whether the group with this key is ours; the same on every machine."""
        import hashlib

        digest = hashlib.blake2b(b"\x00".join(key), digest_size=8).digest()
        return int.from_bytes(digest, "big") % self.count == self.index


def parse_shard(text: str, environ: Mapping[str, str]) -> Shard:
    """Read `I/N` or `slurm`; raises UsageError.

    >>> parse_shard("2/4", {})
    Shard(index=2, count=4)
    """
    if text == "slurm":
        return _slurm(environ)
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal()):
        raise UsageError(f"want I/N or slurm, not {text!r}", place="--shard")
    shard = Shard(int(index), int(count))
    if shard.index >= shard.count:
        raise UsageError(f"I runs from 0 to N-1, so {text} names no share", place="--shard")
    return shard


def _slurm(environ: Mapping[str, str]) -> Shard:
    names = ("ID", "MIN", "MAX", "COUNT")
    found = {name: environ.get(f"SLURM_ARRAY_TASK_{name}") for name in names}
    missing = [name for name, value in found.items() if value is None]
    if missing:
        raise UsageError(
            f"slurm: no SLURM_ARRAY_TASK_{missing[0]} here; start this in an array (sbatch --array=0-7), or give I/N",
            place="--shard",
        )
    try:
        task, low, high, count = (int(found[name] or "") for name in names)
        step = int(environ.get("SLURM_ARRAY_TASK_STEP", "1"))
    except ValueError as error:
        raise UsageError(f"slurm: SLURM_ARRAY_TASK_* are not numbers: {error}", place="--shard") from error
    if step != 1 or high - low + 1 != count:
        raise UsageError(
            f"slurm: the array {low}-{high} has {count} task(s) and step {step}; gaps would drop records: "
            "use a range without gaps, or to run a share again give it by number, --shard I/N",
            place="--shard",
        )
    if low > 1:
        raise UsageError(
            f"slurm: the array {low}-{high} begins at {low}; number it from 0 or 1, "
            "or to run a share again give it by number, --shard I/N",
            place="--shard",
        )
    if not low <= task <= high:
        raise UsageError(f"slurm: task {task} is outside the array {low}-{high}", place="--shard")
    return Shard(task - low, count)
