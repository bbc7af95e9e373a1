"""The head of a safetensors file: JSON that says what the file has, with its length before it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def head_of(header: Mapping[str, Any], *, in_order: bool = False) -> bytes:
    r"""The first bytes of a file. Blanks fill them up, so that the data begins at a multiple of 8.

    in_order: names come sorted, and not as they are.

    >>> head_of({"b": 1, "a": 2}, in_order=True)
    b'\x10\x00\x00\x00\x00\x00\x00\x00{"a":2,"b":1}   '
    """
    text = json.dumps(header, sort_keys=in_order, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def in_order(data: bytes) -> bytes:
    """A whole file with its header sorted: the library writes metadata in another order each time."""
    end = 8 + int.from_bytes(data[:8], "little")
    return head_of(json.loads(data[8:end]), in_order=True) + data[end:]
