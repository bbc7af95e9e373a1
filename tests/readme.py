"""README.md as its tests see it: the shell blocks of a section, and the output that is shown under each.

A fenced block `sh` is a piece of shell. A fenced block `text` right behind it is what it prints. The lines run in a
folder that looks like a checkout: those of the section START first, which make a folder to work in, then the section's
own, block after block, each in a bash of its own that ends at the first failure.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import frame
import warm

README = frame.ROOT / "README.md"
START = "Ten papers, ten pipelines"
LINKED = ("lib", "pipelines", "tests")  #: of a checkout, what the lines use
PATIENCE_S = 900.0  #: how long a block may take on a machine with much else to do

_HEADING = re.compile(r"^## (?P<name>.+)$", re.MULTILINE)
_SHELL = re.compile(r"^```sh\n(?P<script>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```$)?", re.MULTILINE | re.DOTALL)
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Block:
    """A piece of shell, and what README.md shows as its output."""

    script: str
    output: str | None

    @property
    def lines(self) -> list[str]:
        """Its commands, each on one line and without its comment."""
        whole = self.script.replace("\\\n", " ")
        return [line for line in (re.sub(r"(^|\s+)#\s.*", "", line).strip() for line in whole.splitlines()) if line]


def sections(text: str) -> dict[str, list[Block]]:
    """The sections of README.md that have shell blocks, by name; what stands before the first is of ''."""
    heads = [("", 0), *((match["name"], match.end()) for match in _HEADING.finditer(text))]
    ends = [start for _, start in heads[1:]] + [len(text)]
    found = {
        name: [Block(match["script"], match["output"]) for match in _SHELL.finditer(text, start, end)]
        for (name, start), end in zip(heads, ends, strict=True)
    }
    return {name: blocks for name, blocks in found.items() if blocks}


def replaced(text: str, block: Block, printed: str) -> str:
    """README.md with other output under a piece of shell."""
    shown = f"{block.script}```\n\n```text\n{block.output}```\n"
    assert text.count(shown) == 1, f"not there once: {shown}"
    return text.replace(shown, f"{block.script}```\n\n```text\n{printed}```\n")


def checkout(folder: Path) -> Path:
    """A folder that looks like a checkout, and in which files can be made."""
    folder.mkdir()
    for name in LINKED:
        (folder / name).symlink_to(frame.ROOT / name)
    return folder


def run(script: str, folder: Path) -> str:
    """Run a piece of shell, and see what it prints; AssertionError with its messages if it fails."""
    env = {}
    if any(name in script for name in frame.WARM):
        env["PATH"] = f"{warm.shims()}{os.pathsep}{frame.environment()['PATH']}"
    line = ["bash", "-euo", "pipefail", "-c", script]
    with frame.started(line, cwd=folder, env=env, stdin=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            out, err = process.communicate(timeout=PATIENCE_S)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # all of its pipelines
            raise
    assert process.returncode == 0, f"{script}\nended with {process.returncode}:\n{err.decode(errors='replace')}"
    return out.decode()


@dataclass(frozen=True)
class Tolerance:
    """How far numbers may be from those shown, and why they may.

    Either `relative`, as a share of the number shown, or `absolute`. Numbers in lines with a word of `free` may be any.
    """

    why: str
    relative: float = 0.0
    absolute: float = 0.0
    free: tuple[str, ...] = ()


EXACT = Tolerance("the same on every machine")


def differs(shown: str, printed: str, tolerance: Tolerance) -> str | None:
    """The first line that is not as shown, but for the width of columns; None if there is none."""
    lines = shown.splitlines(), printed.splitlines()
    for number, (before, after) in enumerate(zip(*lines, strict=False), 1):
        if not _same(before, after, tolerance):
            return f"line {number} of the output:\n  {before}\nis not what is printed:\n  {after}"
    if len(lines[0]) != len(lines[1]):
        return f"{len(lines[0])} lines are shown, {len(lines[1])} printed:\n{printed}"
    return None


def _same(shown: str, printed: str, tolerance: Tolerance) -> bool:
    if shown == printed:
        return True
    if tolerance is EXACT or _words(shown) != _words(printed):
        return False
    if any(word in shown.split() for word in tolerance.free):
        return True
    pairs = zip(_numbers(shown), _numbers(printed), strict=True)
    return all(abs(a - b) <= max(tolerance.absolute, tolerance.relative * abs(a)) for a, b in pairs)


def _words(line: str) -> list[str]:
    return _NUMBER.sub("0", line).split()


def _numbers(line: str) -> list[float]:
    return [float(number) for number in _NUMBER.findall(line)]
