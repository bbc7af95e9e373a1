"""What a run depends on beyond its settings: versions, processor, libraries, device."""

from __future__ import annotations

import re
from typing import Any

from toolroll.errors import ToolrollError
from toolroll.models.device import Device


def environment(device: Device, *packages: str) -> dict[str, Any]:
    """Versions of torch and `packages`, the device's name, what instructions torch uses there, and what multiplies."""
    from importlib import metadata

    import torch

    if device.is_cuda:
        number = torch.device(device.name).index or 0
        capability = ".".join(map(str, torch.cuda.get_device_capability(number)))
        own = {"device": torch.cuda.get_device_name(number), "capability": capability}
    else:
        own = {"device": processor(), "capability": torch.backends.cpu.get_cpu_capability()}
    versions = {name: metadata.version(name) for name in ("torch", *packages)}
    return {**own, "blas": blas(torch.__config__.show()), "versions": versions}


def exact_products(device: Device) -> None:
    """Turn TF32 and other shortcuts of fp32 products off, and make sure of it. ToolrollError when they stay on."""
    import torch

    torch.set_float32_matmul_precision("highest")
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    if torch.get_float32_matmul_precision() != "highest" or torch.backends.cuda.matmul.allow_tf32:
        raise ToolrollError("TF32 cannot be turned off, so fp32 products would have 10 bits", place=device.name)


def processor() -> str:
    """The name of this machine's processor."""
    import platform

    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.machine()


def blas(config: str) -> str:
    """The library of matrix products, from `torch.__config__.show()`.

    >>> blas("  - Intel(R) oneAPI Math Kernel Library Version 2024.2-Product Build 20240605 for Intel(R) 64")
    'mkl 2024.2'
    """
    if version := re.search(r"Math Kernel Library Version (\S+?)-", config):
        return f"mkl {version[1]}"
    named = re.search(r"BLAS_INFO=(\w+)", config)
    return named[1] if named else "unknown"
