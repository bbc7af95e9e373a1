"""Image-text models behind an OpenAI-compatible server: images go as data: URLs to /chat/completions.

vLLM's and llama.cpp's servers take them, and say which ids they sampled with which log-probs.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from toolroll.errors import UsageError
from toolroll.models.base import Codec, Completion
from toolroll.models.images import data_url
from toolroll.models.pictures import Given, Request, Scored, placed
from toolroll.models.remote import RemoteEngine


class RemotePictures:
    """An `ImageTextEngine` that asks a server through `engine`.

    Whether the model takes images only the server knows: its refusal is a RowError. A prompt that is too long is the
    server's to refuse, too.
    """

    takes_images = True

    def __init__(self, engine: RemoteEngine) -> None:
        self._engine = engine
        self.name = engine.name
        self.weights_id = engine.weights_id
        self.capacity = engine.capacity
        self.max_context = engine.max_context
        self.usage = engine.usage

    @property
    def codec(self) -> Codec | None:
        """The tokenizer of the served model, where it was named."""
        return self._engine.codec

    def answer(self, requests: Iterable[Request]) -> list[Completion | Exception]:
        """Answers to all requests, in order; a RowError in the place of one that cannot be answered."""
        return self._engine.chat_later((partial(_messages, request), request.sampling) for request in requests)

    def score(self, requests: Iterable[tuple[Request, Given]]) -> list[Scored | Exception]:  # noqa: ARG002
        """UsageError: servers do not tell the log-probs of a given answer to images."""
        raise UsageError("the openai back end cannot score given answers: use --backend hf", place=self.name)

    def close(self) -> None:
        """End what is under way, and close the connections."""
        self._engine.close()


def _messages(request: Request) -> list[dict[str, Any]]:
    """The messages as servers take them; contents without images as text, which every server takes."""
    images = iter(request.images)
    made = []
    for message in placed(request):
        parts: list[dict[str, Any]] = [
            {"type": "image_url", "image_url": {"url": data_url(next(images))}} if part["type"] == "image" else part
            for part in message["content"]
        ]
        pictured = any(part["type"] == "image_url" for part in parts)
        made.append({**message, "content": parts if pictured else "".join(part["text"] for part in parts)})
    return made
