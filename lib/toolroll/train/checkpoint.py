"""What training goes on from after a stop or a kill: weights, optimizer, step, settings, and what was consumed.

    DIR/state/c000012/  a checkpoint: tensors.safetensors, consumed, about.json
    DIR/state/current   a symbolic link to it

Randomness needs no place here: every update seeds it anew from --seed and the number of the update.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from toolroll.errors import ToolrollError
from toolroll.train.policy import install, point, remove

if TYPE_CHECKING:
    from torch import Tensor

DIGEST_BYTES = 8
REMEMBERED = 1_000_000  #: rows whose consumption is remembered


@dataclass
class Checkpoint:
    """A moment of training. `step` updates were made with `settings`; `last` is what was said of the last one."""

    step: int
    tensors: dict[str, Tensor]
    settings: dict[str, Any] = field(default_factory=dict)
    consumed: bytes = b""
    last: dict[str, Any] = field(default_factory=dict)


class _About(msgspec.Struct):
    """What about.json says."""

    step: Annotated[int, msgspec.Meta(ge=0)]
    settings: dict[str, Any]
    last: dict[str, Any]


def save(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint into the state folder and remove the one before. A kill at any moment leaves one whole."""
    from safetensors.torch import save_file

    name = f"c{checkpoint.step:06d}"

    def write(part: Path) -> None:
        save_file({key: value.contiguous() for key, value in checkpoint.tensors.items()}, part / "tensors.safetensors")
        (part / "consumed").write_bytes(checkpoint.consumed)
        about = {"step": checkpoint.step, "settings": checkpoint.settings, "last": checkpoint.last}
        (part / "about.json").write_text(json.dumps(about, indent=2) + "\n")

    current = folder / "current"
    if current.is_symlink() and current.readlink() == Path(name):
        name += "b"  # the same step saved again, with more rows consumed: never write over the one in use
    install(folder, name, write)
    point(current, name)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink() and path.name != name:
            remove(path)


def load(folder: Path) -> Checkpoint | None:
    """The checkpoint of a state folder, None when there is none. ToolrollError when it is damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    current = folder / "current"
    if not current.is_symlink():
        return None
    try:
        about = msgspec.convert(json.loads((current / "about.json").read_text()), _About)
        return Checkpoint(
            step=about.step,
            tensors=load_file(current / "tensors.safetensors"),
            settings=about.settings,
            consumed=(current / "consumed").read_bytes(),
            last=about.last,
        )
    except (OSError, ValueError, RecursionError, msgspec.ValidationError, SafetensorError) as error:
        why = "the checkpoint is damaged; without it training starts afresh from the published version"
        raise ToolrollError(why, place=str(current)) from error


def compare(saved: Mapping[str, Any], given: Mapping[str, Any], firm: frozenset[str]) -> list[str]:
    """What differs between the settings of a checkpoint and those given now, in words.

    Raises ToolrollError for one of `firm`: with those changed it would not be the same training.

    >>> compare({"lr": 0.1, "algo": "ppo"}, {"lr": 0.2, "algo": "ppo"}, frozenset({"algo"}))
    ['--lr was 0.1, is now 0.2']
    """
    told = []
    for name, now in given.items():
        before = saved.get(name, now)
        if before != json.loads(json.dumps(now)):
            option = "--" + name.replace("_", "-")
            if name in firm:
                raise ToolrollError(
                    f"training began with {_word(before)}; {_word(now)} would be another one", place=option
                )
            told.append(f"{option} was {_word(before)}, is now {_word(now)}")
    return told


def _word(value: Any) -> str:
    return "unset" if value is None else str(value)


class Consumed:
    """Which rows were trained on already, by digest: a row that comes again is known once for each time it came."""

    def __init__(self, data: bytes = b"") -> None:
        digests = [data[i : i + DIGEST_BYTES] for i in range(0, len(data), DIGEST_BYTES)]
        self._order = deque(digests, REMEMBERED)
        self._left = Counter(self._order)
        self.n_known = self.n_unsaved = 0

    @staticmethod
    def digest(line: bytes) -> bytes:
        """What stands for a row: 8 bytes of blake2b over its line."""
        return blake2b(line, digest_size=DIGEST_BYTES).digest()

    def knows(self, digest: bytes) -> bool:
        """Whether an earlier run consumed this row; told once for each time it did."""
        if self._left[digest] <= 0:
            return False
        self._left[digest] -= 1
        self.n_known += 1
        return True

    def add(self, digests: list[bytes]) -> None:
        """Remember rows that were trained on."""
        self._order.extend(digests)
        self.n_unsaved += len(digests)

    def data(self) -> bytes:
        """What a checkpoint keeps."""
        return b"".join(self._order)
