"""What is written to a bandit's journal, and how a line that a crash or a disk has changed is known.

A line is a JSON object whose last field, `crc`, is the CRC-32 of the object without it. Floats are written so that they
read back as the same bits.
"""

from __future__ import annotations

import zlib
from array import array
from typing import Any

import msgspec

from toolroll.curriculum.bandit import Arm, Bandit, Seen, Settings

_CHECK = b',"crc":"'


class Damaged(Exception):
    """A line does not have its checksum."""


class ArmImage(msgspec.Struct, kw_only=True):
    """An arm, written down."""

    window: list[float]
    rollouts: int
    prompts: int
    value: float


class Image(msgspec.Struct, kw_only=True):
    """A whole state, written down: after `journal_bytes` of the journal whose first line has the checksum `journal`."""

    journal: str
    journal_bytes: int
    seq: int
    step: int | None
    draws: int
    drawn: dict[str, int]
    target: float
    arms: dict[str, ArmImage]
    ids: set[str]
    older_ids: set[str]

    @classmethod
    def of(cls, bandit: Bandit, **rest: Any) -> Image:
        """The image of a bandit, with the rest of a state."""
        arms = {
            name: ArmImage(
                window=arm.window(bandit.settings.k).tolist(),
                rollouts=arm.rollouts,
                prompts=arm.prompts,
                value=arm.value,
            )
            for name, arm in bandit.arms.items()
        }
        return cls(arms=arms, target=bandit.target, **rest)

    def bandit(self, settings: Settings) -> Bandit:
        """The bandit it is the image of."""
        arms = {
            name: Arm(array("d", arm.window), arm.rollouts, arm.prompts, arm.value) for name, arm in self.arms.items()
        }
        return Bandit(settings, arms, self.target)


class Entry(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line of the journal. A batch of feedback has `seq`, its number from 1. Negative `draws` were given back."""

    seq: int | None = None
    step: int | None = None
    seen: dict[str, Seen] = {}
    ids: list[str] = []
    add: list[str] = []
    draws: int = 0
    drawn: dict[str, int] = {}
    image: Image | None = None


def sealed(body: bytes) -> bytes:
    r"""A JSON object as a line with its checksum.

    >>> sealed(b'{"draws":3}'), opened(sealed(b'{"draws":3}'))
    (b'{"draws":3,"crc":"6e5a7e86"}\n', b'{"draws":3}')
    """
    head = body[:-1]
    return head + (_CHECK if len(head) > 1 else _CHECK[1:]) + b'%08x"}\n' % zlib.crc32(body)


def opened(line: bytes) -> bytes:
    """The JSON object of a whole line. Raises Damaged."""
    head, mark, tail = line.rpartition(_CHECK)
    body = head + b"}"
    if not mark or tail != b'%08x"}\n' % zlib.crc32(body):
        raise Damaged("does not have its checksum: it was changed, or the disk is damaged")
    return body
