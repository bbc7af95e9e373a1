"""The processes of one training run: one alone, or several that accelerate or torchrun started.

Every process holds the whole model and works on its share of each batch; the first one reads and writes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from itertools import islice
from typing import Any, TypeVar

import torch
from torch import Tensor

from toolroll.models.device import Device, choose_device

T = TypeVar("T")
_FOREVER = timedelta(days=30)  # the others wait for the first process, which waits for rollouts


class Team:
    """This process among its like: `rank` of `world`, its `device`, and what the processes tell each other."""

    def __init__(self, device: str = "auto", dtype: str = "auto") -> None:
        from accelerate import Accelerator
        from accelerate.utils import InitProcessGroupKwargs

        chosen = _trainable(choose_device(device, dtype), dtype)
        if chosen.is_cuda and int(os.environ.get("WORLD_SIZE", "1")) == 1:
            torch.cuda.set_device(chosen.name)
        self.accelerator = Accelerator(
            cpu=not chosen.is_cuda,
            mixed_precision="bf16" if chosen.dtype == "bfloat16" else "no",
            kwargs_handlers=[InitProcessGroupKwargs(timeout=_FOREVER)],
        )
        self.rank = int(self.accelerator.process_index)
        self.world = int(self.accelerator.num_processes)
        self.device = torch.device(chosen.name) if self.world == 1 else self.accelerator.device
        self.choice = chosen
        if not chosen.is_cuda:
            local = int(os.environ.get("LOCAL_WORLD_SIZE", self.world))
            torch.set_num_threads(max(1, chosen.threads // local))

    @property
    def is_main(self) -> bool:
        """Whether this is the process that reads and writes."""
        return self.rank == 0

    def autocast(self) -> AbstractContextManager[Any]:
        """Arithmetic in the number format that was asked for."""
        context: AbstractContextManager[Any] = self.accelerator.autocast()
        return context

    def share(self, value: T) -> T:
        """The first process's `value`, which may be any object that pickles."""
        if self.world == 1:
            return value
        from accelerate.utils import broadcast_object_list

        values: list[T] = broadcast_object_list([value])
        return values[0]

    def stream(self, values: Iterable[T]) -> Iterator[T]:
        """The first process's `values`, one after the other as they come; those of the others are not looked at."""
        if self.world == 1:
            yield from values
            return
        iterator = iter(values)
        while held := self.share(_next(iterator) if self.is_main else []):
            yield held[0]

    def merged(self, values: dict[int, Any]) -> dict[int, Any]:
        """The dicts of all processes in one."""
        if self.world == 1:
            return values
        from accelerate.utils import gather_object

        return {key: value for part in gather_object([values]) for key, value in part.items()}

    def add_up(self, tensors: list[Tensor]) -> None:
        """Replace tensors by their sums over all processes, in place. The same shapes everywhere."""
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        torch.distributed.all_reduce(flat)
        start = 0
        for tensor in tensors:
            tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()

    def close(self) -> None:
        """Leave the process group, when all are done with it."""
        if self.world > 1:
            self.accelerator.wait_for_everyone()


def _trainable(chosen: Device, dtype: str) -> Device:
    """float16 needs its gradients scaled; a GPU without bfloat16 trains in float32."""
    if chosen.dtype == "float16" and dtype == "auto":
        return Device(chosen.name, "float32", chosen.threads, chosen.text.replace("float16", "float32"))
    return chosen


def _next(iterator: Iterator[T]) -> list[T]:
    """The next value in a list, which is empty at the end."""
    return list(islice(iterator, 1))
