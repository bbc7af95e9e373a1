"""One door to all back ends, of text and of image-text models: choose one, open it, say what was chosen."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolroll.errors import UsageError
from toolroll.models.base import Codec, TextEngine

if TYPE_CHECKING:
    from toolroll.models.pictures import ImageTextEngine
    from toolroll.models.remote import RemoteEngine
    from toolroll.models.vllm import VLLMEngine

BACKENDS = ("auto", "hf", "vllm", "openai", "scripted")


def _unheard(_: str) -> None:
    """What hears nothing."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a model is opened by.

    model: a Hugging Face folder, hub id or .gguf file, or "embedded"; for `openai` the server's name for it, where
    "embedded" means the server's first; for `scripted` the file with the script. backend: what runs it, as
    `choose_backend` has it. device, dtype, batch_size (sequences at a time): in-process back ends. base_url,
    concurrency (requests under way), timeout_s (seconds a try), api_key_file, cache (a file of answers): servers.
    tokenizer: for `openai`, the tokenizer of the served model, which turns on work in token ids. max_context: tokens,
    at most what the model has. `notify` hears what was chosen, in one line.
    """

    model: str = "embedded"
    backend: str = "auto"
    base_url: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    batch_size: int | None = None
    max_context: int | None = None
    tokenizer: str | None = None
    concurrency: int = 16
    timeout_s: float = 120.0
    api_key_file: str | None = None
    cache: str | None = None
    trust_remote_code: bool = False
    notify: Callable[[str], None] = _unheard

    @property
    def chosen(self) -> str:
        """The back end."""
        return choose_backend(self.backend, base_url=self.base_url, device=self.device)


def open_text_engine(**settings: Any) -> TextEngine:
    """Open a text model; `settings` are fields of `Wanted`. UsageError for a choice that cannot be."""
    wanted = Wanted(**settings)
    return _OPENERS[wanted.chosen](wanted)


def open_image_text(**settings: Any) -> ImageTextEngine:
    """Open a model for conversations with images, as `open_text_engine` opens one for text.

    The model may also be "sprite", the embedded image-text model, which stands where none is named, and for a server's
    first. A text model is opened, too, and refuses images. tokenizer: of a text model, or of a server's.
    """
    wanted = Wanted(**{"model": "sprite", **settings})
    return _PICTURES[wanted.chosen](wanted)


def choose_backend(backend: str, *, base_url: str | None = None, device: str = "auto") -> str:
    """The back end meant by `backend`: "auto" is openai with a `base_url`, vllm where CUDA and vllm are, else hf.

    An installed vllm counts only where torch sees a GPU. Raises UsageError for contradictions.

    >>> choose_backend("auto", base_url="http://127.0.0.1:8000")
    'openai'
    """
    if backend not in BACKENDS:
        raise UsageError(f"{backend!r} is not one of {', '.join(BACKENDS)}", place="--backend")
    if base_url is not None and backend not in ("auto", "openai"):
        raise UsageError(f"the {backend} back end asks no server: drop one of the two", place="--base-url")
    if base_url is None and backend == "openai":
        raise UsageError("openai needs the address of a server (--base-url)", place="--backend")
    if backend != "auto":
        return backend
    if base_url is not None:
        return "openai"
    if device == "cpu" or importlib.util.find_spec("vllm") is None:
        return "hf"
    import torch

    return "vllm" if torch.cuda.is_available() else "hf"


def _open_hf(wanted: Wanted) -> TextEngine:
    from toolroll.models.device import choose_device
    from toolroll.models.load import load_causal_lm
    from toolroll.models.text import HFEngine

    device = choose_device(wanted.device, wanted.dtype)
    _say(wanted, f"transformers on {device.text}")
    loaded = load_causal_lm(
        wanted.model,
        device,
        tokenizer=wanted.tokenizer,
        trust_remote_code=wanted.trust_remote_code,
        notify=wanted.notify,
    )
    return HFEngine(loaded, batch=wanted.batch_size, max_context=wanted.max_context, notify=wanted.notify)


def _open_vllm(wanted: Wanted) -> VLLMEngine:
    from toolroll.models.adapters import is_adapter
    from toolroll.models.load import find_model
    from toolroll.models.vllm import VLLMEngine

    if is_adapter(wanted.model):
        raise UsageError("a LoRA adapter needs the hf back end", place=wanted.model)
    if wanted.device not in ("auto", "cuda", "cpu"):
        raise UsageError("vLLM takes its GPUs from CUDA_VISIBLE_DEVICES", place="--device")
    _say(wanted, "vLLM")
    return VLLMEngine(
        find_model(wanted.model, wanted.notify),
        codec=None if wanted.tokenizer is None else _codec(wanted),
        dtype=wanted.dtype,
        batch_size=wanted.batch_size,
        max_context=wanted.max_context,
        trust_remote_code=wanted.trust_remote_code,
    )


def _open_openai(wanted: Wanted) -> RemoteEngine:
    from toolroll.models.remote import RemoteEngine

    assert wanted.base_url is not None
    engine = RemoteEngine(
        wanted.base_url,
        model=None if wanted.model in ("embedded", "sprite") else wanted.model,
        codec=None if wanted.tokenizer is None else _codec(wanted),
        max_context=wanted.max_context,
        concurrency=wanted.concurrency,
        timeout_s=wanted.timeout_s,
        api_key_file=None if wanted.api_key_file is None else Path(wanted.api_key_file),
        cache=None if wanted.cache is None else Path(wanted.cache),
    )
    how = "in token ids" if engine.codec is not None else "in text: no token ids, no tokenizer was named"
    wanted.notify(f"model {engine.server.model} at {engine.place} ({engine.server.dialect}), {how}")
    return engine


def _open_scripted(wanted: Wanted) -> TextEngine:
    from toolroll.models.scripted import ScriptedEngine

    wanted.notify(f"model scripted by {wanted.model}")
    return ScriptedEngine(Path(wanted.model), max_context=wanted.max_context)


_OPENERS: dict[str, Callable[[Wanted], TextEngine]] = {
    "hf": _open_hf,
    "vllm": _open_vllm,
    "openai": _open_openai,
    "scripted": _open_scripted,
}


def _pictures_hf(wanted: Wanted) -> ImageTextEngine:
    from toolroll.models.device import choose_device
    from toolroll.models.load import load_causal_lm
    from toolroll.models.pictures_hf import HFPictures
    from toolroll.models.vision import load_image_text

    device = choose_device(wanted.device, wanted.dtype)
    pictured = _takes_images(wanted)
    _say(wanted, f"transformers on {device.text}{'' if pictured else '; it takes no images'}")
    trust = wanted.trust_remote_code
    loaded = (
        load_image_text(wanted.model, device, trust_remote_code=trust, notify=wanted.notify)
        if pictured
        else load_causal_lm(
            wanted.model, device, tokenizer=wanted.tokenizer, trust_remote_code=trust, notify=wanted.notify
        )
    )
    return HFPictures(loaded, batch=wanted.batch_size, max_context=wanted.max_context, notify=wanted.notify)


def _pictures_vllm(wanted: Wanted) -> ImageTextEngine:
    from toolroll.models.pictures_vllm import VLLMPictures
    from toolroll.models.vision import load_processor

    pictured = _takes_images(wanted)
    processor = (
        load_processor(wanted.model, wanted.notify, trust_remote_code=wanted.trust_remote_code) if pictured else None
    )
    return VLLMPictures(_open_vllm(wanted), processor)


def _pictures_openai(wanted: Wanted) -> ImageTextEngine:
    from toolroll.models.pictures_remote import RemotePictures

    return RemotePictures(_open_openai(wanted))


def _pictures_scripted(wanted: Wanted) -> ImageTextEngine:
    from toolroll.models.pictures_scripted import ScriptedPictures

    wanted.notify(f"model scripted by {wanted.model}")
    return ScriptedPictures(Path(wanted.model), max_context=wanted.max_context)


_PICTURES: dict[str, Callable[[Wanted], ImageTextEngine]] = {
    "hf": _pictures_hf,
    "vllm": _pictures_vllm,
    "openai": _pictures_openai,
    "scripted": _pictures_scripted,
}


def _takes_images(wanted: Wanted) -> bool:
    from toolroll.models.vision import takes_images

    pictured = takes_images(wanted.model, wanted.notify, trust_remote_code=wanted.trust_remote_code)
    if pictured and wanted.tokenizer is not None:
        raise UsageError("an image-text model has a tokenizer of its own", place="--tokenizer")
    return pictured


def _say(wanted: Wanted, where: str) -> None:
    from toolroll.models.load import introduced

    wanted.notify(introduced(wanted.model, where))


def _codec(wanted: Wanted) -> Codec:
    from transformers import AutoTokenizer

    from toolroll.models.codec import HFCodec
    from toolroll.models.load import find_model, loading

    assert wanted.tokenizer is not None
    place = find_model(wanted.tokenizer, wanted.notify)
    with loading("a tokenizer", wanted.tokenizer):
        return HFCodec(AutoTokenizer.from_pretrained(place, trust_remote_code=wanted.trust_remote_code))
