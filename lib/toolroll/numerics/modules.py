"""Layers whose weights are held in 16 bit and used in fp32, and the step from an ordinary model to them.

LayerCast (arXiv:2506.09501, section 4): weights and biases of linear layers are stored in 16 bit and raised to fp32
just before use; everything else is fp32. Raising is exact, so on a 16-bit checkpoint the model computes what an fp32
run on the same weights computes. The released code leaves lm_head in fp32; here every linear layer is converted, and
where lm_head and the token embedding are one tensor, they stay one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from toolroll.errors import ToolrollError
from toolroll.numerics.upcast import upcast_linear

SHORT = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}


class UpcastLinear(nn.Module):  # type: ignore[misc]
    """y = x W^T + b in fp32, with W [N, K] and b [N] stored in 16 bit.

    What is stored are buffers, not parameters: transformers takes the type of a model from its parameters, and this
    model computes in fp32. `weight` and `bias` give fp32 copies to code that reads them directly.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, how: str) -> None:
        super().__init__()
        self.register_buffer("stored", weight, persistent=False)
        self.register_buffer("stored_bias", bias, persistent=False)
        self.out_features, self.in_features = weight.shape
        self.how = how

    @property
    def weight(self) -> Tensor:
        """W in fp32, made anew."""
        return self.stored.float()

    @property
    def bias(self) -> Tensor | None:
        """B in fp32, made anew."""
        return None if self.stored_bias is None else self.stored_bias.float()

    def forward(self, x: Tensor) -> Tensor:  # [..., K] -> [..., N]
        """The layer."""
        return upcast_linear(x, self.stored, self.stored_bias, self.how)

    def columns(self, parts: int) -> list[nn.Module]:
        """The layer cut along K into `parts` layers; the first has the bias."""
        return [
            UpcastLinear(part, self.stored_bias if i == 0 else None, self.how)
            for i, part in enumerate(_cut(self.stored, parts))
        ]


class UpcastEmbedding(nn.Module):  # type: ignore[misc]
    """Rows of a table [V, H] stored in 16 bit, given in fp32."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.register_buffer("stored", table, persistent=False)
        self.num_embeddings, self.embedding_dim = table.shape

    @property
    def weight(self) -> Tensor:
        """The table in fp32, made anew."""
        return self.stored.float()

    def forward(self, ids: Tensor) -> Tensor:  # [...] -> [..., H]
        """The rows."""
        return functional.embedding(ids, self.stored).float()


class PlainColumns(nn.Module):  # type: ignore[misc]
    """A part of a linear layer cut along K, in the type it has."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, x: Tensor) -> Tensor:  # [..., K / parts] -> [..., N]
        """The part's share of the product."""
        return functional.linear(x, self.weight, self.bias)


class ShardedLinear(nn.Module):  # type: ignore[misc]
    """A row-parallel linear layer as `parts` devices would compute it: partial products, summed in the working type.

    Simulated on one device. Real devices sum in an order of their own (ring, tree, all at once), which also depends on
    the library; here it is first to last.
    """

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:  # [..., K] -> [..., N]
        """The layer."""
        first, *others = (part(piece) for part, piece in zip(self.parts, x.chunk(len(self.parts), dim=-1), strict=True))
        for other in others:
            first = first + other
        return first


@dataclass(frozen=True, slots=True)
class Converted:
    """What `convert` did: `layers` converted, `bytes` of all weights as held now, kinds of linear layers it `left`."""

    layers: int
    bytes: int
    left: tuple[str, ...]


def convert(model: Any, store: torch.dtype, how: str, *, tables: bool) -> Converted:
    """Turn `model` into LayerCast, in place: linear layers stored as `store`, all else in fp32.

    Layers whose own forward is that of nn.Linear or transformers' Conv1D are converted; a subclass that does something
    else is left in fp32, and named in the result. An embedding stays in 16 bit if a converted layer has the same tensor
    (tied), or `tables` says so: that its rows are 16-bit numbers already.
    """
    shared = _Shared(store)
    places = [
        (parent, name, child) for parent in [*model.modules()] for name, child in [*parent.named_children()]
    ]  # holds every old layer, so that no address of a tensor comes twice
    linear = [place for place in places if _is_linear(place[2])]
    left = {type(child).__name__ for _, _, child in places if isinstance(child, nn.Linear | Conv1D)}
    for parent, name, child in linear:
        weight = shared.store(child.weight)
        bias = None if child.bias is None else shared.store(child.bias)
        if isinstance(child, Conv1D):  # [K, N]
            weight = weight.t().contiguous()
        setattr(parent, name, UpcastLinear(weight, bias, how))
    for parent, name, child in places:
        if _is_table(child) and (tables or child.weight in shared):
            setattr(parent, name, UpcastEmbedding(shared.store(child.weight)))
    for module in [*model.modules()]:
        if not isinstance(module, UpcastLinear | UpcastEmbedding):
            _raise_own(module)
    kinds = left - {type(child).__name__ for _, _, child in linear}
    return Converted(len(linear), shared.bytes + weight_bytes(model), tuple(sorted(kinds)))


class _Shared:
    """Tensors in 16 bit, one for each tensor of a model, however many layers have it."""

    def __init__(self, store: torch.dtype) -> None:
        self._store = store
        self._made: dict[int, Tensor] = {}

    def __contains__(self, parameter: Tensor) -> bool:
        return parameter.data_ptr() in self._made

    def store(self, parameter: Tensor) -> Tensor:
        """`parameter` as stored."""
        address = parameter.data_ptr()
        if address not in self._made:
            self._made[address] = parameter.detach().to(self._store).contiguous()
        return self._made[address]

    @property
    def bytes(self) -> int:
        """Bytes of all of them."""
        return sum(map(_bytes, self._made.values()))


def shard(model: Any, parts: int, *, place: str) -> int:
    """Cut every row-parallel linear layer of `model` along K into `parts`, in place; how many there were.

    Row-parallel are the layers behind attention and behind the activation: o_proj, down_proj and what other models
    call them. Raises ToolrollError when a layer cannot be cut evenly, or there is none.
    """
    count = 0
    for parent in [*model.modules()]:
        for name, child in list(parent.named_children()):
            if name in ROW_PARALLEL and (isinstance(child, UpcastLinear) or _is_linear(child)):
                setattr(parent, name, ShardedLinear(_columns(child, parts, place)))
                count += 1
    if not count:
        raise ToolrollError("none of its layers is known to be row-parallel, so there is nothing to cut", place=place)
    return count


ROW_PARALLEL = frozenset(
    ["o_proj", "down_proj", "out_proj", "c_proj", "fc2", "dense_4h_to_h", "wo", "w2", "fc_out", "linear_2"]
)
"""Names of linear layers whose input is split over devices under tensor parallelism (Megatron-LM)."""


def weight_bytes(model: Any) -> int:
    """Bytes of a model's parameters, each tensor once."""
    return sum({parameter.data_ptr(): _bytes(parameter) for parameter in model.parameters()}.values())


def _columns(layer: Any, parts: int, place: str) -> list[nn.Module]:
    features = layer.nx if isinstance(layer, Conv1D) else layer.in_features
    if features % parts:
        raise ToolrollError(f"a layer of {features} inputs cannot be cut into {parts}", place=place)
    if isinstance(layer, UpcastLinear):
        return layer.columns(parts)
    weight = layer.weight.detach()
    if isinstance(layer, Conv1D):
        weight = weight.t()
    bias = None if layer.bias is None else layer.bias.detach()
    return [PlainColumns(part, bias if i == 0 else None) for i, part in enumerate(_cut(weight, parts))]


def _cut(weight: Tensor, parts: int) -> list[Tensor]:
    return [part.contiguous() for part in weight.chunk(parts, dim=1)]


def _is_linear(module: Any) -> bool:
    return type(module).forward in (nn.Linear.forward, Conv1D.forward)


def _is_table(module: Any) -> bool:
    return type(module).forward is nn.Embedding.forward and module.max_norm is None


def _raise_own(module: Any) -> None:
    """Raise a module's own parameters and buffers, not its children's, to fp32."""
    for parameter in module.parameters(recurse=False):
        if parameter.is_floating_point():
            parameter.data = parameter.data.float()
    for name, buffer in list(module.named_buffers(recurse=False)):
        if buffer.is_floating_point():
            setattr(module, name, buffer.float())


def _bytes(tensor: Tensor) -> int:
    return int(tensor.numel() * tensor.element_size())
