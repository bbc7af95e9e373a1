"""The text of what may be text or messages."""

from __future__ import annotations

from typing import Any

from toolroll.errors import RowError


def text_of(given: Any, name: str) -> str:
    r"""The text of `given`: itself, or the contents of messages, a line each. RowError, with `name`, for what has none.

    >>> text_of([{"role": "assistant", "content": [{"type": "text", "text": "A cube."}]}], "chosen")
    'A cube.'
    """
    if isinstance(given, str):
        return given
    if isinstance(given, list) and all(isinstance(part, dict) for part in given):
        return "\n".join(_content(part.get("content"), name) for part in given)
    raise RowError(f"`{name}` is neither text nor messages")


def _content(content: Any, name: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise RowError(f"`{name}` has a message without content")
    return "".join(str(part.get("text") or "") for part in content if part.get("type", "text") == "text")
