"""Which device, number format and number of threads a model runs with.

CUDA that torch can use decides, never "the package imports": a machine may have nvcc, a driver
library or a GPU build and still no GPU.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from toolroll.errors import UsageError

DTYPES = ("auto", "float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class Device:
    """What was chosen: `name` "cpu" or "cuda:N", `dtype` by torch's name for it, CPU `threads`, `text` to show."""

    name: str
    dtype: str
    threads: int
    text: str

    @property
    def is_cuda(self) -> bool:
        """Whether the model runs on a GPU."""
        return self.name.startswith("cuda")


def cpu_threads() -> int:
    """The cores allotted to this process: OMP_NUM_THREADS, else SLURM_CPUS_PER_TASK, else the scheduler's affinity.

    At least 1. More threads than free cores are far slower than fewer: at every operation they wait for each other.
    """
    for name in ("OMP_NUM_THREADS", "SLURM_CPUS_PER_TASK"):
        given = os.environ.get(name, "")
        if given.isdigit() and int(given) > 0:
            return int(given)
    return max(1, len(os.sched_getaffinity(0)))


def freest_gpu(count: int) -> tuple[int, int | None]:
    """The torch index (0..count-1) of the visible GPU with most free memory, and its free bytes (None when not known).

    pynvml counts all GPUs of the machine, torch those that CUDA_VISIBLE_DEVICES names, in its order.
    """
    try:
        import pynvml

        pynvml.nvmlInit()
    except Exception:  # no NVML library, no driver, a broken driver: all mean "cannot ask"
        return 0, None
    try:
        free = [int(pynvml.nvmlDeviceGetMemoryInfo(_handle(pynvml, entry)).free) for entry in _visible(count)]
    except pynvml.NVMLError:
        return 0, None
    finally:
        pynvml.nvmlShutdown()
    best = max(range(len(free)), key=free.__getitem__)
    return best, free[best]


def choose_device(device: str = "auto", dtype: str = "auto", *, option: str = "--device") -> Device:
    """Choose where and in which format a model runs, and set torch's number of CPU threads.

    `device`: "auto" (the freest GPU, else the CPU), "cpu", "cuda" (the freest GPU) or "cuda:N".
    `dtype`: "auto" is bfloat16 on a GPU that has it, float16 on one that has not, float32 on the CPU
    (bfloat16 arithmetic is emulated there, 10 to 50 times slower). Raises UsageError, with the `option` that named it
    as its place, for a device that is not there.
    """
    import torch

    if dtype not in DTYPES:
        raise UsageError(f"{dtype!r} is not one of {', '.join(DTYPES)}", place="--dtype")
    kind, _, index = device.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and (kind != "cuda" or not index.isdigit())):
        raise UsageError(f"{device!r} is not auto, cpu, cuda or cuda:N", place=option)
    threads = cpu_threads()
    torch.set_num_threads(threads)
    if kind == "cpu" or not torch.cuda.is_available():
        if kind == "cuda":
            raise UsageError("torch sees no usable GPU here", place=option)
        chosen = "float32" if dtype == "auto" else dtype
        why = "" if kind == "cpu" else " (no usable GPU)"
        return Device("cpu", chosen, threads, f"cpu, {chosen}, {threads} threads{why}")
    return _choose_gpu(torch, index, dtype, threads, option)


def is_out_of_memory(error: Exception) -> bool:
    """Whether `error` says that memory, of the CPU or a GPU, ran out."""
    import torch

    text = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or ("memory" in text and "alloc" in text)


def _choose_gpu(torch: Any, index: str, dtype: str, threads: int, option: str) -> Device:
    count = int(torch.cuda.device_count())
    if index and int(index) >= count:
        raise UsageError(f"cuda:{index} asked for, {count} visible", place=option)
    number, free = (int(index), None) if index else freest_gpu(count)
    chosen = dtype
    if dtype == "auto":
        with torch.cuda.device(number):
            chosen = "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    text = f"cuda:{number} ({torch.cuda.get_device_name(number)}), {chosen}"
    if free is not None:
        text += f", {free / 2**30:.1f} GiB free"
    return Device(f"cuda:{number}", chosen, threads, text)


def _visible(count: int) -> list[str]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    entries = [str(i) for i in range(count)] if named is None else [entry.strip() for entry in named.split(",")]
    return entries[:count]


def _handle(pynvml: Any, entry: str) -> Any:
    if entry.isdigit():
        return pynvml.nvmlDeviceGetHandleByIndex(int(entry))
    return pynvml.nvmlDeviceGetHandleByUUID(entry)
