"""Contrastive encoders: images and windows of token ids as vectors of length 1.

`open_encoder` opens a CLIP or SigLIP model of transformers, one of open_clip ("open_clip:MODEL/TAG"), or the embedded
encoder "glance".
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from toolroll.errors import ToolrollError, first_line
from toolroll.models.device import Device, is_out_of_memory
from toolroll.models.load import find_model, loading, quiet, short_name, weights_id, whole

OPEN_CLIP = "open_clip:"
GLANCE = "glance"


class Encoder(Protocol):
    """A model whose vectors of an image and of a text about it are alike."""

    name: str
    weights_id: str
    limit: int  #: tokens of a window, without what begins and ends it

    def encode(self, text: str) -> list[int]:
        """Token ids of a text without beginning and end; nothing is cut."""

    def texts(self, windows: Sequence[Sequence[int]]) -> Tensor:
        """Vectors [n, D] of windows, float32 on the CPU."""

    def images(self, images: Sequence[Any]) -> Tensor:
        """Vectors [n, D] of PIL images, float32 on the CPU."""


def open_encoder(
    name: str,
    device: Device,
    *,
    trust_remote_code: bool = False,
    notify: Callable[[str], None] = lambda _: None,
) -> Encoder:
    """Open the encoder `name`: a folder, a hub id, "open_clip:MODEL/TAG" or "glance"; `notify` hears what it is.

    Raises ToolrollError, with `name` as its place, for what is none.
    """
    if name.startswith(OPEN_CLIP):
        encoder: Encoder = OpenClip(name, device)
    else:
        place = find_model(name, notify)
        encoder = Transformers(name, place, device, trust_remote_code=trust_remote_code)
    notify(f"encoder {encoder.name} ({encoder.weights_id}) on {device.text}")
    return encoder


class Transformers:
    """A CLIP or SigLIP model of transformers. CLIP's vector is that of the end token, so every window has its own.

    SigLIP learned from texts that are filled up to the full length, without a mask, and is asked in the same way.
    """

    def __init__(self, name: str, place: str, device: Device, *, trust_remote_code: bool = False) -> None:
        from transformers import AutoImageProcessor, AutoModel, AutoTokenizer

        with loading("an encoder", name), quiet():
            self._words = AutoTokenizer.from_pretrained(place, trust_remote_code=trust_remote_code)
            self._pictures = AutoImageProcessor.from_pretrained(place, trust_remote_code=trust_remote_code)
            model = whole(
                AutoModel.from_pretrained(
                    place,
                    dtype=getattr(torch, device.dtype),
                    trust_remote_code=trust_remote_code,
                    output_loading_info=True,
                )
            )
        if not hasattr(model, "get_text_features") or not hasattr(model, "get_image_features"):
            raise ToolrollError("is no model of images and texts, as CLIP and SigLIP are", place=name)
        self._model = model.to(device.name).eval()
        self.name = short_name(name)
        self.weights_id = weights_id(place, model)
        config = model.config.get_text_config()
        self._full = "siglip" in model.config.model_type
        self._length = int(min(config.max_position_embeddings, self._words.model_max_length))
        self._begin, self._end = _frame(self._words)
        if not self._end:
            raise ToolrollError("its tokenizer ends no text, which the vectors are taken from", place=name)
        self.limit = self._length - len(self._begin) - len(self._end)

    def encode(self, text: str) -> list[int]:
        """Token ids of a text without beginning and end."""
        ids: list[int] = self._words(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def texts(self, windows: Sequence[Sequence[int]]) -> Tensor:
        """Vectors [n, D] of windows."""
        framed = [[*self._begin, *ids, *self._end] for ids in windows]
        longest = self._length if self._full else max(map(len, framed))
        fill = self._words.pad_token_id if self._words.pad_token_id is not None else self._end[-1]
        ids = torch.tensor([[*one, *[fill] * (longest - len(one))] for one in framed])
        given = {"input_ids": ids.to(self._model.device)}
        if not self._full:
            mask = torch.tensor([[1] * len(one) + [0] * (longest - len(one)) for one in framed])
            given["attention_mask"] = mask.to(self._model.device)
        return _vectors(lambda: self._model.get_text_features(**given))

    def images(self, images: Sequence[Any]) -> Tensor:
        """Vectors [n, D] of PIL images."""
        made = self._pictures(images=list(images), return_tensors="pt")
        given = {
            name: part.to(self._model.device, self._model.dtype if part.is_floating_point() else None)
            for name, part in made.items()
        }
        return _vectors(lambda: self._model.get_image_features(**given))


class OpenClip:
    """A model of the package open_clip, "open_clip:MODEL/TAG", with CLIP's tokenizer."""

    def __init__(self, name: str, device: Device) -> None:
        if importlib.util.find_spec("open_clip") is None:
            raise ToolrollError("needs the package open_clip: pip install open_clip_torch", place=name)
        library = importlib.import_module("open_clip")
        kind, _, tag = name.removeprefix(OPEN_CLIP).partition("/")
        try:
            model, _, self._prepare = library.create_model_and_transforms(kind, pretrained=tag or None)
            self._words = library.get_tokenizer(kind)
        except (OSError, RuntimeError, ValueError, KeyError, AssertionError) as error:
            raise ToolrollError(f"cannot be loaded as an encoder: {first_line(error)}", place=name) from error
        ends = [getattr(self._words, end, None) for end in ("sot_token_id", "eot_token_id")]
        if None in ends or not hasattr(self._words, "encode"):
            raise ToolrollError("its tokenizer is not CLIP's", place=name)
        self._begin, self._end = ends
        self._model = model.to(device.name).eval()
        self._at = device.name
        self.name = name.removeprefix(OPEN_CLIP)
        self.weights_id = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
        self._length = int(getattr(self._words, "context_length", None) or 77)
        self.limit = self._length - 2

    def encode(self, text: str) -> list[int]:
        """Token ids of a text without beginning and end."""
        return list(self._words.encode(text))

    def texts(self, windows: Sequence[Sequence[int]]) -> Tensor:
        """Vectors [n, D] of windows."""
        framed = [[self._begin, *ids, self._end] for ids in windows]
        ids = torch.tensor([[*one, *[0] * (self._length - len(one))] for one in framed]).to(self._at)
        return _vectors(lambda: self._model.encode_text(ids))

    def images(self, images: Sequence[Any]) -> Tensor:
        """Vectors [n, D] of PIL images."""
        pixels = torch.stack([self._prepare(image) for image in images]).to(self._at)
        return _vectors(lambda: self._model.encode_image(pixels))


def _vectors(compute: Callable[[], Any]) -> Tensor:
    """What `compute` gives, each row of length 1."""
    try:
        with torch.inference_mode():
            made = compute()
            vectors = made if isinstance(made, Tensor) else made.pooler_output
            return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu()
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise ToolrollError("out of memory: try a smaller --batch-size") from error
        raise


def _frame(words: Any) -> tuple[list[int], list[int]]:
    """The ids that a tokenizer puts before and behind a text."""
    bare: list[int] = words("a", add_special_tokens=False)["input_ids"]
    whole_ids: list[int] = words("a")["input_ids"]
    for at in range(len(whole_ids) - len(bare) + 1):
        if bare and whole_ids[at : at + len(bare)] == bare:
            return whole_ids[:at], whole_ids[at + len(bare) :]
    return [], []
