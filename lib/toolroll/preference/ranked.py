"""Answers in CSR's order: sentence by sentence beside each other, by the encoder and by the model that wrote them.

The sentences in the same place of n answers get ranks by their score and by their log-probability, 1 the best, equal
ones sharing their mean rank:

    cost  = mean over places of (1 - a) rank_model / n + a rank_encoder / n
    score = 100 (1 - cost)

a is 0.9 in CSR's script. Source of the ranks: arXiv:2405.14622, with its code; there the answers are the branches of a
search by sentences. Finished answers differ in length: places that not all of them have do not count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from toolroll.errors import RowError
from toolroll.models.images import Names
from toolroll.preference.scoring import image_paths
from toolroll.preference.sentences import ended
from toolroll.preference.texts import text_of
from toolroll.preference.work import Work

if TYPE_CHECKING:
    from pathlib import Path

    from toolroll.models.pictures import ImageTextEngine, Request

SIDES = ("chosen", "rejected")


def shares(values: Sequence[float]) -> list[float]:
    """Rank / n of each of n values, the highest 1 / n; equal ones share their mean rank.

    >>> shares([3.0, 5.0]), shares([1.0, 1.0, 2.0])
    ([1.0, 0.5], [0.8333333333333334, 0.8333333333333334, 0.3333333333333333])
    """
    count = len(values)
    found = []
    for value in values:
        better, equal = (sum(test(other) for other in values) for test in (value.__lt__, value.__eq__))
        found.append((better + (equal + 1) / 2) / count)
    return found


def costs(encoder: Sequence[Sequence[float]], model: Sequence[Sequence[float]] | None, weight: float) -> list[float]:
    """The cost of each of n answers, by the scores and log-probabilities of their sentences; NaN where one has none.

    `weight` a in 0 .. 1 is that of the encoder; `model` may be None where it is 1.

    >>> costs([[26.0, 24.0], [25.0, 25.0, 9.0]], [[-1.0, -2.0], [-2.0, -1.0, -1.0]], 0.5)
    [0.75, 0.75]
    >>> costs([[26.0, 26.0], [25.0, 25.0]], [[-1.0, -2.0], [-2.0, -1.0]], 0.75)
    [0.5625, 0.9375]
    """
    places = min(map(len, encoder))
    if not places:
        return [math.nan] * len(encoder)
    sums = [0.0] * len(encoder)
    for values, own in ((encoder, weight), (model, 1 - weight)):
        for place in range(places if own and values is not None else 0):
            ranked = shares([answer[place] for answer in values or ()])
            sums = [total + own * rank for total, rank in zip(sums, ranked, strict=True)]
    return [total / places for total in sums]


def by_sentence(
    text: str, pieces: Sequence[str], logprobs: Sequence[float], min_chars: int = 4
) -> list[tuple[str, float]]:
    """The sentences of a text and the mean log-probability of their tokens, of which `pieces` are the texts.

    A token belongs to the sentence that it begins in; a sentence in which none begins has the value of the one before.

    >>> by_sentence("A cube. A dog.", ["A", " cube", ".", " A", " dog", "."], [-1.0, -2.0, -3.0, -1.0, -1.0, -1.0])
    [('A cube.', -2.0), ('A dog.', -1.0)]
    """
    whole = ended(text, min_chars=min_chars)
    ends = [end for _, end in whole]
    found: list[list[float]] = [[] for _ in ends]
    read = place = 0
    for piece, logprob in zip(pieces, logprobs, strict=True):
        while place < len(ends) and read >= ends[place]:
            place += 1
        if place == len(ends):
            break
        found[place].append(logprob)
        read += len(piece)
    means: list[float] = []
    for one in found:
        means.append(math.fsum(one) / len(one) if one else means[-1] if means else 0.0)
    return [(sentence, mean) for (sentence, _), mean in zip(whole, means, strict=True)]


class Ranker:
    """Puts CSR's scores in the place of the encoder's in scored records.

    `weight` is the encoder's; below 1 a model is asked, which `open_engine` gives, about `batch` pairs at a time.
    """

    def __init__(
        self,
        weight: float,
        open_engine: Callable[[], ImageTextEngine],
        *,
        min_chars: int,
        folder: Path | None,
        batch: int = 32,
    ) -> None:
        self._weight = weight
        self._open = open_engine
        self._min_chars = min_chars
        self._folder = folder
        self._batch = batch
        self._engine: ImageTextEngine | None = None

    def __call__(self, works: list[Work]) -> list[Work]:
        """Put their scores into records."""
        for start in range(0, len(works), self._batch):
            self._rank(works[start : start + self._batch])
        return works

    def _rank(self, works: Sequence[Work]) -> None:
        """Rank the answers of some records."""
        sound = [work for work in works if work.error is None]
        said = self._said(sound) if self._weight < 1 else [None] * len(sound)
        for work, logprobs in zip(sound, said, strict=True):
            if isinstance(logprobs, RowError):
                work.fail(str(logprobs))
            else:
                self._set(work, logprobs)

    def _set(self, work: Work, said: Sequence[list[tuple[str, float]]] | None) -> None:
        clip = work.fields["clip"]
        sides = [[dict(one) for one in clip[side]["sentences"]] for side in SIDES]
        for place, sentences in enumerate(sides):
            known = iter(said[place] if said is not None else ())
            for one in sentences:  # the encoder may have left out a sentence
                one["logprob"] = next((value for text, value in known if text == one["text"]), None)
        scores = [[one["score"] for one in sentences] for sentences in sides]
        logprobs = None if said is None else [[one["logprob"] for one in sentences] for sentences in sides]
        found = costs(scores, logprobs, self._weight)
        made = {
            side: {"score": None if math.isnan(cost) else 100 * (1 - cost), "sentences": sentences}
            for side, cost, sentences in zip(SIDES, found, sides, strict=True)
        }
        work.set(clip={**clip, **made, "preset": "csr"})

    def _said(self, works: Sequence[Work]) -> list[list[list[tuple[str, float]]] | RowError]:
        """For each record the sentences of both answers, with their log-probabilities."""
        if self._engine is None:
            self._engine = self._open()
        asked: list[tuple[Request, str]] = []
        for work in works:
            try:
                request = self._request(work)
            except RowError as error:
                work.fail(error.why)
                continue
            asked += [(request, text) for text in self._texts(work) if text]
        scored = iter(self._engine.score(asked))
        found: list[list[list[tuple[str, float]]] | RowError] = []
        for work in works:
            if work.error is not None:
                found.append(RowError(work.error))
                continue
            results = [(text, next(scored) if text else None) for text in self._texts(work)]
            failed = next((result for _, result in results if isinstance(result, Exception)), None)
            if failed is not None and not isinstance(failed, RowError):
                raise failed
            found.append(failed or [self._sentences(text, result) for text, result in results])
        return found

    def _texts(self, work: Work) -> list[str]:
        """The texts of both answers, "" for one without a sentence."""
        texts = [text_of(work.fields[side], side) for side in SIDES]
        return [text if ended(text, min_chars=self._min_chars) else "" for text in texts]

    def _sentences(self, text: str, scored: Any) -> list[tuple[str, float]]:
        if scored is None:
            return []
        assert self._engine is not None
        assert self._engine.codec is not None
        whole = [self._engine.codec.decode(scored.ids[:end]) for end in range(len(scored.ids) + 1)]
        pieces = [after[len(before) :] for before, after in pairwise(whole)]
        return by_sentence(text, pieces, scored.logprobs, self._min_chars)

    def _request(self, work: Work) -> Request:
        from toolroll.models.base import Sampling
        from toolroll.models.pictures import Request

        prompt = work.fields["prompt"]
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        paths = image_paths(Names(work.fields), work.row.place, self._folder)
        return Request(messages, Sampling(temperature=0), paths)
