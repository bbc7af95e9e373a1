"""Texts scored by their images: sentence by sentence, many rows at a time.

    cos(i, s) = <f(i) / |f(i)|, g(s) / |g(s)|>
    score     = 100 cos (the capped logit scale of OpenAI's CLIP), or CLIPScore, 2.5 max(cos, 0)

A sentence of several windows has their mean by length in tokens; of several images the best counts. The score of a text
is an aggregate of its sentences. CLIPScore: arXiv:2104.08718; its 0 makes ties of all that is unlike.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from toolroll.errors import RowError
from toolroll.io.cache import Cache, cache_key
from toolroll.models.images import open_image
from toolroll.preference.sentences import sentences, windows

if TYPE_CHECKING:
    from toolroll.preference.encoders import Encoder

Aggregate = Literal["mean", "min", "length-weighted", "last"]
Measure = Literal["cos", "clipscore"]
_PER_IMAGE = 4  # windows of text that are computed at a time for each image


@dataclass(frozen=True, slots=True)
class SentenceScore:
    """A sentence, its score, its windows and their tokens."""

    text: str
    score: float
    windows: int
    tokens: int


@dataclass(frozen=True, slots=True)
class TextScore:
    """A text's score, None for one without sentences, and its sentences."""

    score: float | None
    sentences: tuple[SentenceScore, ...]

    def record(self) -> dict[str, Any]:
        """The same as a part of a row."""
        parts = [{"text": one.text, "score": one.score, "windows": one.windows} for one in self.sentences]
        return {"score": self.score, "sentences": parts}


@dataclass(frozen=True, slots=True)
class Job:
    """Texts to be scored by the images of one row."""

    images: Sequence[Path]
    texts: Sequence[str]


def measured(cosine: float, measure: Measure) -> float:
    """A cosine as a score.

    >>> measured(0.25, "cos"), measured(0.25, "clipscore"), measured(-0.02, "clipscore")
    (25.0, 0.625, 0.0)
    """
    return 100 * cosine if measure == "cos" else 2.5 * max(cosine, 0.0)


def aggregated(found: Sequence[SentenceScore], how: Aggregate) -> float | None:
    """The score of a text by those of its sentences; None where it has none.

    >>> three = [SentenceScore("", score, 1, tokens) for score, tokens in ((28, 2), (28, 2), (10, 4))]
    >>> [aggregated(three, how) for how in ("mean", "min", "length-weighted", "last")]
    [22.0, 10, 19.0, 10]
    """
    if not found:
        return None
    if how == "min":
        return min(one.score for one in found)
    if how == "last":
        return found[-1].score
    weights = [one.tokens if how == "length-weighted" else 1 for one in found]
    return sum(one.score * weight for one, weight in zip(found, weights, strict=True)) / sum(weights)


class Scorer:
    """Scores texts by images with `encoder`, at most `batch` images at a time.

    `cache` keeps vectors of images, by the content of their files and the encoder's weights.
    """

    def __init__(
        self,
        encoder: Encoder,
        *,
        measure: Measure = "cos",
        aggregate: Aggregate = "mean",
        min_chars: int = 4,
        batch: int = 32,
        cache: Cache | None = None,
    ) -> None:
        self.encoder = encoder
        self.batch = batch
        self._measure = measure
        self._aggregate = aggregate
        self._min_chars = min_chars
        self._cache = cache

    def score(self, jobs: Sequence[Job]) -> list[list[TextScore] | RowError]:
        """The scores of each job's texts; a RowError where an image cannot be read."""
        split = [[self._windows(text) for text in job.texts] for job in jobs]
        wanted = {tuple(ids) for texts in split for text in texts for _, parts in text for ids in parts}
        texts = self._in_batches(sorted(wanted, key=len), self.encoder.texts, self.batch * _PER_IMAGE)
        images = self._images(path for job in jobs for path in job.images)
        found: list[list[TextScore] | RowError] = []
        for job, own in zip(jobs, split, strict=True):
            vectors = [images[path] for path in job.images]
            bad = next((vector for vector in vectors if isinstance(vector, RowError)), None)
            try:
                found.append(bad or [self._text(text, texts, torch.stack(vectors)) for text in own])
            except RowError as error:
                found.append(error)
        return found

    def _windows(self, text: str) -> list[tuple[str, list[list[int]]]]:
        parts = [
            (sentence, windows(sentence, self.encoder.encode, self.encoder.limit))
            for sentence in sentences(text, min_chars=self._min_chars)
        ]
        return [(sentence, ids) for sentence, ids in parts if ids]

    def _text(
        self, text: list[tuple[str, list[list[int]]]], vectors: dict[tuple[int, ...], Tensor], images: Tensor
    ) -> TextScore:
        found = []
        for sentence, parts in text:
            cosines = torch.stack([vectors[tuple(ids)] for ids in parts]) @ images.T  # [windows, images]
            lengths = torch.tensor([len(ids) for ids in parts], dtype=cosines.dtype)
            cosine = float((lengths @ cosines / lengths.sum()).max())
            if cosine != cosine:
                raise RowError("the encoder's output is not a number")
            found.append(SentenceScore(sentence, measured(cosine, self._measure), len(parts), int(lengths.sum())))
        return TextScore(aggregated(found, self._aggregate), tuple(found))

    def _images(self, paths: Iterable[Path]) -> dict[Path, Tensor | RowError]:
        """The vectors of image files, of each content once."""
        found: dict[Path, Tensor | RowError] = {}
        keys: dict[Path, bytes] = {}
        for path in dict.fromkeys(paths):
            try:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
            except (OSError, ValueError) as error:  # no such file, or no name of one
                found[path] = RowError(f"{path}: {getattr(error, 'strerror', None) or error}")
                continue
            keys[path] = cache_key("clip-image", self.encoder.weights_id, {}, digest)
        known = {} if self._cache is None else self._cache.get_many(keys.values())
        vectors = {key: _unpacked(value) for key, value in known.items()}
        new = {key: path for path, key in reversed(keys.items()) if key not in vectors}
        todo = list(new.items())
        for start in range(0, len(todo), self.batch):
            some, pictures = [], []
            for key, path in todo[start : start + self.batch]:
                try:
                    pictures.append(open_image(path))
                    some.append(key)
                except RowError as error:
                    found |= {other: error for other, own in keys.items() if own == key}
            if some:
                made = dict(zip(some, self.encoder.images(pictures), strict=True))
                vectors |= made
                if self._cache is not None:
                    self._cache.put_many({key: _packed(vector) for key, vector in made.items()})
        return {**{path: vectors[key] for path, key in keys.items() if key in vectors}, **found}

    def _in_batches(
        self, items: list[tuple[int, ...]], compute: Callable[[Sequence[Sequence[int]]], Tensor], size: int
    ) -> dict[tuple[int, ...], Tensor]:
        made: dict[tuple[int, ...], Tensor] = {}
        for start in range(0, len(items), size):
            some = items[start : start + size]
            made |= zip(some, compute(some), strict=True)
        return made


def _packed(vector: Tensor) -> str:
    return base64.b64encode(vector.numpy().astype("<f4").tobytes()).decode()


def _unpacked(value: str) -> Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(value), dtype="<f4").astype(np.float32))
