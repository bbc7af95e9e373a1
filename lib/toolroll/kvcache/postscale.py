"""Attention by codes that stay packed: scores and outputs of heads without ever having their keys and values.

With x^ = lo + scale code, and a range for all tokens of a channel,

    q k^_t = sum_i (q_i scale_i) code_ti + q lo                      the second term is one number for a query
    sum_t p_t v^_ti = scale_i sum_t p_t code_ti + lo_i sum_t p_t

so that only sums over codes are left, which `kernels` make of the bytes. Ranges for groups of tokens or of channels
split these sums. Queries of all heads that share a key head, and of several tokens, go through one pass over it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from toolroll.kvcache.block import Block
from toolroll.kvcache.scheme import Scheme


@dataclass(frozen=True, slots=True)
class Codes:
    """Heads as codes on a device: codes [H, rows, bytes] uint8, lo and scale [H, ...] as they are stored."""

    scheme: Scheme
    tokens: int
    channels: int
    codes: Tensor
    lo: Tensor
    scale: Tensor

    @property
    def stored_bytes(self) -> int:
        """Bytes of all three."""
        return sum(one.numel() * one.element_size() for one in (self.codes, self.lo, self.scale))


def codes_of(block: Block, device: torch.device) -> Codes:
    """A block on a device."""
    kind = torch.float16 if block.scheme.meta == "fp16" else torch.float32
    lo, scale = (torch.from_numpy(one).to(device, kind) for one in (block.lo, block.scale))
    return Codes(block.scheme, block.tokens, block.channels, torch.from_numpy(block.codes).to(device), lo, scale)


def scores(keys: Codes, queries: Tensor) -> Tensor:
    """Products q k^ [H, R, T] of queries [H, R, D] in fp32 with the keys of their heads."""
    lo, scale = keys.lo.float(), keys.scale.float()
    heads, each, _ = queries.shape
    if keys.scheme.along == "channels":
        made = queries.new_zeros(heads, each, keys.tokens)
        for group, channels in _channel_groups(keys):
            part = queries[:, :, channels]
            made += _by_codes(keys, channels, part) * scale[:, None, :, group]
            made += part.sum(-1, keepdim=True) * lo[:, None, :, group]
        return made
    parts = [] if keys.tokens else [queries.new_zeros(heads, each, 0)]
    for tokens, size, first in _token_groups(keys):
        count = (tokens.stop - tokens.start) // size
        low, wide = (one[:, first : first + count] for one in (lo, scale))  # [H, G, D]
        weights = (queries[:, None] * wide[:, :, None]).flatten(0, 1)  # [H G, R, D]
        found = _keys_of_tokens(keys, tokens, size, weights).unflatten(0, (heads, count))  # [H, G, R, size]
        found = found + torch.einsum("hrd,hgd->hgr", queries, low).unsqueeze(-1)
        parts.append(found.transpose(1, 2).flatten(2))
    return parts[0] if len(parts) == 1 else torch.cat(parts, -1)


def outputs(values: Codes, probabilities: Tensor) -> Tensor:
    """Sums p v^ [H, R, D] of probabilities [H, R, T] in fp32 with the values of their heads."""
    lo, scale = values.lo.float(), values.scale.float()
    heads, each, _ = probabilities.shape
    made = probabilities.new_zeros(heads, each, values.channels)
    if values.scheme.along == "channels":
        for group, channels in _channel_groups(values):
            shares = probabilities * scale[:, None, :, group]
            made[:, :, channels] = _values_of_channels(values, channels, shares)
            made[:, :, channels] += torch.einsum("hrt,ht->hr", probabilities, lo[:, :, group]).unsqueeze(-1)
        return made
    for tokens, size, first in _token_groups(values):
        count = (tokens.stop - tokens.start) // size
        low, wide = (one[:, first : first + count] for one in (lo, scale))
        part = probabilities[:, :, tokens].unflatten(2, (count, size)).transpose(1, 2)  # [H, G, R, size]
        found = _values_of_tokens(values, tokens, size, part.flatten(0, 1)).unflatten(0, (heads, count))
        made += torch.einsum("hgrd,hgd->hrd", found, wide)
        made += torch.einsum("hgr,hgd->hrd", part.sum(-1), low)
    return made


def _token_groups(codes: Codes) -> Iterator[tuple[slice, int, int]]:
    """Runs of tokens whose groups are alike: the tokens, the size of a group, and the number of the first."""
    size = min(codes.scheme.group or codes.tokens, codes.tokens)
    whole = codes.tokens // size * size if size else 0
    if whole:
        yield slice(0, whole), size, 0
    if whole < codes.tokens:
        yield slice(whole, codes.tokens), codes.tokens - whole, whole // size


def _channel_groups(codes: Codes) -> Iterator[tuple[int, slice]]:
    size = codes.scheme.group or codes.channels
    for group, first in enumerate(range(0, codes.channels, size)):
        yield group, slice(first, min(first + size, codes.channels))


def _bytes_of(codes: Codes, places: slice) -> slice:
    """The bytes that hold codes at these places; the last one may be filled up."""
    bits = codes.scheme.bits
    return slice(places.start * bits // 8, -(-places.stop * bits // 8))


def _grouped_tokens(codes: Codes, tokens: slice, size: int) -> Tensor:
    """The bytes of groups of tokens, [H G, size, bytes], or [H G, D, bytes] where codes lie along tokens."""
    count = (tokens.stop - tokens.start) // size
    if codes.scheme.packed_along == "channels":
        return codes.codes[:, tokens].unflatten(1, (count, size)).flatten(0, 1)
    part = codes.codes[:, :, _bytes_of(codes, tokens)]
    return part[:, None].flatten(0, 1) if count == 1 else part.unflatten(2, (count, -1)).transpose(1, 2).flatten(0, 1)


def _keys_of_tokens(keys: Codes, tokens: slice, size: int, weights: Tensor) -> Tensor:
    data, scheme = _grouped_tokens(keys, tokens, size), keys.scheme
    if scheme.packed_along == "channels":
        return dot(data, weights, scheme)
    return mix(data, weights, scheme)[:, :, :size]


def _values_of_tokens(values: Codes, tokens: slice, size: int, shares: Tensor) -> Tensor:
    data, scheme = _grouped_tokens(values, tokens, size), values.scheme
    if scheme.packed_along == "channels":
        return mix(data, shares, scheme)
    return dot(data, _filled(shares, data, scheme), scheme)


def _by_codes(keys: Codes, channels: slice, queries: Tensor) -> Tensor:
    scheme = keys.scheme
    if scheme.packed_along == "channels":
        return dot(keys.codes[:, :, _bytes_of(keys, channels)], queries, scheme)
    return mix(keys.codes[:, channels], queries, scheme)[:, :, : keys.tokens]


def _values_of_channels(values: Codes, channels: slice, shares: Tensor) -> Tensor:
    scheme = values.scheme
    if scheme.packed_along == "channels":
        return mix(values.codes[:, :, _bytes_of(values, channels)], shares, scheme)
    data = values.codes[:, channels]
    return dot(data, _filled(shares, data, scheme), scheme)


def _filled(weights: Tensor, data: Tensor, scheme: Scheme) -> Tensor:
    """Weights, with zeros for the codes that fill up the last byte or word."""
    return torch.nn.functional.pad(weights, (0, data.shape[-1] * 8 // scheme.bits - weights.shape[-1]))


def dot(data: Tensor, w: Tensor, scheme: Scheme) -> Tensor:
    """`plain.dot` on the device of its tensors."""
    return _on_device("dot", data, w, scheme)


def mix(data: Tensor, p: Tensor, scheme: Scheme) -> Tensor:
    """`plain.mix` on the device of its tensors."""
    return _on_device("mix", data, p, scheme)


def _on_device(name: str, data: Tensor, weights: Tensor, scheme: Scheme) -> Tensor:
    if data.is_cuda:
        from toolroll.kvcache import kernels_cuda

        on_gpu: Callable[..., Tensor] = getattr(kernels_cuda, name)
        return on_gpu(data, weights.float(), scheme.bits, scheme.order)
    from toolroll.kvcache import kernels

    found = getattr(kernels, name)(data.numpy(), weights.float().numpy(), scheme.bits, scheme.order)
    return torch.from_numpy(found)
