"""Processors: the cores and the memory of this process, and NVIDIA's GPUs as their driver and torch see them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from toolroll.doctor.packages import cuda_works, torch_module
from toolroll.records.machine import MachinePart

GIB = 2**30
_NVIDIA = "0x10de"  # the vendor's number on the PCI bus
_DEVICES = Path("/sys/bus/pci/devices")
_USED_FOR = "models, training and splats, many times faster"


def cpu() -> Iterator[MachinePart]:
    """Cores that this process may run on, threads that models take, memory."""
    from toolroll.models.device import cpu_threads

    cores = len(os.sched_getaffinity(0))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = f"{cores} of {os.cpu_count()} cores, {cpu_threads()} threads for a model, {memory / GIB:.0f} GiB of memory"
    yield MachinePart(part="cpu", ok=True, core=True, found=found, used_for="everything")


def gpu() -> Iterator[MachinePart]:
    """One part for each GPU that the driver shows, or one that says why there is none."""
    try:
        cards = _cards()
    except Exception as error:  # no package, no driver, a broken driver
        cards, why = [], " ".join(str(error).split()) or type(error).__name__
        if not _has_card():
            why = "no NVIDIA GPU in this machine"
    else:
        why = "the driver shows no GPU"
    if not cards:
        install = "apt install nvidia-driver" if _has_card() else None
        yield MachinePart(part="gpu", ok=False, core=False, found=why, used_for=_USED_FOR, install=install)
    for number, (name, free, total) in enumerate(cards):
        usable = cuda_works()
        found = f"{name}, {free / GIB:.1f} of {total / GIB:.1f} GiB free"
        yield MachinePart(
            part=f"gpu {number}",
            ok=usable,
            core=False,
            found=found if usable else f"{found}; torch cannot use it: {_torch_why()}",
            used_for=_USED_FOR,
            install=None if usable else "pip install --force-reinstall torch",
        )


def _cards() -> list[tuple[str, int, int]]:
    """Name, free and total bytes of each GPU, by the driver's library."""
    import pynvml

    pynvml.nvmlInit()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
        return [(_text(pynvml.nvmlDeviceGetName(handle)), *_memory(pynvml, handle)) for handle in handles]
    finally:
        pynvml.nvmlShutdown()


def _memory(pynvml: Any, handle: Any) -> tuple[int, int]:
    memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return int(memory.free), int(memory.total)


def _text(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name)


def _torch_why() -> str:
    torch = torch_module()
    if isinstance(torch, str):
        return torch
    return "CUDA_VISIBLE_DEVICES hides it, or the driver is too old" if torch.version.cuda else "it is a build for CPUs"


def _has_card() -> bool:
    """Whether there is a card on the bus, whatever the driver."""
    try:
        vendors = [path.read_text().strip() for path in _DEVICES.glob("*/vendor")]
        kinds = [path.read_text().strip() for path in _DEVICES.glob("*/class")]
    except OSError:
        return False
    return any(vendor == _NVIDIA and kind.startswith("0x03") for vendor, kind in zip(vendors, kinds, strict=False))
