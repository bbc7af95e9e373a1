"""One door to all back ends, of text and of image-text models: choose one, open it, say what was chosen."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolroll.errors import ToolrollError, UsageError, first_line
from toolroll.models.base import Codec, TextEngine

if TYPE_CHECKING:
    from toolroll.models.pictures import ImageTextEngine
    from toolroll.models.remote import RemoteEngine
    from toolroll.models.vllm import VLLMEngine

BACKENDS = ("auto", "hf", "vllm", "openai", "scripted")

_EMBEDDED = {
    "embedded": "embedded: SmolLM2-135M-Instruct, 135M parameters, good for format, plumbing and speed; not for facts",
    "sprite": "sprite: a tiny image-text model, good for rendered scenes and charts and for plumbing; not for photos",
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """The arguments of `open_text_engine`."""

    model: str
    base_url: str | None
    device: str
    dtype: str
    batch_size: int | None
    max_context: int | None
    tokenizer: str | None
    window: int
    timeout_s: float
    api_key_file: str | None
    cache: str | None
    trust_remote_code: bool
    notify: Callable[[str], None]
    stopped: Callable[[], bool] = lambda: False


def open_text_engine(
    *,
    model: str = "embedded",
    backend: str = "auto",
    base_url: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int | None = None,
    max_context: int | None = None,
    tokenizer: str | None = None,
    window: int = 16,
    timeout_s: float = 120.0,
    api_key_file: str | None = None,
    cache: str | None = None,
    trust_remote_code: bool = False,
    notify: Callable[[str], None] = lambda _: None,
) -> TextEngine:
    """Open the text model `model` with the back end that `choose_backend` chooses; `notify` hears which, in one line.

    model: a Hugging Face folder, hub id or .gguf file, or "embedded"; for `openai` the server's name for it, where
    "embedded" means the server's first; for `scripted` the file with the script. device, dtype, batch_size (sequences
    at a time): in-process back ends. base_url, window (requests under way), timeout_s (seconds a try), api_key_file,
    cache (a file of answers): servers. tokenizer: for `openai`, the tokenizer of the served model, which turns on work
    in token ids. max_context: tokens, at most what the model has. Raises ToolrollError (UsageError for a choice that
    cannot be).
    """
    chosen = choose_backend(backend, base_url=base_url, device=device)
    asked = _Asked(
        model=model,
        base_url=base_url,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        max_context=max_context,
        tokenizer=tokenizer,
        window=window,
        timeout_s=timeout_s,
        api_key_file=api_key_file,
        cache=cache,
        trust_remote_code=trust_remote_code,
        notify=notify,
    )
    return _OPENERS[chosen](asked)


def open_image_text(
    *,
    model: str = "sprite",
    backend: str = "auto",
    base_url: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    batch_size: int | None = None,
    max_context: int | None = None,
    tokenizer: str | None = None,
    window: int = 16,
    timeout_s: float = 120.0,
    api_key_file: str | None = None,
    cache: str | None = None,
    trust_remote_code: bool = False,
    notify: Callable[[str], None] = lambda _: None,
    stopped: Callable[[], bool] = lambda: False,
) -> ImageTextEngine:
    """Open `model` for conversations with images, as `open_text_engine` opens one for text.

    model: as there, or "sprite", the embedded image-text model, which also stands for a server's first; a text model
    is opened, too, and refuses images. tokenizer: of a text model, or of a server's. `stopped`: asked between tokens,
    in process; Stopped ends an answer when it says so. Raises ToolrollError (UsageError for a choice that cannot be).
    """
    chosen = choose_backend(backend, base_url=base_url, device=device)
    asked = _Asked(
        model=model,
        base_url=base_url,
        device=device,
        dtype=dtype,
        batch_size=batch_size,
        max_context=max_context,
        tokenizer=tokenizer,
        window=window,
        timeout_s=timeout_s,
        api_key_file=api_key_file,
        cache=cache,
        trust_remote_code=trust_remote_code,
        notify=notify,
        stopped=stopped,
    )
    return _PICTURES[chosen](asked)


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


def _open_hf(asked: _Asked) -> TextEngine:
    from toolroll.models.device import choose_device
    from toolroll.models.load import load_causal_lm
    from toolroll.models.text import HFEngine

    device = choose_device(asked.device, asked.dtype)
    _say(asked, f"transformers on {device.text}")
    loaded = load_causal_lm(
        asked.model,
        device,
        tokenizer=asked.tokenizer,
        trust_remote_code=asked.trust_remote_code,
        notify=asked.notify,
    )
    return HFEngine(loaded, batch=asked.batch_size, max_context=asked.max_context, notify=asked.notify)


def _open_vllm(asked: _Asked) -> VLLMEngine:
    from toolroll.models.adapters import is_adapter
    from toolroll.models.load import find_model
    from toolroll.models.vllm import VLLMEngine

    if is_adapter(asked.model):
        raise UsageError("a LoRA adapter needs the hf back end", place=asked.model)
    if asked.device not in ("auto", "cuda", "cpu"):
        raise UsageError("vLLM takes its GPUs from CUDA_VISIBLE_DEVICES", place="--device")
    _say(asked, "vLLM")
    return VLLMEngine(
        find_model(asked.model, asked.notify),
        codec=None if asked.tokenizer is None else _codec(asked),
        dtype=asked.dtype,
        batch_size=asked.batch_size,
        max_context=asked.max_context,
        trust_remote_code=asked.trust_remote_code,
    )


def _open_openai(asked: _Asked) -> RemoteEngine:
    from toolroll.models.remote import RemoteEngine

    assert asked.base_url is not None
    engine = RemoteEngine(
        asked.base_url,
        model=None if asked.model in _EMBEDDED else asked.model,
        codec=None if asked.tokenizer is None else _codec(asked),
        max_context=asked.max_context,
        window=asked.window,
        timeout_s=asked.timeout_s,
        api_key_file=None if asked.api_key_file is None else Path(asked.api_key_file),
        cache=None if asked.cache is None else Path(asked.cache),
    )
    how = "in token ids" if engine.codec is not None else "in text: no token ids, no tokenizer was named"
    asked.notify(f"model {engine.server.model} at {engine.place} ({engine.server.dialect}), {how}")
    return engine


def _open_scripted(asked: _Asked) -> TextEngine:
    from toolroll.models.scripted import ScriptedEngine

    asked.notify(f"model scripted by {asked.model}")
    return ScriptedEngine(Path(asked.model), max_context=asked.max_context)


_OPENERS: dict[str, Callable[[_Asked], TextEngine]] = {
    "hf": _open_hf,
    "vllm": _open_vllm,
    "openai": _open_openai,
    "scripted": _open_scripted,
}


def _pictures_hf(asked: _Asked) -> ImageTextEngine:
    from toolroll.models.device import choose_device
    from toolroll.models.load import load_causal_lm
    from toolroll.models.pictures_hf import HFPictures
    from toolroll.models.vision import load_image_text

    device = choose_device(asked.device, asked.dtype)
    pictured = _takes_images(asked)
    _say(asked, f"transformers on {device.text}{'' if pictured else '; it takes no images'}")
    trust = asked.trust_remote_code
    loaded = (
        load_image_text(asked.model, device, trust_remote_code=trust, notify=asked.notify)
        if pictured
        else load_causal_lm(
            asked.model, device, tokenizer=asked.tokenizer, trust_remote_code=trust, notify=asked.notify
        )
    )
    return HFPictures(
        loaded, batch=asked.batch_size, max_context=asked.max_context, stopped=asked.stopped, notify=asked.notify
    )


def _pictures_vllm(asked: _Asked) -> ImageTextEngine:
    from toolroll.models.pictures_vllm import VLLMPictures
    from toolroll.models.vision import load_processor

    pictured = _takes_images(asked)
    processor = (
        load_processor(asked.model, asked.notify, trust_remote_code=asked.trust_remote_code) if pictured else None
    )
    return VLLMPictures(_open_vllm(asked), processor)


def _pictures_openai(asked: _Asked) -> ImageTextEngine:
    from toolroll.models.pictures_remote import RemotePictures

    return RemotePictures(_open_openai(asked))


def _pictures_scripted(asked: _Asked) -> ImageTextEngine:
    from toolroll.models.pictures_scripted import ScriptedPictures

    asked.notify(f"model scripted by {asked.model}")
    return ScriptedPictures(Path(asked.model), max_context=asked.max_context)


_PICTURES: dict[str, Callable[[_Asked], ImageTextEngine]] = {
    "hf": _pictures_hf,
    "vllm": _pictures_vllm,
    "openai": _pictures_openai,
    "scripted": _pictures_scripted,
}


def _takes_images(asked: _Asked) -> bool:
    from toolroll.models.vision import takes_images

    pictured = takes_images(asked.model, asked.notify, trust_remote_code=asked.trust_remote_code)
    if pictured and asked.tokenizer is not None:
        raise UsageError("an image-text model has a tokenizer of its own", place="--tokenizer")
    return pictured


def _say(asked: _Asked, where: str) -> None:
    asked.notify(f"model {_EMBEDDED.get(asked.model, asked.model)}; {where}")


def _codec(asked: _Asked) -> Codec:
    from transformers import AutoTokenizer

    from toolroll.models.codec import HFCodec
    from toolroll.models.load import find_model

    assert asked.tokenizer is not None
    place = find_model(asked.tokenizer, asked.notify)
    try:
        return HFCodec(AutoTokenizer.from_pretrained(place, trust_remote_code=asked.trust_remote_code))
    except (OSError, ValueError, KeyError) as error:
        why = first_line(error)
        raise ToolrollError(f"cannot be loaded as a tokenizer: {why}", place=asked.tokenizer) from error
