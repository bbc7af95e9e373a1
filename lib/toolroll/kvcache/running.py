"""Models that read prompts with a cache of our choice: for kv-dump and kv-eval."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from toolroll.errors import RowError, ToolrollError
from toolroll.kvcache.cache import forked
from toolroll.kvcache.spans import Mask, mask_of
from toolroll.models.device import Device
from toolroll.models.load import Loaded, load_causal_lm
from toolroll.models.padded import Asked, Batches, Strand, Written
from toolroll.models.vision import load_image_text, takes_images


def open_model(name: str, device: Device, *, trust_remote_code: bool, notify: Callable[[str], None]) -> Loaded:
    """A language or image-text model, whichever `name` is."""
    load = load_image_text if takes_images(name, notify, trust_remote_code=trust_remote_code) else load_causal_lm
    return load(name, device, trust_remote_code=trust_remote_code, notify=notify)


@dataclass(slots=True)
class Read:
    """A batch of B prompts that was read: the cache, the mask [B, T] of tokens, what follows, and the last logits."""

    cache: DynamicCache
    mask: Tensor
    offset: Tensor
    logits: Tensor  # [B, V]

    def forked(self) -> Read:
        """The same again, to go on from apart from this one."""
        return replace(self, cache=forked(self.cache))


class Prompts(Batches):
    """Reads prompts, padded on the left, into a cache of our choice; then writes, or reads what is given.

    `masks` are the tokens to pack of each prompt of a batch, bool [T] each. `make` gives the cache for them and for all
    tokens that are no padding, both [B, T].
    """

    def __init__(self, loaded: Loaded, **settings: Any) -> None:
        most = getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None)
        super().__init__(loaded.model, loaded.codec.eos_ids, most=most, top=0, **settings)
        self.most = most
        self.ends = loaded.codec.eos_ids
        self.text = loaded.codec.decode
        self.encode = loaded.codec.encode
        self.masks: Sequence[Mask] = ()
        self._begun: Read | None = None  # what `write_behind` goes on from, until its first token is drawn
        self.make: Callable[[Mask, Mask], DynamicCache] = lambda _, __: DynamicCache(config=loaded.model.config)

    def prepared(self, batch: Sequence[Asked]) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Ids and mask [B, T] of prompts, padded on the left, and the tensors of their images."""
        return self._read(batch)

    def new_cache(self) -> DynamicCache:
        """A cache for the batch whose `masks` are set."""
        return self._cache()

    def _cache(self) -> DynamicCache:
        longest = max(map(len, self.masks), default=0)
        chosen, real = np.zeros((2, max(1, len(self.masks)), longest), np.bool_)
        for row, mask in enumerate(self.masks):
            chosen[row, longest - len(mask) :], real[row, longest - len(mask) :] = mask, True
        return self.make(chosen, real)

    def read(self, batch: Sequence[Asked]) -> Read:
        """Let the model read prompts."""
        with torch.inference_mode():
            ids, mask, features = self._read(batch)
            positions, offset = self._positions(ids, mask, features)
            cache = self._cache()
            logits = self._step(ids, mask, positions, cache, features, 1)[:, -1]
        return Read(cache, mask, offset, logits)

    def write_behind(self, read: Read, batch: Sequence[Asked]) -> list[Written] | None:
        """What `write` gives, from the prompts as they were read; the cache goes on."""
        self._begun = read
        try:
            return self.write(batch)
        finally:
            self._begun = None

    def _begin(self, batch: Sequence[Asked]) -> Strand:
        read = self._begun
        if read is None:
            return super()._begin(batch)
        nothing = read.mask[:, :0]
        return Strand(nothing, read.mask, nothing, read.offset, read.cache, {})

    def _next(self, strand: Strand, batch: Sequence[Asked], written: Sequence[Written]) -> Tensor:
        read, self._begun = self._begun, None
        return super()._next(strand, batch, written) if read is None else read.logits

    def follow(self, read: Read, ids: Tensor) -> Tensor:
        """Logits [B, t, V] behind tokens [B, t] that come next; the cache goes on."""
        with torch.inference_mode():
            read.mask = torch.cat([read.mask, read.mask.new_ones(ids.shape)], 1)
            positions = (read.mask.cumsum(-1) - 1)[:, -ids.shape[1] :].clamp(min=0) + read.offset
            return self._step(ids, read.mask, self._in_space(positions), read.cache, {}, ids.shape[1])


def visual_tokens(loaded: Loaded, what: str) -> Callable[[Asked, Any], Mask]:
    """What finds the tokens of a prompt to pack, given the prompt and the view of its row.

    `what`: "images", the tokens that stand for images; "text", those of the row's `packed_text`, which its prompt
    contains; "all" but the last token, from which the answer follows. A row's own `packed_spans` go before.
    """
    config, codec = loaded.model.config, loaded.codec
    names = ("image_token_id", "image_token_index", "video_token_id")
    marks = [getattr(config, name) for name in names if isinstance(getattr(config, name, None), int)]
    pieces = codec.pieces() if what == "text" else []

    def find(asked: Asked, row: Any) -> Mask:
        ids = np.array(asked.ids)
        if row.packed_spans is not None:
            try:
                return mask_of([(first, last) for first, last in row.packed_spans], len(ids))
            except ToolrollError as error:
                raise RowError(f"packed_spans: {error.why}") from error
            except ValueError as error:
                raise RowError("packed_spans has to be pairs: a first token and one behind the last") from error
        if what == "all":
            return np.arange(len(ids)) < len(ids) - 1
        if what == "images":
            made: Mask = np.isin(ids, marks)
            return made
        if not row.packed_text:
            raise RowError("no `packed_text`, whose tokens are to be packed")
        texts = (row.packed_text, codec.decode(codec.encode(row.packed_text)))  # some tokenizers drop spaces
        return _covered([pieces[i] or b"" for i in asked.ids], texts)

    return find


def _covered(pieces: Sequence[bytes], texts: Sequence[str]) -> Mask:
    """The tokens all of whose bytes are within the first place of a text, or else of the next one."""
    ends = np.cumsum([len(one) for one in pieces])
    starts = ends - [len(one) for one in pieces]
    whole = b"".join(pieces)
    for text in texts:
        first = whole.find(text.encode())
        if text and first >= 0:
            made: Mask = (starts >= first) & (ends <= first + len(text.encode())) & (ends > starts)
            return made
    raise RowError("the prompt does not contain its `packed_text`")
