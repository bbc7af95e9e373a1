"""An engine that says what a script tells it to: for tests, demonstrations and replays.

It works in ids like a real one: an id is a byte of UTF-8, 256 is the end of a text. So tokens are
counted, stop strings and caps cut, and turns follow each other exactly as with a model.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from pathlib import Path

from toolroll.errors import RowError, ToolrollError
from toolroll.models.base import Completion, Generate, Message, Sampling, Usage

END = 256  #: the id that ends a text
Replies = Sequence[str | Exception] | Callable[[str], str | Exception]


class ByteCodec:
    """Ids are byte values. Bytes that are no UTF-8 are decoded as U+FFFD. A chat is `role: content` lines."""

    eos_ids = frozenset({END})

    def encode(self, text: str) -> tuple[int, ...]:
        """The UTF-8 bytes of `text`."""
        return tuple(text.encode())

    def decode(self, ids: Sequence[int]) -> str:
        """The text of bytes `ids`, END and what lies beyond left out."""
        return bytes(i for i in ids if i < END).decode(errors="replace")

    def pieces(self) -> list[bytes | None]:
        """The byte each id stands for; None for END."""
        return [*(bytes((byte,)) for byte in range(END)), None]

    def chat(self, messages: Sequence[Message]) -> str:
        """`role: content` lines and a last line `assistant: `."""
        return "".join(f"{message['role']}: {message['content']}\n" for message in messages) + "assistant: "


class ScriptedEngine:
    """A `TextEngine` whose replies come from a list (one a completion), a file, or a function of the text so far.

    The file has JSON lines: {"match": regular expression, "reply": text} or {"match": ..., "error": why}. The first
    line whose expression is found in the text so far speaks; a text that none matches fails. A line of another form is
    a ToolrollError with file:line as its place.

    An Exception as a reply fails that completion. A reply is cut at `max_tokens` bytes and after the byte that
    completes a stop string; one that is not cut ends with END. Log-probs are 0. Every `poll` finishes one completion,
    in the order of submission; `requests` records what was asked: (key, text so far, Generate).
    """

    def __init__(self, replies: Replies | Path, *, capacity: int = 8, max_context: int | None = None) -> None:
        self.name = "scripted"
        self.codec = ByteCodec()
        self.capacity = capacity
        self.max_context = max_context
        self.usage = Usage()
        self.requests: list[tuple[Hashable, str, Generate]] = []
        self._replies = _replies(replies)
        self._lines: dict[Hashable, list[int]] = {}
        self._waiting: deque[tuple[Hashable, Generate]] = deque()

    def submit(self, key: Hashable, request: Generate) -> None:
        """Append to sequence `key` and ask for the next reply. ToolrollError when it still waits for one."""
        if any(waiting == key for waiting, _ in self._waiting):
            raise ToolrollError("this sequence is still being written", place=str(key))
        line = self._lines.setdefault(key, [])
        self.usage.reused += len(line)
        new = self.codec.encode(request.text) if request.ids is None else request.ids
        self.usage.prefilled += len(new)
        line.extend(new)
        self._waiting.append((key, request))

    def poll(self) -> list[tuple[Hashable, Completion | Exception]]:
        """Finish the completion that has waited longest."""
        if not self._waiting:
            return []
        key, request = self._waiting.popleft()
        return [(key, self._answer(key, request))]

    def release(self, key: Hashable) -> None:
        """Forget sequence `key`."""
        self._lines.pop(key, None)
        self._waiting = deque(entry for entry in self._waiting if entry[0] != key)

    def chat(self, requests: Iterable[tuple[Sequence[Message], Sampling]]) -> list[Completion | Exception]:
        """Answer independent conversations, in order."""
        answers = []
        for i, (messages, sampling) in enumerate(requests):
            key = (self, i)
            request = Generate(self.codec.chat(messages), None, sampling)
            self._lines[key] = list(self.codec.encode(request.text))
            answers.append(self._answer(key, request))
            del self._lines[key]
        return answers

    def close(self) -> None:
        """Forget everything."""
        self._lines.clear()
        self._waiting.clear()

    def _answer(self, key: Hashable, request: Generate) -> Completion | Exception:
        line = self._lines[key]
        text = self.codec.decode(line)
        self.requests.append((key, text, request))
        reply = self._replies(text)
        if isinstance(reply, Exception):
            return reply
        room = request.sampling.max_tokens
        if self.max_context is not None:
            room = min(room, max(0, self.max_context - len(line)))
        answer = _cut(reply.encode(), room, request.sampling.stop, self.codec)
        assert answer.ids is not None
        line.extend(answer.ids)
        self.usage.generated += len(answer.ids)
        return answer


def _cut(reply: bytes, room: int, stops: Sequence[str], codec: ByteCodec) -> Completion:
    ends = [(at + len(stop.encode()), stop) for stop in stops if (at := reply.find(stop.encode())) >= 0]
    end, stop = min(ends, default=(len(reply) + 1, None))
    ids = (*reply, END)[: min(end, room)]
    if end <= room and stop is not None:
        return Completion(codec.decode(ids), ids, (0.0,) * len(ids), "stop", stop)
    return Completion(codec.decode(ids), ids, (0.0,) * len(ids), "eos" if len(reply) < room else "length")


def _replies(replies: Replies | Path) -> Callable[[str], str | Exception]:
    if isinstance(replies, Path):
        return _from_file(replies)
    if callable(replies):
        return replies
    left = iter(replies)
    return lambda _: next(left, RowError("the script has no more replies"))


def _from_file(path: Path) -> Callable[[str], str | Exception]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ToolrollError(f"cannot be read: {error}", place=str(path)) from error
    rules = [_rule(f"{path}:{number}", line) for number, line in enumerate(lines, 1) if line]

    def reply(text: str) -> str | Exception:
        found = (answer for pattern, answer in rules if pattern.search(text))
        return next(found, RowError(f"no line of {path} matches this text"))

    return reply


def _rule(place: str, line: str) -> tuple[re.Pattern[str], str | Exception]:
    try:
        rule = json.loads(line)
        answer = RowError(str(rule["error"])) if "error" in rule else rule["reply"]
        if not isinstance(answer, (str, Exception)):
            raise TypeError
        str(answer).encode()
        return re.compile(rule["match"]), answer
    except UnicodeEncodeError as error:
        raise ToolrollError("lone surrogate in a string", place=place) from error
    except (ValueError, KeyError, TypeError, RecursionError, re.error) as error:
        raise ToolrollError('expected {"match": regular expression, "reply": text}', place=place) from error
