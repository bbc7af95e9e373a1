"""What a row asks, as token ids, and as tensors where it has images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from toolroll.errors import RowError
from toolroll.io.rows import Row
from toolroll.models.answers import Prompter
from toolroll.models.base import Codec, Message, Sampling
from toolroll.models.images import image_files, with_places
from toolroll.models.padded import Asked
from toolroll.models.pictures import in_text
from toolroll.models.vision import chat_text, check_parts, processed


class PromptReader:
    """Turns rows into `Asked`, with a tokenizer's `codec`, or the `processor` of an image-text model.

    `prompter` makes the text of a row; `chat` is what it is to use for messages. `most` is the longest sequence of the
    model in tokens. Images are looked for in `folder`, else in the folder of the row's file.
    """

    def __init__(
        self,
        codec: Codec,
        processor: Any,
        prompter: Callable[[Callable[[list[Message]], str]], Prompter],
        *,
        most: int | None,
        folder: Path | None,
    ) -> None:
        self._codec = codec
        self._processor = processor
        self._text = prompter(self._chat_in_text)
        self._pictured = prompter(self._chat_about_images)
        self._most = most
        self._folder = folder
        self._images = 0

    def __call__(self, row: Row[Any], sampling: Sampling) -> Asked:
        """What `row` asks. RowError where it asks nothing, or more than the model can read."""
        files = image_files(row.view, row.place, self._folder)
        if files and self._processor is None:
            raise RowError("the row has images, and the model takes none")
        if files:
            self._images = len(files)
            ids, features = processed(self._processor, self._pictured(row), files)
            asked = Asked(ids, sampling, features)
        else:
            asked = Asked(self._codec.encode(self._text(row)), sampling)
        if not asked.ids:
            raise RowError("the prompt is empty")
        if self._most is not None and len(asked.ids) >= self._most:
            raise RowError(
                f"the prompt has {len(asked.ids)} tokens, which leaves no room: the model's limit is {self._most}"
            )
        return asked

    def _chat_in_text(self, messages: list[Message]) -> str:
        if not all(isinstance(message["content"], str) for message in messages):
            placed = with_places(messages, 0)
            check_parts(placed)
            messages = in_text(placed)
        return self._codec.chat(messages)

    def _chat_about_images(self, messages: list[Message]) -> str:
        return chat_text(self._processor, with_places(messages, self._images))
