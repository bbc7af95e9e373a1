"""Two branches decoded side by side: one sees the image, the other does not, and both read the same answer.

Each has a cache of its own and is padded on the left by itself: prompts of different lengths, and image positions of
their own where a model has such.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from toolroll.errors import UsageError
from toolroll.models.base import Sampling
from toolroll.models.device import choose_device
from toolroll.models.load import Loaded, introduced, load_causal_lm
from toolroll.models.open import choose_backend
from toolroll.models.options import ModelOptions
from toolroll.models.padded import Asked, Strand, Written
from toolroll.models.pictures import Given, Request
from toolroll.models.pictures_hf import HFPictures, Job
from toolroll.models.sampling import StopWatch, sample
from toolroll.models.shared import RoomyBatches
from toolroll.models.vision import load_image_text, takes_images
from toolroll.preference.mixing import Coin, Mixing, begins_word, ends_sentence, mixed

R = TypeVar("R")
Alter = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
_NOBODY = Request((), Sampling())
_NOTHING = Asked((), Sampling())
_CONTEXT = 8  # tokens of an answer that are decoded to see where a word or a sentence ends


@dataclass(frozen=True, slots=True)
class Mixed(Request):
    """A request with what the other branch is asked instead, and the weight h of that branch.

    `images` of `other` may be pictures in memory; `alter` changes its tensors.
    """

    other: Request = _NOBODY
    h: float = 0.0
    alter: Alter | None = None


@dataclass(frozen=True, slots=True)
class Both(Asked):
    """A prompt of two branches."""

    other: Asked = _NOTHING
    h: float = 0.0


@dataclass(slots=True)
class Twin(Strand):
    """The strand of the branch that sees, and the one of the same answers that does not; a coin for each row."""

    unseen: Strand
    coins: list[Coin]
    h: Tensor  # [B, 1]

    def keep(self, places: Sequence[int]) -> None:
        """Go on with these rows only."""
        Strand.keep(self, places)
        self.unseen.keep(places)
        self.coins = [self.coins[place] for place in places]
        self.h = self.h[torch.tensor(places, device=self.h.device)]

    def row_bytes(self, rows: int) -> int:
        """Bytes of keys and values that both caches hold for each of `rows`."""
        return Strand.row_bytes(self, rows) + self.unseen.row_bytes(rows)


class TwoBranches(RoomyBatches):
    """Writes batches of answers, each token from the mixture of two branches; batches of plain prompts, too."""

    mixing = Mixing()

    def _begin(self, batch: Sequence[Asked]) -> Strand:
        seen = super()._begin(batch)
        both = [one for one in batch if isinstance(one, Both)]
        if not both:
            return seen
        unseen = super()._begin([one.other for one in both])
        coins = [Coin(one.sampling.seed, one.h) for one in both]
        h = torch.tensor([[one.h] for one in both], device=seen.mask.device)
        return Twin(seen.ids, seen.mask, seen.positions, seen.offset, seen.cache, seen.features, unseen, coins, h)

    def _next(self, strand: Strand, batch: Sequence[Asked], written: Sequence[Written]) -> Tensor:
        seen = super()._next(strand, batch, written)
        if not isinstance(strand, Twin):
            return seen
        unseen = super()._next(strand.unseen, batch, written)
        if not self.mixing.kind.startswith("switch"):
            heat = torch.tensor([[one.sampling.temperature or 1.0] for one in batch], device=seen.device)
            return mixed(seen, unseen, strand.h, heat, self.mixing)
        new = self._tossed(seen, unseen, strand.coins, batch, written)
        strand.coins = [coin.next() if toss else coin for coin, toss in zip(strand.coins, new, strict=True)]
        return _switched(seen, unseen, strand.coins)

    def _feed(self, strand: Strand, tokens: Sequence[int]) -> None:
        super()._feed(strand, tokens)
        if isinstance(strand, Twin):
            super()._feed(strand.unseen, tokens)

    def _finished(self, asked: Asked, written: Written, watch: StopWatch | None) -> bool:
        done = super()._finished(asked, written, watch)
        if done or not isinstance(asked, Both):
            return done
        return self._most is not None and len(asked.other.ids) + len(written.ids) >= self._most

    def _tossed(
        self,
        seen: Tensor,
        unseen: Tensor,
        coins: Sequence[Coin],
        batch: Sequence[Asked],
        written: Sequence[Written],
    ) -> list[bool]:
        """For each row, whether its coin is tossed before the next token."""
        if self.mixing.kind == "switch":
            return [True] * len(batch)
        if self.mixing.kind == "switch-sentence":
            return [not one.ids or ends_sentence(self._text(one.ids[-_CONTEXT:])) for one in written]
        # the token that comes next if the coin stays as it is tells whether a word begins
        logits = _switched(seen, unseen, coins).nan_to_num(0.0)
        counts = [len(one.ids) for one in written]
        tokens, _ = sample(logits, [one.sampling for one in batch], counts, [None] * len(batch))
        return [self._opens(one, token) for one, token in zip(written, tokens, strict=True)]

    def _opens(self, written: Written, token: int) -> bool:
        if not written.ids:
            return True
        known = written.ids[-_CONTEXT:]
        before = self._text(known)
        return begins_word(before, self._text([*known, token])[len(before) :])

    def _text(self, ids: Sequence[int]) -> str:
        assert self._codec is not None
        return self._codec.decode(ids)


class HFBranches(HFPictures):
    """An engine that also answers `Mixed` requests. All requests of a call are of that kind, or none.

    Raises RowError, in the place of a request, where one of its two prompts cannot be read.
    """

    _kind = TwoBranches

    def __init__(self, loaded: Loaded, *, mixing: Mixing, **settings: Any) -> None:
        super().__init__(loaded, **settings)
        batches = self._ready()
        assert isinstance(batches, TwoBranches)
        batches.mixing = mixing

    def _read(self, place: int, request: Request, given: Given | None) -> Job[R]:
        job: Job[R] = super()._read(place, request, given)
        if not isinstance(request, Mixed):
            return job
        other = super()._read(place, request.other, None).asked
        if request.alter is not None:
            other = replace(other, features=request.alter(other.features))
        asked = job.asked
        return replace(job, asked=Both(asked.ids, asked.sampling, asked.features, other, request.h))


def open_branches(options: ModelOptions, mixing: Mixing, notify: Callable[[str], None]) -> HFBranches:
    """Load the model of `options` for two branches. UsageError where another back end than hf is asked for."""
    chosen = choose_backend(options.backend, base_url=options.base_url, device=options.device)
    if options.backend in ("auto", "hf") and options.base_url is None:
        chosen = "hf"
    if chosen != "hf":
        why = f"the {chosen} back end does not give the logits of two branches: use hf, or --h 0 and --h-chosen 0"
        raise UsageError(why, place="--backend")
    device = choose_device(options.device, options.dtype)
    name = "sprite" if options.model == "embedded" else options.model
    trust = options.trust_remote_code
    if takes_images(name, notify, trust_remote_code=trust):
        loaded = load_image_text(name, device, trust_remote_code=trust, notify=notify)
    else:
        loaded = load_causal_lm(name, device, tokenizer=options.tokenizer, trust_remote_code=trust, notify=notify)
    notify(introduced(name, f"transformers on {device.text}, two branches"))
    return HFBranches(
        loaded,
        mixing=mixing,
        batch=options.batch_size,
        max_context=options.max_tokens,
        notify=notify,
    )


def _switched(seen: Tensor, unseen: Tensor, coins: Sequence[Coin]) -> Tensor:
    """The logits [B, V] of the branches whose turn it is."""
    turns = torch.tensor([[coin.unseen] for coin in coins], device=seen.device)
    return torch.where(turns, unseen, seen)
