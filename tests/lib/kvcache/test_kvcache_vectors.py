"""The spec's vectors: codes, packing, ranges, calibration, error of rules on normal values."""

from __future__ import annotations

import numpy as np
import pytest

from toolroll.kvcache import plain
from toolroll.kvcache.block import dequantize, quantize
from toolroll.kvcache.ranges import ranges
from toolroll.kvcache.scheme import Scheme

K = np.float32([[0.1, -2, 5], [0.4, -1, 6], [-0.5, 2, 5.5], [0.9, 0, 4]])


def coded(x, scheme):
    """Codes, scale, zero point, x^ of a head of any number of channels."""
    from toolroll.kvcache.ranges import codes_of, spread_out

    lo, scale = ranges(x, scheme)
    low, wide = (spread_out(one, scheme, *x.shape) for one in (lo, scale))
    codes = codes_of(x, low, wide, scheme.bits)
    return codes, scale[0], low + wide * codes, lo[0]


def exact(part="k", bits=1, rule="minmax", **more):
    return Scheme(part, bits, rule, meta="fp32", **more)


def test_one_bit_with_ties_to_even():
    codes, scale, found, lo = coded(K, exact())
    assert codes.tolist() == [[0, 0, 0], [1, 0, 1], [0, 1, 1], [1, 0, 0]]
    assert scale == pytest.approx([1.4, 4, 2])
    assert -lo / scale == pytest.approx([0.35714287, 0.5, -2])
    assert found == pytest.approx(np.float32([[-0.5, -2, 4], [0.9, -2, 6], [-0.5, 2, 6], [0.9, -2, 4]]))
    assert np.square(found - K).mean() == pytest.approx(0.57166666)


def test_two_bits_with_ties_to_even():
    codes, scale, found, lo = coded(K, exact(bits=2))
    assert codes.tolist() == [[1, 0, 2], [2, 1, 3], [0, 3, 2], [3, 2, 0]]
    assert scale == pytest.approx([0.46666667, 1.33333337, 0.66666669])
    assert -lo / scale == pytest.approx([1.07142854, 1.5, -6])
    assert np.square(found - K).mean() == pytest.approx(0.05944445)


def test_four_bits():
    """Two values lie at 7.5 to the last digit, where the last bit of a quotient decides."""
    codes, _, found, _ = coded(K, exact(bits=4))
    wanted = np.array([[6, 0, 7], [10, 4, 15], [0, 15, 11], [15, 7, 0]])
    differs = np.argwhere(codes != wanted).tolist()
    assert all(place in ([0, 2], [3, 1]) for place in differs)
    assert np.abs(codes.astype(int) - wanted).max() <= 1
    assert np.square(found - K).mean() == pytest.approx(0.00254074, rel=1e-4)


def test_the_authors_shrink():
    _, scale, found, lo = coded(K, exact(rule="calibquant"))
    assert lo == pytest.approx([-0.25, -1, 2])
    assert lo + scale == pytest.approx([0.45, 1, 3])
    assert found == pytest.approx(np.float32([[-0.25, -1, 3], [0.45, -1, 3], [-0.25, 1, 3], [0.45, -1, 3]]))
    assert np.square(found - K).mean(0) == pytest.approx([0.0975, 0.75, 5.0625])
    assert Scheme("v", 1, "calibquant").the_shrink == 0.3
    assert Scheme("v", 2, "calibquant").the_shrink == 1


@pytest.mark.parametrize("rule", ["minmax", "calibquant", "quantile", "lloyd1", "mse"])
def test_a_constant_channel_is_exact(rule):
    codes, scale, found, _ = coded(np.full((4, 8), 2, np.float32), exact(rule=rule, shrink=1.0))
    assert not codes.any()
    assert not scale.any()
    assert (found == 2).all()


def test_bytes():
    assert plain.pack(np.uint8([1, 0, 1, 1, 0, 0, 1, 0]), 1, "msb").tolist() == [178]
    assert plain.pack(np.uint8([0, 0, 0, 0, 0, 0, 0, 1]), 1, "msb").tolist() == [1]
    assert plain.pack(np.uint8([3, 0, 2, 1]), 2, "msb").tolist() == [201]
    assert plain.pack(np.uint8([9, 4]), 4, "msb").tolist() == [148]
    words = plain.pack(np.arange(16, dtype=np.uint8) % 4, 2, "lsb").view("<i4")
    assert words.tolist() == [sum((j % 4) << (2 * j) for j in range(16)) - (1 << 32)]


NORMAL = np.random.default_rng(0).standard_normal((3328, 128), dtype=np.float32)


def nmse(x, scheme):
    found = dequantize(quantize(lambda _: x, (1, *x.shape), scheme))[0]
    return float((np.square(found - x).mean(0) / x.var(0)).mean())


@pytest.mark.parametrize(
    ("scheme", "wanted"),
    [
        (exact(rule="minmax"), 7.99),
        (exact(rule="calibquant"), 1.344),
        (exact("v", rule="calibquant"), 0.443),
        (exact(rule="calibquant", shrink=0.23), 0.368),
        (exact(rule="lloyd1"), 0.3634),
        (exact(rule="quantile", alpha=0.01), 2.69),
        (exact(rule="quantile", alpha=0.05), 1.08),
        (exact(rule="quantile", alpha=0.1), 0.596),
        (exact(rule="quantile", alpha=0.15), 0.420),
        (exact(rule="quantile"), 0.363),
        (exact(rule="quantile", alpha=0.25), 0.379),
        (exact(bits=2), 0.489),
        (exact(bits=2, rule="quantile", alpha=0.01), 0.201),
        (exact(bits=2, rule="quantile", alpha=0.03), 0.141),
        (exact(bits=2, rule="quantile", alpha=0.05), 0.123),
        (exact(bits=2, rule="quantile"), 0.119),
        (exact(bits=2, rule="quantile", alpha=0.1), 0.128),
        (exact(bits=4), 0.0189),
        (exact(bits=4, rule="quantile", alpha=0.001), 0.0140),
        (exact(bits=4, rule="quantile", alpha=0.005), 0.0115),
        (exact(bits=4, rule="quantile", alpha=0.01), 0.0121),
        (exact(bits=8), 7e-5),
        (exact(bits=2, group=32), 0.154),  # KIVI's keys
        (exact("v", bits=2, group=32, along="channels", layout="kivi32"), 0.154),  # KIVI's values
        (exact(bits=4, group=32), 0.0061),
    ],
    ids=str,
)
def test_error_of_rules_on_normal_values(scheme, wanted):
    """Within 3 %, and half of the last digit that is given."""
    digit = {7e-5: 0.5e-5, 0.0061: 0.5e-4}.get(wanted, 0.0)
    assert nmse(NORMAL, scheme) == pytest.approx(wanted, rel=0.03, abs=digit)


def test_the_best_clip_is_found():
    """At 1 bit as good as the best levels; at 2 and 4 bits at least as good as the best quantile."""
    x = NORMAL[:, :8]
    assert nmse(x, exact(rule="mse")) == pytest.approx(1 - 2 / np.pi, rel=0.02)
    assert nmse(x, exact(bits=2, rule="mse")) < 0.125
    assert nmse(x, exact(bits=4, rule="mse")) < 0.012


def test_channels_with_an_offset():
    x = NORMAL * 1.0
    for channel, offset in zip((3, 40, 77, 120), (12, -9, 7, 15), strict=True):
        x[:, channel] = 0.8 * x[:, channel] + offset
    assert nmse(x, exact()) == pytest.approx(7.92, rel=0.03)
    assert nmse(x, exact(rule="calibquant")) == pytest.approx(2.21, rel=0.1)
    assert nmse(x, exact(rule="lloyd1")) == pytest.approx(0.3625, rel=0.03)
    assert nmse(x, exact(bits=2, rule="quantile", alpha=0.05)) == pytest.approx(0.122, rel=0.03)
    assert nmse(x, exact(bits=2, group=32)) == pytest.approx(0.155, rel=0.03)
