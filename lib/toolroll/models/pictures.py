"""What an image-text model offers, whichever back end runs it.

A request is a conversation that stands alone: messages, the files of its images, how to draw the answer. Requests are
answered many at a time, in order; one that cannot be answered is a RowError in its place. A text model has the same
interface and refuses images, so that both kinds can sit in one game.

    `pictures_hf`        transformers in this process
    `pictures_vllm`      vLLM in this process
    `pictures_remote`    an OpenAI-compatible server
    `pictures_scripted`  a script, for tests and demonstrations

`toolroll.models.open.open_image_text` chooses one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from toolroll.errors import RowError
from toolroll.models.base import Codec, Completion, Message, Sampling, Usage
from toolroll.models.images import with_places

Given: TypeAlias = str | Sequence[int]  #: an answer to score: text, or token ids


@dataclass(frozen=True, slots=True)
class Request:
    """A conversation that the model is to go on with.

    messages: {"role": "system|user|assistant", "content": text or a list of parts}, where a part is
    {"type": "text", "text": ...} or {"type": "image"}. The places of images are filled from `images`, files, in order.
    Contents that are text all of them name no places: the images then go before the user's first message.
    """

    messages: Sequence[Mapping[str, Any]]
    sampling: Sampling
    images: Sequence[Path] = ()


@dataclass(frozen=True, slots=True)
class Scored:
    """What the model says of a given answer of T tokens.

    `ids` [T]; `logprobs` [T] in nats, each given the tokens before it, as in `Completion`: at the temperature of the
    request (1 when greedy), nothing cut away.
    """

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]


class ImageTextEngine(Protocol):
    """A model that answers conversations with images."""

    name: str  #: back end and model, for records: "hf:SmolVLM-256M-Instruct"
    weights_id: str
    takes_images: bool
    capacity: int  #: how many requests are under way at once
    max_context: int | None  #: longest sequence in tokens, None when unknown
    usage: Usage

    @property
    def codec(self) -> Codec | None:
        """The model's tokenizer; None when the back end works in text only."""

    def answer(self, requests: Iterable[Request]) -> list[Completion | Exception]:
        """Answers to all requests, in order. What is drawn for one depends on its own seed, not on the others.

        A RowError stands where a request cannot be answered: an image is missing or damaged, there is no place for it
        or no image for a place, the model takes no images, the prompt is too long.
        """

    def score(self, requests: Iterable[tuple[Request, Given]]) -> list[Scored | Exception]:
        """Log-probs of given answers, in order, with RowErrors as in `answer`.

        Text is taken apart into tokens by itself and does not end; give ids to score what a model wrote. UsageError
        from back ends that cannot tell.
        """

    def close(self) -> None:
        """Free the model."""


def placed(request: Request, *, mark: str | None = None) -> list[dict[str, Any]]:
    """The messages with lists of parts as contents, and as many places as there are images.

    `mark` is what stands for an image in the model's prompts, and may not stand in a text. RowError for messages that
    are none.
    """
    for message in request.messages:
        _check(message, mark)
    if not request.messages:
        raise RowError("there are no messages")
    listed = any(not isinstance(message["content"], str) for message in request.messages)
    messages: list[dict[str, Any]] = with_places(request.messages, None if listed else len(request.images))
    places = sum(part["type"] == "image" for message in messages for part in message["content"])
    if places != len(request.images):
        raise RowError(f"{len(request.images)} images, and places for {places} in the messages")
    return messages


def in_text(messages: Iterable[Mapping[str, Any]], mark: str = "") -> list[Message]:
    """Messages whose contents are text, `mark` for every image.

    >>> in_text([{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}], "<image>")
    [{'role': 'user', 'content': '<image>What?'}]
    """
    return [
        {
            **message,
            "content": "".join(part["text"] if part["type"] == "text" else mark for part in message["content"]),
        }
        for message in messages
    ]


def _check(message: Mapping[str, Any], mark: str | None) -> None:
    content = message.get("content")
    if not isinstance(message.get("role"), str) or not isinstance(content, str | Sequence):
        raise RowError("a message needs a role, and text or a list of parts as its content")
    for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind != "image" and not (kind == "text" and isinstance(part.get("text"), str)):
            raise RowError('a part of a message is {"type": "image"} or {"type": "text", "text": ...}')
        if kind == "text" and mark and mark in part["text"]:
            raise RowError(f"a message has {mark} in its text, which stands for an image in this model's prompts")
