"""A script behind the interface of image-text models: for tests, demonstrations and dry runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from toolroll.errors import RowError
from toolroll.models.base import Completion, Message, Sampling
from toolroll.models.pictures import Given, Request, Scored, in_text, placed
from toolroll.models.scripted import ByteCodec, Replies, ScriptedEngine

MARK = "<image>"  #: stands for an image in the text that a script is matched with
UNSCRIPTED = -20.0  #: log-prob, in nats, of a byte that the script would not say


class ScriptedPictures:
    """An `ImageTextEngine` whose replies come from a list, a file or a function, as those of `ScriptedEngine` do.

    A script is matched with the text so far: `role: content` lines with `<image>` for each image, so that
    `(<image>.*){2}` matches two of them. Image files must exist; nobody looks at them. `requests` records what was
    asked: (text so far, Request). What the script says has log-prob 0; from the first byte on that it would not say, a
    given answer has `UNSCRIPTED` a byte.
    """

    weights_id = ""
    takes_images = True

    def __init__(self, replies: Replies | Path, *, max_context: int | None = None) -> None:
        self._engine = ScriptedEngine(replies, max_context=max_context)
        self.name = self._engine.name
        self.codec: ByteCodec = self._engine.codec
        self.capacity = self._engine.capacity
        self.max_context = max_context
        self.usage = self._engine.usage
        self.requests: list[tuple[str, Request]] = []

    def answer(self, requests: Iterable[Request]) -> list[Completion | Exception]:
        """Answers to all requests, in order; a RowError in the place of one that cannot be answered."""
        return [self._say(request, request.sampling) for request in requests]

    def score(self, requests: Iterable[tuple[Request, Given]]) -> list[Scored | Exception]:
        """Log-probs of given answers, in order; a RowError in the place of one that cannot be scored."""
        return [self._score(request, given) for request, given in requests]

    def close(self) -> None:
        """Forget everything."""
        self._engine.close()

    def _say(self, request: Request, sampling: Sampling) -> Completion | Exception:
        try:
            messages = self._read(request)
        except RowError as error:
            return error
        return self._engine.chat([(messages, sampling)])[0]

    def _read(self, request: Request) -> Sequence[Message]:
        messages = in_text(placed(request, mark=MARK), MARK)
        for path in request.images:
            if not path.is_file():
                raise RowError(f"{path}: no such file")
        text = self.codec.chat(messages)
        tokens = len(self.codec.encode(text))
        if self.max_context is not None and tokens >= self.max_context:
            raise RowError(f"the prompt has {tokens} tokens, too many: the longest sequence has {self.max_context}")
        self.requests.append((text, request))
        return messages

    def _score(self, request: Request, given: Given) -> Scored | Exception:
        ids = self.codec.encode(given) if isinstance(given, str) else tuple(given)
        if not ids:
            return RowError("the answer is empty")
        said = self._say(request, replace(request.sampling, max_tokens=len(ids), stop=()))
        if isinstance(said, Exception):
            return said
        alike = 0
        for one, other in zip(ids, said.ids or (), strict=False):
            if one != other:
                break
            alike += 1
        return Scored(ids, (0.0,) * alike + (UNSCRIPTED,) * (len(ids) - alike))
