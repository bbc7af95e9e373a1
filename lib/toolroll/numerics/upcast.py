"""The linear layer of LayerCast: weights are held in 16 bit, all arithmetic is fp32.

Raising bfloat16 or float16 to fp32 is exact, so y = x Wᵀ + b differs from an fp32 layer with the same weights by the
order of sums only. K is the length of a dot product, N the number of outputs, M the number of rows of x, all leading
dimensions together. For inference: no gradients.

Three ways give y:

    naive    an fp32 copy of W for each call, then F.linear: slow, and what the others are compared with
    blocked  some rows of W at a time, raised into memory that is used again and stays in the cache; no compiler
    fused    raised in registers, each dot product summed in one order: the bits do not depend on the batch, nor on the
             number of threads (`fused_cpu`: numba; `fused_cuda`: Triton)
"""

from __future__ import annotations

import threading
from math import prod

import torch
from torch import Tensor
from torch.nn.functional import linear

from toolroll.errors import ToolrollError, UsageError

HOW = ("naive", "blocked", "fused")
SCRATCH = 4 << 20  #: bytes of fp32 weights that `blocked` holds at a time, for each thread that calls it
FEW = 8  #: up to so many rows of x, one thread of MKL is faster with x Wᵀ, else with W xᵀ

_held = threading.local()


def upcast_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, how: str = "blocked") -> Tensor:
    """The layer y = x Wᵀ + b: x [..., K] and y [..., N] fp32, W = `weight` [N, K] and b = `bias` [N] 16 bit or fp32.

    An fp32 weight is multiplied by F.linear, whatever `how` says. Rows of x and of the weight may lie apart (slices of
    larger matrices); elements of a row that do, as in a transposed weight, are copied at each call. ToolrollError for
    types, shapes and devices that do not fit; UsageError for a `how` that cannot be had here.

    >>> x, weight = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 0.5], [1.0, -1.0]], dtype=torch.bfloat16)
    >>> upcast_linear(x, weight, torch.tensor([0.0, 10.0]))
    tensor([[4., 9.]])
    """
    if how not in HOW:
        raise UsageError(f"{how!r} is not one of {', '.join(HOW)}", place="how")
    _check(x, weight, bias)
    with torch.no_grad():
        if weight.dtype == torch.float32 or how == "naive":
            _check_precision()
            return linear(x, weight.float(), None if bias is None else bias.float())
        rows = x.reshape(prod(x.shape[:-1]), x.shape[-1])
        y = _blocked(rows, weight) if how == "blocked" else _fused(rows, weight)
        if bias is not None:
            y += bias
        return y.view(*x.shape[:-1], weight.shape[0])


def _check(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    stored = (torch.bfloat16, torch.float16, torch.float32)
    if x.dtype != torch.float32:
        raise ToolrollError(f"x is {_name(x)}, not float32: LayerCast computes in fp32")
    if weight.dtype not in stored:
        raise ToolrollError(f"the weight is {_name(weight)}, not bfloat16, float16 or float32")
    if weight.dim() != 2 or x.dim() < 1 or x.shape[-1] != weight.shape[1]:
        raise ToolrollError(f"x {list(x.shape)} and the weight {list(weight.shape)} do not fit: [..., K] and [N, K] do")
    if bias is not None and bias.dtype not in stored:
        raise ToolrollError(f"the bias is {_name(bias)}, not bfloat16, float16 or float32")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ToolrollError(f"the bias is {list(bias.shape)}, not [{weight.shape[0]}]")
    devices = {str(one.device) for one in (x, weight, bias) if one is not None}
    if len(devices) > 1:
        raise ToolrollError(f"x, weight and bias are on several devices: {', '.join(sorted(devices))}")


def _name(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _check_precision() -> None:
    """Torch may have been told to round what it multiplies: to TF32 on a GPU, to bfloat16 on a CPU."""
    precision = torch.get_float32_matmul_precision()
    if precision != "highest":
        raise ToolrollError(f"torch's float32_matmul_precision is {precision}, not highest: LayerCast computes in fp32")


def _blocked(x: Tensor, weight: Tensor) -> Tensor:
    """[M, K], [N, K] -> [M, N], some rows of the weight at a time.

    The block is the left factor where that is faster: W xᵀ has more rows to share among threads than a short x.
    """
    _check_precision()
    (rows, size), columns = x.shape, weight.shape[0]
    upright = torch.get_num_threads() > 1 or not 1 < rows <= FEW
    y = x.new_empty((columns, rows) if upright else (rows, columns))
    scratch = _scratch(x.device, size)
    for start in range(0, columns, len(scratch)):
        part = weight[start : start + len(scratch)]
        raised = scratch[: len(part)].copy_(part)
        if upright:
            torch.mm(raised, x.t(), out=y[start : start + len(part)])
        else:
            torch.mm(x, raised.t(), out=y[:, start : start + len(part)])
    return y.t().contiguous() if upright else y


def _scratch(device: torch.device, size: int) -> Tensor:
    """Memory for rows of `size` fp32 weights, at least one: the calling thread's own, the same at each call."""
    held: dict[torch.device, Tensor] = _held.__dict__.setdefault("scratch", {})
    needed = max(SCRATCH // 4, size)
    if device not in held or held[device].numel() < needed:
        with torch.inference_mode(False):  # a tensor made in that mode could not be written to outside of it
            held[device] = torch.empty(needed, device=device)
    rows = max(1, needed // max(1, size))
    return held[device][: rows * size].view(rows, size)


def _fused(x: Tensor, weight: Tensor) -> Tensor:
    # Imported here because numba and Triton take their time, and are not needed for the other ways.
    if x.device.type == "cpu":
        from toolroll.numerics import fused_cpu

        return fused_cpu.fused_linear(x, weight)
    if x.device.type != "cuda":
        raise UsageError(f"fused needs a CPU or CUDA, not {x.device.type}: take blocked", place="how")
    try:
        from toolroll.numerics import fused_cuda
    except ImportError as error:
        raise UsageError("fused on CUDA needs Triton: pip install triton, or take blocked", place="how") from error
    return fused_cuda.fused_linear(x, weight)
