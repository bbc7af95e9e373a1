"""Python, and the packages that commands import: which are there, and whether they are new enough."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib import metadata
from typing import Any

from toolroll import __version__
from toolroll.errors import first_line
from toolroll.records.machine import MachinePart

LEAST_PYTHON = (3, 11)
_REQUIREMENT = re.compile(r"([\w.-]+)(?:\[[^]]*\])?([^;]*)")
#: Packages that come with toolroll.
CORE = {
    "torch": "models and training",
    "transformers": "models of Hugging Face folders and of the hub",
    "safetensors": "weights, keys and values in files",
    "accelerate": "training on several processes",
    "gguf": "the embedded language model, and .gguf files",
    "numpy": "arrays",
    "pillow": "images",
    "numba": "kernels on a CPU",
    "bm25s": "rag-index, bm25: retrievers",
    "httpx2": "servers of models and of searches",
    "nvidia-ml-py": "the freest GPU",
    "tqdm": "a bar on a terminal",
    "zstandard": ".zst files",
    "orjson": "JSON lines",
    "msgspec": "records",
    "click": "the command line",
}
#: Packages that are asked for: what is written in brackets behind toolroll to have them, and what for.
EXTRAS = {
    "vllm": ("vllm", "--backend vllm"),
    "gsplat": ("gpu", "nvs-train, nvs-render on a GPU"),
    "faiss-cpu": ("faiss", "faiss: retrievers, rag-index --faiss"),
    "peft": ("lora", "--lora, and adapters as models"),
    "matplotlib": ("plot", "--plot, charts of pair-make"),
    "math-verify": ("math", "answer-check --kind math"),
    "scipy": ("segment", "pmp-train, nvs-train"),
    "pycolmap": ("colmap", "nvs-prep --points sift"),
    "pydantic-monty": ("monty", "--sandbox monty"),
}


def python() -> Iterator[MachinePart]:
    """The interpreter, and toolroll itself."""
    found = ".".join(map(str, sys.version_info[:3]))
    yield MachinePart(
        part="python",
        ok=sys.version_info >= LEAST_PYTHON,
        core=True,
        found=f"{found}, {sys.executable}",
        used_for=f"toolroll {__version__}",
        install=None if sys.version_info >= LEAST_PYTHON else "apt install python3.11",
    )


def packages() -> Iterator[MachinePart]:
    """Those that come with toolroll, then those that are asked for."""
    wanted = requirements()
    for name, used_for in CORE.items():
        found, why = version_of(name, wanted.get(name, ""))
        part = MachinePart(
            part=name,
            ok=not why,
            core=True,
            found=why or found,
            used_for=used_for,
            install=f"pip install '{name}{wanted.get(name, '')}'" if why else None,
        )
        yield _torch(part) if name == "torch" and not why else part
    for name, (extra, used_for) in EXTRAS.items():
        found, why = version_of(name, wanted.get(name, ""))
        install = f"pip install 'toolroll[{extra}]'" if why else None
        if name in ("vllm", "gsplat") and not why and not cuda_works():
            why = f"{found}, without a GPU that torch can use"
        yield MachinePart(part=name, ok=not why, core=False, found=why or found, used_for=used_for, install=install)


def requirements() -> dict[str, str]:
    """The versions that toolroll asks for, as its own metadata has them: of each package the bounds, as ">=5.18,<6"."""
    try:
        given = metadata.requires("toolroll") or []
    except metadata.PackageNotFoundError:
        return {}
    found: dict[str, str] = {}
    for text in given:
        if match := _REQUIREMENT.match(text):
            found.setdefault(match[1], match[2].replace(" ", ""))
    return found


def version_of(name: str, bounds: str = "") -> tuple[str, str]:
    """The version of an installed package, and what is wrong with it; "" where nothing is."""
    try:
        found = metadata.version(name)
    except metadata.PackageNotFoundError:
        return "", "not installed"
    if bounds and not _within(found, bounds):
        return found, f"{found}, which is not {bounds}"
    return found, ""


@cache
def torch_module() -> Any:
    """torch, or the line that says why it cannot be imported."""
    try:
        import torch
    except Exception as error:  # not installed, or its libraries do not load
        return first_line(error)
    return torch


def cuda_works() -> bool:
    """Whether torch sees a GPU that it can use."""
    torch = torch_module()
    return not isinstance(torch, str) and bool(torch.cuda.is_available())


def _torch(part: MachinePart) -> MachinePart:
    import msgspec

    from toolroll.models.device import cpu_threads

    torch = torch_module()
    if isinstance(torch, str):
        install = "pip install --force-reinstall torch"
        return msgspec.structs.replace(part, ok=False, found=f"cannot be imported: {torch}", install=install)
    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "a build for CPUs"
    return msgspec.structs.replace(part, found=f"{torch.__version__}, {build}, {cpu_threads()} threads")


def _within(version: str, bounds: str) -> bool:
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError:
        return True  # nobody to ask
    return SpecifierSet(bounds).contains(version, prereleases=True)
