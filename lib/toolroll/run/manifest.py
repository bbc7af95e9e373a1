"""The side file `OUT.meta.json`: which command, settings, inputs and versions made OUT.

It is written last. While a run is under way, `OUT.part.meta.json` holds the settings, so that
`--resume` can refuse to go on with others.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from toolroll import __version__
from toolroll.errors import ToolrollError, UsageError
from toolroll.io.filesystem import put
from toolroll.io.rows import plain

PACKAGES = ("orjson", "msgspec", "torch", "transformers", "vllm", "numpy", "bm25s")


@dataclass
class Manifest:
    """What is known of a run before it starts; `settings` are the options that shape its output."""

    command: str
    argv: list[str]
    settings: dict[str, Any]
    started: float = field(default_factory=time.time)
    notes: dict[str, Any] = field(default_factory=dict)

    def begin(self, output: str, *, resume: bool) -> None:
        """Leave the settings beside the unfinished output, or with `resume` check that they are the same."""
        import orjson

        path = Path(output + ".part.meta.json")
        record = _dumps({"command": self.command, "version": __version__, "settings": self.settings})
        if resume and path.exists():
            now = orjson.loads(record)["settings"]
            try:
                before = orjson.loads(path.read_bytes())
                command, before = str(before["command"]), dict(before["settings"])
            except (ValueError, TypeError, KeyError) as error:
                raise ToolrollError("is damaged, so that its settings are not known", place=str(path)) from error
            if command != self.command:
                raise UsageError(f"{output}.part is of {command}", place="--resume")
            for name in sorted({*before, *now}):
                if before.get(name) != now.get(name):
                    raise UsageError(
                        f"was {before.get(name)!r} in the run to be resumed, is {now.get(name)!r} now",
                        place=f"--resume: {name}",
                    )
            return
        put(path, record)

    def is_of(self, output: str, *, stateful: bool) -> bool:
        """Whether a complete output is of a run with these settings that cannot just be made again.

        That is one that was killed before it could write the manifest, and a whole one whose command has gone on with
        its state: that knows the rows, and would not tell of them again.
        """
        import orjson

        for name in (".part.meta.json", *([".meta.json"] if stateful else [])):
            try:
                before = orjson.loads(Path(output + name).read_bytes())
                same = before["command"] == self.command and before["settings"] == orjson.loads(_dumps(self.settings))
            except (OSError, ValueError, TypeError, KeyError):
                continue
            if same:
                return True
        return False

    def forget(self, output: str) -> None:
        """Nothing of this run is left to resume."""
        Path(output + ".part.meta.json").unlink(missing_ok=True)

    def finish(self, output: str, *, inputs: list[dict[str, Any]], counts: dict[str, int], shard: str | None) -> None:
        """Write the manifest of a complete output and remove the unfinished one's."""
        record = {
            "command": self.command,
            "argv": self.argv,
            "toolroll": __version__,
            "python": sys.version.split()[0],
            "packages": loaded_versions(),
            "git": git_commit(),
            "inputs": inputs,
            "output": {"name": output, "bytes": Path(output).stat().st_size},
            "settings": self.settings,
            "shard": shard,
            "counts": counts,
            "started": _utc(self.started),
            "seconds": round(time.time() - self.started, 3),
            **self.notes,
        }
        put(Path(output + ".meta.json"), _dumps(record))
        self.forget(output)


def _dumps(record: dict[str, Any]) -> bytes:
    import orjson

    return orjson.dumps(plain(record), default=str, option=orjson.OPT_INDENT_2) + b"\n"


def loaded_versions() -> dict[str, str]:
    """Versions of the packages this process has loaded and that shape results."""
    found = {name: getattr(sys.modules.get(name), "__version__", None) for name in PACKAGES}
    return {name: str(version) for name, version in found.items() if version is not None}


def git_commit() -> str | None:
    """The commit of the source tree this runs from, or None when it is installed elsewhere."""
    top = Path(__file__).resolve().parents[3]
    try:
        head = (top / ".git" / "HEAD").read_text().strip()
        if not head.startswith("ref: "):
            return head
        name = head.removeprefix("ref: ")
        loose = top / ".git" / name
        if loose.exists():
            return loose.read_text().strip()
        for line in (top / ".git" / "packed-refs").read_text().splitlines():
            if line.endswith(" " + name):
                return line.split()[0]
    except OSError:
        return None
    return None


def environment() -> dict[str, Any]:
    """What `--version --json` adds: versions of the heavy packages, CUDA, devices."""
    from importlib import metadata

    def version(name: str) -> str | None:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            return None

    packages = {name: version(name) for name in (*PACKAGES, "accelerate", "gsplat")}
    cuda: str | None = None
    devices = ["cpu"]
    if packages["torch"]:
        import torch

        cuda = torch.version.cuda
        devices += [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "python": sys.version.split()[0],
        "packages": packages,
        "cuda": cuda,
        "devices": devices,
        "cpus": len(os.sched_getaffinity(0)),
    }


def _utc(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
