"""LoRA adapters as models: a folder with adapter_config.json names its base model and holds what is added to it."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from toolroll.errors import ToolrollError

CONFIG = "adapter_config.json"
_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def is_adapter(place: str | Path) -> bool:
    """Whether `place` is the folder of an adapter."""
    return (Path(place) / CONFIG).is_file()


def base_of(folder: Path) -> str:
    """The model the adapter in `folder` was made for, as its config names it. ToolrollError where it names none."""
    try:
        base = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ToolrollError(f"{CONFIG} cannot be read as that of an adapter", place=str(folder)) from error
    if not isinstance(base, str) or not base:
        raise ToolrollError(f"{CONFIG} names no base model", place=str(folder))
    if is_adapter(base):
        raise ToolrollError(f"its base model {base} is an adapter too: merge that one first", place=str(folder))
    return base


def merged(base: Any, folder: Path) -> Any:
    """The model `base` with the adapter in `folder` added into its weights; `base` is used up.

    Raises ToolrollError when peft is not installed or not all of the adapter is there.
    """
    try:
        from peft import PeftModel
    except ImportError as error:
        raise ToolrollError("a LoRA adapter needs peft: pip install 'toolroll[lora]'", place=str(folder)) from error
    if not any((folder / name).is_file() for name in _WEIGHTS):  # peft would look for it on the hub
        raise ToolrollError(f"the adapter has no {_WEIGHTS[0]}", place=str(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft and transformers warn each other
        warnings.filterwarnings("error", message="Found missing adapter keys")
        try:
            return PeftModel.from_pretrained(base, str(folder)).merge_and_unload()
        except UserWarning as error:
            raise ToolrollError("some of the adapter's weights are missing", place=str(folder)) from error


def files_of(folder: Path) -> list[Path]:
    """The files that tell this adapter from others."""
    return [folder / CONFIG, *(file for name in _WEIGHTS if (file := folder / name).is_file())]
