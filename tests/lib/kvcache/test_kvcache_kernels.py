"""One suite over all kernels: numpy's is the definition, numba's and Triton's have to agree with it."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from toolroll.kvcache import plain
from toolroll.kvcache.block import Block, dequantize, quantize
from toolroll.kvcache.ranges import bounds, quantiles, ranges
from toolroll.kvcache.scheme import BITS, Scheme

INTERPRETER = os.environ.get("TRITON_INTERPRET") == "1"
every_width = pytest.mark.parametrize("bits", BITS)
every_order = pytest.mark.parametrize("order", ["msb", "lsb"])
RNG = np.random.default_rng(3)


def triton():
    """Triton's kernels with arrays of numpy."""
    import torch

    from toolroll.kvcache import kernels_cuda

    class Arrays:
        def __getattr__(self, name):
            def call(*args):
                given = [
                    torch.from_numpy(np.ascontiguousarray(one)) if isinstance(one, np.ndarray) else one for one in args
                ]
                return getattr(kernels_cuda, name)(*given).numpy()

            return call

    return Arrays()


def numba():
    from toolroll.kvcache import kernels

    return kernels


@pytest.fixture(params=["triton"] if INTERPRETER else ["plain", "numba"], scope="module")
def kernels(request):
    return {"plain": lambda: plain, "numba": numba, "triton": triton}[request.param]()


def summed(data, w, bits, order):
    """What dot gives, code by code."""
    per, mask = 8 // bits, (1 << bits) - 1
    heads, rows, width = data.shape
    out = np.zeros((heads, w.shape[1], rows))
    for k in range(width * per):
        shift = (8 - bits - bits * (k % per)) if order == "msb" else bits * (k % per)
        codes = (data[:, :, k // per].astype(int) >> shift) & mask
        out += w[:, :, k : k + 1].astype(float) * codes[:, None]
    return out


@every_order
@every_width
def test_codes_and_bytes(kernels, bits, order):
    codes = RNG.integers(0, 1 << bits, (3, 5, 32), dtype=np.uint8)
    data = kernels.pack(codes, bits, order)
    assert data.shape == (3, 5, 4 * bits)
    assert (data == plain.pack(codes, bits, order)).all()
    assert (kernels.unpack(data, bits, order) == codes).all()


@every_order
@every_width
@pytest.mark.parametrize("rows", [5, 130])  # few and many: numba has two ways
def test_dot_and_mix(kernels, bits, order, rows):
    data = RNG.integers(0, 256, (2, rows, 3), dtype=np.uint8)
    w = RNG.standard_normal((2, 3, 24 // bits), dtype=np.float32)
    p = RNG.random((2, 3, rows), dtype=np.float32)
    close = {"rtol": 1e-5, "atol": 1e-4 * (1 << bits)}
    np.testing.assert_allclose(kernels.dot(data, w, bits, order), summed(data, w, bits, order), **close)
    codes = plain.unpack(data, bits, order).astype(float)
    np.testing.assert_allclose(kernels.mix(data, p, bits, order), p @ codes, **close)


@every_width
def test_nothing_to_sum(kernels, bits):
    empty = np.zeros((2, 0, 2), np.uint8)
    k = 16 // bits
    assert kernels.dot(empty, np.ones((2, 1, k), np.float32), bits, "msb").shape == (2, 1, 0)
    assert not kernels.mix(empty, np.ones((2, 1, 0), np.float32), bits, "msb").any()


SCHEMES = [
    Scheme(part, bits, "minmax", group=group, along=along, layout=layout)
    for part in ("k", "v")
    for bits in BITS
    for group, along in ((0, "tokens"), (32, "tokens"), (32, "channels"))
    for layout in ("msb8", "kivi32")
]


@pytest.mark.skipif(INTERPRETER, reason="codes are made on the CPU")
@pytest.mark.parametrize("scheme", SCHEMES, ids=str)
def test_heads_and_back(scheme):
    """numba gives the same bytes, and what comes back is off by at most half a step where nothing is clipped."""
    x = RNG.standard_normal((75, 64), dtype=np.float32)
    lo, scale = ranges(x, scheme)
    data = plain.encode(x, lo, scale, scheme)
    assert data.shape == scheme.packed(75, 64)
    assert (numba().encode(x, lo, scale, scheme) == data).all()
    block = Block(scheme, 75, 64, data[None], lo[None], scale[None])
    found = dequantize(block)[0]
    assert (dequantize(block, backend="numba")[0] == found).all()
    assert np.abs(found - x).max() < scale.max() * 0.51


@pytest.mark.skipif(INTERPRETER, reason="ranges are made on the CPU")
@pytest.mark.parametrize("rule", ["minmax", "calibquant", "lloyd1", "quantile"])
def test_ranges_by_numba(rule):
    x = RNG.standard_normal((1, 333, 16), dtype=np.float32) + 3
    scheme = Scheme("k", 1, rule)
    for plain_one, fast in zip(bounds(x, 1, scheme), numba().bounds(x, 1, scheme), strict=True):
        np.testing.assert_allclose(fast, plain_one, rtol=1e-6)


SHAPES = {
    "normal": lambda x: 3 * x + 5,
    "one side": lambda x: np.exp(3 * x),
    "few values": lambda x: np.round(2 * x),
    "one value": np.zeros_like,
    "in order": lambda x: np.sort(x, axis=0),
    "outliers": lambda x: np.where(x > 2, x * np.float32(1e30), x),
    "tiny": lambda x: x * np.float32(1e-40),
    "mostly one value": lambda x: np.where(np.abs(x) < 1.2, np.float32(0.5), x),
    "later ones are larger": lambda x: x + np.linspace(0, 9, len(x), dtype=np.float32)[:, None],
    "every fourth is larger": lambda x: x + 5 * (np.arange(len(x)) % 4 == 0)[:, None].astype(np.float32),
    "two crowds": lambda x: np.where(x > 0, 1 + x * np.float32(1e-6), x),
    "the largest": lambda x: np.clip(x, -1, 1) * np.finfo(np.float32).max,
}


@pytest.mark.skipif(INTERPRETER, reason="ranges are made on the CPU")
@pytest.mark.parametrize("tokens", [512, 1027, 3331])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_quantiles_without_sorting(shape, tokens):
    """To the bit what sorting gives: whatever a few tokens make it begin with, and wherever the quantile is."""
    from toolroll.kvcache import kernels_order

    assert tokens >= kernels_order.FEW
    x = shape(RNG.standard_normal((tokens, 29), dtype=np.float32))
    for alpha in (0.0005, 0.0683, 0.2125, 0.4999):
        with np.errstate(over="ignore", invalid="ignore"):  # between the largest numbers of either sign
            exact, found = quantiles(x, 0, alpha), kernels_order.quantiles(x, alpha)
        for sorted_one, fast in zip(exact, found, strict=True):
            np.testing.assert_array_equal(sorted_one, fast)


@pytest.mark.skipif(INTERPRETER, reason="ranges are made on the CPU")
def test_normal_values_are_not_sorted(monkeypatch):
    """Of 3,328 normal numbers a channel, hardly one has to be sorted: only what was gathered is."""
    from toolroll.kvcache import kernels_order

    sizes = []
    real = np.sort
    monkeypatch.setattr(kernels_order.np, "sort", lambda x, axis: sizes.append(x.shape) or real(x, axis=axis))
    for _ in range(8):
        kernels_order.quantiles(RNG.standard_normal((3328, 128), dtype=np.float32), 0.0683)
    assert len(sizes) >= 8
    assert sum(shape[0] for shape in sizes if shape[-1] == 3328) <= 16  # of 1,024 channels


@pytest.mark.skipif(INTERPRETER, reason="codes are made on the CPU")
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_ties_and_constant_channels(backend):
    """The spec's first vector, with a constant channel."""
    x = np.float32([[5, -2, 2, 0.1], [6, -1, 2, 0.4], [5.5, 2, 2, -0.5], [4, 0, 2, 0.9]]).repeat(2, 1)
    block = quantize(lambda _: x, (1, 4, 8), Scheme("k", 1, "minmax", meta="fp32"), backend=backend)
    codes = plain.unpack(block.codes[0], 1, "msb")[:, ::2]
    assert codes.tolist() == [[0, 0, 0, 0], [1, 0, 0, 1], [1, 1, 0, 0], [0, 0, 0, 1]]
    assert (dequantize(block)[0][:, 4] == 2).all()


@pytest.mark.skipif(INTERPRETER or importlib.util.find_spec("triton") is None, reason="needs Triton")
def test_triton_in_its_interpreter():
    """The same suite, in a process where Triton interprets."""
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(
        argv, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout
