"""Image-text models of transformers in this process, and text models behind the same interface.

Requests are read a few batches ahead, those of similar length are answered together, padded on the left (see
`padded`); what several have in common is read once (see `shared`). Memory running out halves the batch; a request that
the model does not take is found by halving, too, and fails alone.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from toolroll.errors import RowError, ToolrollError
from toolroll.models.base import Completion, Finish, Usage
from toolroll.models.codec import HFCodec
from toolroll.models.device import is_out_of_memory
from toolroll.models.load import Loaded
from toolroll.models.padded import Asked, Batches, Written
from toolroll.models.pictures import Given, Request, Scored, in_text, placed
from toolroll.models.shared import SharedBatches
from toolroll.models.vision import chat_text, image_mark, processed

_AHEAD = 4  # batches: the more are read ahead, the less padding, and the more images are in memory
_ROOM = {True: 2**17, False: 2**14}  # tokens of a batch, padding and answers included, on a GPU and on the CPU

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Job(Generic[R]):
    """A request that was read: its place among all, and the tokens it takes with its answer."""

    place: int
    prompt: str
    asked: Asked
    given: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Tokens of the prompt and, at most, of its answer."""
        return len(self.asked.ids) + (len(self.given) or self.asked.sampling.max_tokens)


class HFPictures:
    """An `ImageTextEngine` on a model that `load_image_text` or `load_causal_lm` has loaded.

    `batch`: requests answered together (at most 32 on the CPU, 64 on a GPU, and fewer long ones, when None); halved
    when memory runs out, of which `notify` hears. `max_context`: tokens, at most (and when None) what the model was
    trained for. Raises ToolrollError for a model that it cannot run.
    """

    _kind: type[Batches] = SharedBatches  # what writes

    def __init__(
        self,
        loaded: Loaded,
        *,
        batch: int | None = None,
        max_context: int | None = None,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        _refuse(loaded)
        self.name = f"hf:{loaded.name}"
        self.weights_id = loaded.weights_id
        self.takes_images = loaded.processor is not None
        self.codec: HFCodec = loaded.codec
        self.usage = Usage()
        self.capacity = batch or (64 if loaded.device.is_cuda else 32)
        self._batch = self.capacity
        self._room = _ROOM[loaded.device.is_cuda] if batch is None else None
        self.processor = loaded.processor
        self._mark = image_mark(loaded.processor) if self.takes_images else None
        self._notify = notify
        self._on_gpu = loaded.device.is_cuda
        self._dtype: torch.dtype = loaded.model.dtype
        self._vocabulary: int = loaded.model.get_input_embeddings().num_embeddings
        trained = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)
        self.max_context: int | None = min(filter(None, (max_context, trained)), default=None)
        self._known: dict[Any, tuple[Sequence[int], dict[str, torch.Tensor]]] = {}  # prompts of the window, as read
        self._batches: Batches | None = self._kind(
            loaded.model, loaded.codec.eos_ids, most=self.max_context, top=0, codec=loaded.codec
        )

    def answer(self, requests: Iterable[Request]) -> list[Completion | Exception]:
        """Answers to all requests, in order; a RowError in the place of one that cannot be answered."""
        return self._all(((request, None) for request in requests), self._write)

    def score(self, requests: Iterable[tuple[Request, Given]]) -> list[Scored | Exception]:
        """Log-probs of given answers, in order; a RowError in the place of one that cannot be scored."""
        return self._all(requests, self._score)

    def forget(self) -> None:
        """Forget what was read of earlier requests, on which the last bits of later answers may depend."""
        self._ready().forget()

    def close(self) -> None:
        """Free the model."""
        self._batches = None
        gc.collect()

    def _all(
        self, requests: Iterable[tuple[Request, Given | None]], work: Callable[[list[Job[R]]], list[R | Exception]]
    ) -> list[R | Exception]:
        found: dict[int, R | Exception] = {}
        numbered = enumerate(requests)
        while window := list(islice(numbered, _AHEAD * self._batch)):
            jobs: list[Job[R]] = []
            self._known.clear()
            for place, (request, given) in window:
                try:
                    jobs.append(self._read(place, request, given))
                except RowError as error:
                    found[place] = error
            for group in self._groups(jobs):
                self._work(group, work, found)
        return [found[place] for place in range(len(found))]

    def _read(self, place: int, request: Request, given: Given | None) -> Job[R]:
        """A request as token ids and tensors. RowError where it asks nothing the model can answer."""
        messages = placed(request, mark=self._mark)
        features: dict[str, torch.Tensor] = {}
        pictures = _names(request.images)
        if self.processor is None:
            if request.images:
                raise RowError("the request has images, and the model takes none", place=self.name)
            text = self.codec.chat(in_text(messages))
            ids: Sequence[int] = self.codec.encode(text)
        else:
            text = chat_text(self.processor, messages)
            known = (text, pictures)
            if pictures and known in self._known:
                ids, features = self._known[known]
            elif request.images:
                ids, features = processed(self.processor, text, request.images)
                features = {k: v.to(self._dtype) if v.is_floating_point() else v for k, v in features.items()}
                if pictures is not None:
                    self._known[known] = (ids, features)
            else:
                ids = self.codec.encode(text)
        if not ids:
            raise RowError("the prompt is empty")
        answer = self._ids(given) if given is not None else ()
        if not 0 <= min(*ids, *answer, 0) <= max(*ids, *answer, 0) < self._vocabulary:
            raise RowError(f"a token id is outside 0..{self._vocabulary - 1}")
        longest = len(ids) + max(1, len(answer))
        if self.max_context is not None and longest > self.max_context:
            what = "and the answer have" if answer else "has"
            tokens = len(ids) + len(answer)
            raise RowError(f"the prompt {what} {tokens} tokens, too many: the longest sequence has {self.max_context}")
        return Job(place, text, Asked(ids, request.sampling, features, pictures=pictures), answer)

    def _ids(self, given: Given) -> tuple[int, ...]:
        ids = self.codec.encode(given) if isinstance(given, str) else tuple(given)
        if not ids:
            raise RowError("the answer is empty")
        return ids

    def _groups(self, jobs: list[Job[R]]) -> Iterator[list[Job[R]]]:
        """Jobs in batches, the longest prompts first, so that memory that does not suffice is noticed early."""
        group: list[Job[R]] = []
        largest = 0
        for job in sorted(jobs, key=lambda job: -len(job.asked.ids)):
            largest = max(largest, job.size)
            crowded = self._room is not None and largest * (len(group) + 1) > self._room
            if group and (crowded or len(group) >= self._batch):
                yield group
                group, largest = [], job.size
            group.append(job)
        if group:
            yield group

    def _work(
        self,
        group: list[Job[R]],
        work: Callable[[list[Job[R]]], list[R | Exception]],
        found: dict[int, R | Exception],
    ) -> None:
        """Do `work` on all of the group, in parts where it does not go together."""
        waiting = [group]
        while waiting:
            jobs = waiting.pop()
            if len(jobs) > self._batch:
                waiting += [jobs[self._batch :], jobs[: self._batch]]
                continue
            why = ""
            exhausted = False
            try:
                found |= zip([job.place for job in jobs], work(jobs), strict=True)
            except (MemoryError, RuntimeError, ValueError, IndexError) as error:
                exhausted = is_out_of_memory(error)
                if not exhausted and "CUDA" in str(error):  # a GPU that failed once fails at everything
                    raise
                why = next(iter(str(error).splitlines()), "") or type(error).__name__
            if exhausted:  # here, where the exception no longer holds the tensors of the failed pass
                self._shrink(len(jobs))
            if why and len(jobs) == 1:
                tokens = len(jobs[0].asked.ids)
                alone = f"out of memory with this prompt alone ({tokens} tokens)"
                found[jobs[0].place] = RowError(alone if exhausted else f"the model does not take it: {why}")
            elif why:
                half = (len(jobs) + 1) // 2
                waiting += [jobs[half:], jobs[:half]]

    def _shrink(self, size: int) -> None:
        """Memory ran out with `size` requests at once: go on with half of them, or as before without that one."""
        gc.collect()
        if self._on_gpu:
            torch.cuda.empty_cache()
        if size == 1:
            self._batch = self.capacity
        else:
            self._batch = (size + 1) // 2
            self._notify(f"out of memory with {size} requests at once, going on with {self._batch}")

    def _write(self, jobs: list[Job[Completion]]) -> list[Completion | Exception]:
        written = self._ready().write([job.asked for job in jobs])
        assert written is not None  # nothing stops it
        self.usage.prefilled += sum(len(job.asked.ids) for job in jobs)
        self.usage.generated += sum(len(one.ids) for one in written)
        return [self._completion(job, one) for job, one in zip(jobs, written, strict=True)]

    def _completion(self, job: Job[Completion], written: Written) -> Completion | Exception:
        if written.failed:
            return RowError(written.failed)
        finish: Finish = "eos" if written.ended else "stop" if written.stop is not None else "length"
        text = self.codec.decode(written.ids[:-1] if written.ended else written.ids)
        asked = (job.prompt, tuple(job.asked.ids))
        return Completion(text, tuple(written.ids), tuple(written.logprobs), finish, written.stop, *asked)

    def _score(self, jobs: list[Job[Scored]]) -> list[Scored | Exception]:
        rows = self._ready().score([job.asked for job in jobs], [job.given for job in jobs])
        assert rows is not None
        self.usage.prefilled += sum(job.size for job in jobs)
        return [
            Scored(job.given, tuple(row))
            if all(value == value for value in row)
            else RowError("the model's output is not a number")
            for job, row in zip(jobs, rows, strict=True)
        ]

    def _ready(self) -> Batches:
        if self._batches is None:
            raise ToolrollError("this engine is closed", place=self.name)
        return self._batches


def _names(images: Sequence[Any]) -> tuple[tuple[str, int, int], ...] | None:
    """What tells images apart: path, time and size of each file; None where one is no file, as a picture in memory."""
    names = []
    for image in images:
        if not isinstance(image, Path):
            return None
        try:
            state = image.stat()
        except OSError:
            return None
        names.append((str(image), state.st_mtime_ns, state.st_size))
    return tuple(names)


def _refuse(loaded: Loaded) -> None:
    """ToolrollError for a model whose answers cannot be written one token behind the other with a cache of keys."""
    config = loaded.model.config
    text = config.get_text_config()
    if config.is_encoder_decoder or getattr(loaded.model, "_is_stateful", False):
        raise ToolrollError("only decoders with attention in every layer are supported", place=loaded.name)
    if getattr(text, "cross_attention_layers", None):
        raise ToolrollError("a model that reads images by cross-attention is not supported", place=loaded.name)
