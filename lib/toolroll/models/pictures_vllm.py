"""Image-text models in vLLM, in this process; text models, too.

The prompt is made here, by the model's own processor, and given to vLLM in token ids with the images beside it, so that
a request is read as it is by transformers and a bad one fails alone. Not run here: vLLM's side of it was tested against
a stand-in only.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

from toolroll.errors import RowError
from toolroll.models.base import Codec, Completion, Generate
from toolroll.models.images import open_image
from toolroll.models.pictures import Given, Request, Scored, in_text, placed
from toolroll.models.vision import chat_text, image_mark
from toolroll.models.vllm import VLLMEngine

_AHEAD = 2  # batches: requests that vLLM holds, those that wait for their turn included


class VLLMPictures:
    """An `ImageTextEngine` on a `VLLMEngine`; `processor` is that of an image-text model, None for a text model."""

    def __init__(self, engine: VLLMEngine, processor: Any) -> None:
        self._engine = engine
        self._processor = processor
        self.name = engine.name
        self.weights_id = engine.weights_id
        self.takes_images = processor is not None
        self.capacity = engine.capacity
        self.max_context = engine.max_context
        self.usage = engine.usage
        self.codec: Codec = engine.codec

    def answer(self, requests: Iterable[Request]) -> list[Completion | Exception]:
        """Answers to all requests, in order; a RowError in the place of one that cannot be answered."""
        waiting = enumerate(requests)
        found: dict[Hashable, Completion | Exception] = {}
        under_way: set[Hashable] = set()
        while True:
            while len(under_way) < _AHEAD * self.capacity and (item := next(waiting, None)) is not None:
                place, request = item
                try:
                    ids, images = self._read(request)
                except RowError as error:
                    found[place] = error
                    continue
                self._engine.submit(place, Generate("", ids, request.sampling), images=images)
                under_way.add(place)
            if not under_way:
                return [found[place] for place in range(len(found))]
            for place_, outcome in self._engine.poll():
                found[place_] = outcome
                under_way.discard(place_)
                self._engine.release(place_)

    def score(self, requests: Iterable[tuple[Request, Given]]) -> list[Scored | Exception]:
        """Log-probs of given answers, in order; a RowError in the place of one that cannot be scored.

        vLLM tells those at temperature 1 only.
        """
        return [self._score(request, given) for request, given in requests]

    def close(self) -> None:
        """Free the model."""
        self._engine.close()

    def _score(self, request: Request, given: Given) -> Scored | Exception:
        try:
            if request.sampling.temperature not in (0.0, 1.0):
                raise RowError("vLLM scores at temperature 1 only (and 0, which means the same)", place=self.name)
            answer = self.codec.encode(given) if isinstance(given, str) else tuple(given)
            if not answer:
                raise RowError("the answer is empty")
            ids, images = self._read(request)
            return Scored(answer, tuple(self._engine.score(ids, answer, images=images)))
        except RowError as error:
            return error

    def _read(self, request: Request) -> tuple[tuple[int, ...], list[Any]]:
        """A prompt in token ids, one for each image, and the images."""
        if self._processor is None:
            if request.images:
                raise RowError("the request has images, and the model takes none", place=self.name)
            ids = self.codec.encode(self.codec.chat(in_text(placed(request))))
        else:
            messages = placed(request, mark=image_mark(self._processor))
            ids = self.codec.encode(chat_text(self._processor, messages))
        if not ids:
            raise RowError("the prompt is empty")
        if self.max_context is not None and len(ids) >= self.max_context:
            raise RowError(f"the prompt has {len(ids)} tokens, too many: the longest sequence has {self.max_context}")
        return ids, [open_image(path) for path in request.images]
