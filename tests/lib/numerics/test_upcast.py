"""The linear layer with 16-bit weights: right in every way it is computed, and the fused one in one order of sums."""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
from torch.nn.functional import linear  # noqa: E402

from toolroll.errors import ToolrollError, UsageError  # noqa: E402
from toolroll.models.device import Device  # noqa: E402
from toolroll.numerics import fused_cpu, upcast  # noqa: E402
from toolroll.numerics.backends import Transformers  # noqa: E402
from toolroll.numerics.upcast import HOW, upcast_linear  # noqa: E402
from toolroll.run.log import Log  # noqa: E402

BOUND = 3e-7  #: of |x| |w|: what fp32 sums of a few thousand products may be off by
KS = (1, 7, 16, 17, 576, 2049)
NS = (1, 3, 49)
MS = (0, 1, 2, 3, 5, 8, 33)
every_way = pytest.mark.parametrize("how", HOW)
every_type = pytest.mark.parametrize("stored", [torch.bfloat16, torch.float16], ids=["bf16", "fp16"])


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Small products are cut up too: several blocks, several threads."""
    monkeypatch.setattr(upcast, "SCRATCH", 1 << 15)
    monkeypatch.setattr(fused_cpu, "ALONE", 1)


@pytest.fixture(params=[1, 2])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def made(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def off(y, x, weight, bias=None):
    """The largest error, as a part of |x| |w| + |b|."""
    x, weight = x.detach().double(), weight.detach().double()
    truth, size = linear(x, weight), linear(x.abs(), weight.abs())
    if bias is not None:
        truth, size = truth + bias.detach().double(), size + bias.detach().double().abs()
    assert y.shape == truth.shape
    assert y.dtype == torch.float32
    assert y.is_contiguous()
    assert not y.requires_grad
    return float(((y - truth).abs() / size.clamp(min=1e-30)).max()) if y.numel() else 0.0


@every_way
@every_type
def test_every_shape_against_float64(how, stored, threads):
    for k, n in itertools.product(KS, NS):
        x, weight = made(max(MS), k), made(n, k, seed=1).to(stored)
        for m in MS:
            assert off(upcast_linear(x[:m], weight, how=how), x[:m], weight) < BOUND, (m, n, k)


@every_type
@pytest.mark.parametrize("bias", [None, torch.float32, torch.bfloat16, torch.float16])
def test_naive_is_the_oracle(stored, bias):
    x, weight = made(5, 576), made(49, 576, seed=1).to(stored)
    offset = None if bias is None else made(49, seed=2).to(bias)
    expected = linear(x, weight.float(), None if offset is None else offset.float())
    assert torch.equal(upcast_linear(x, weight, offset, how="naive"), expected)


@every_way
@every_type
@pytest.mark.parametrize("bias", [torch.float32, torch.bfloat16, torch.float16])
def test_a_bias_of_any_type(how, stored, bias):
    x, weight, offset = made(5, 17), made(49, 17, seed=1).to(stored), 100 * made(49, seed=2).to(bias)
    assert off(upcast_linear(x, weight, offset, how=how), x, weight, offset) < BOUND


@every_way
def test_an_fp32_weight_is_multiplied_by_torch(how):
    x, weight, bias = made(5, 576), made(49, 576, seed=1), made(49, seed=2)
    assert torch.equal(upcast_linear(x, weight, bias, how=how), linear(x, weight, bias))


@every_way
@pytest.mark.parametrize("shape", [(576,), (1, 576), (2, 3, 576), (2, 0, 576), (2, 1, 3, 576)])
def test_leading_dimensions(how, shape):
    x, weight = made(*shape), made(49, 576, seed=1).bfloat16()
    assert off(upcast_linear(x, weight, how=how), x, weight) < BOUND


@every_way
def test_no_inputs_and_no_outputs(how):
    bias = made(3)
    assert torch.equal(upcast_linear(made(2, 0), made(3, 0).bfloat16(), bias, how=how), bias.expand(2, 3))
    assert upcast_linear(made(2, 7), made(0, 7).bfloat16(), how=how).shape == (2, 0)


@every_way
@every_type
def test_views_of_larger_matrices(how, stored):
    inputs, weights = made(40, 100), made(100, 300, seed=1).to(stored)
    views = [
        (inputs[::3, 5:38], weights[3::2, 7:40]),  # rows and columns of a slice, as a chunk of K for a simulated rank
        (inputs[:, ::2], weights[:33, ::6]),  # elements that lie apart
        (inputs[:33].t(), weights[:, :33]),
        (inputs[:1].expand(5, 100), weights.t()[:7]),
        (inputs[None, :, None, 1:34].expand(2, 40, 3, 33), weights[:50, 1:34]),
    ]
    for x, weight in views:
        assert off(upcast_linear(x, weight, how=how), x, weight) < BOUND


@every_way
def test_a_parameter_gets_no_gradient(how):
    layer = torch.nn.Linear(17, 3).bfloat16()
    x = made(2, 17).requires_grad_()
    assert off(upcast_linear(x, layer.weight, layer.bias, how=how), x, layer.weight, layer.bias) < BOUND


@every_way
def test_calls_in_and_out_of_inference_mode(how):
    x, weight = made(2, 576), made(49, 576, seed=1).bfloat16()

    def both():
        with torch.inference_mode():
            first = upcast_linear(x, weight, how=how)
        return torch.equal(first, upcast_linear(x, weight, how=how))

    with ThreadPoolExecutor(1) as caller:  # a thread of its own begins with nothing held
        assert caller.submit(both).result()


@every_way
@every_type
def test_every_finite_number_is_raised_exactly(how, stored):
    """Subnormal ones too: each times one, and added to zeros."""
    numbers = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int16).view(stored)
    numbers = numbers[numbers.isfinite()]
    assert int((numbers.abs() < torch.finfo(stored).tiny).sum()) > 200
    weight = numbers.reshape(-1, 32)
    assert torch.equal(upcast_linear(torch.eye(32), weight, how=how), weight.float().t())


@every_way
@every_type
def test_infinities_and_nan_stay_where_they_belong(how, stored):
    x, weight = made(6, 37).abs(), made(9, 37, seed=1).abs().to(stored)
    x[1, 36], x[2, 0], x[3, 20], weight[4, 35], weight[5, 1] = torch.inf, -torch.inf, torch.nan, torch.inf, torch.nan
    weight[7, 36] = 0  # times infinity
    y, truth = upcast_linear(x, weight, how=how), linear(x.double(), weight.double())
    assert torch.equal(y.isnan(), truth.isnan())
    assert torch.equal(y.isposinf(), truth.isposinf())
    assert torch.equal(y.isneginf(), truth.isneginf())
    assert int(y.isfinite().sum()) == 3 * 7


def fused(x, weight):
    return upcast_linear(x, weight, how="fused")


@every_type
@pytest.mark.parametrize("k", [1, 15, 33, 70])
def test_fused_adds_in_the_order_it_promises(stored, k):
    """The lanes as the module's docstring has them, each step rounded to fp32 (exact before that, in float64)."""
    x, weight = made(1, k), made(1, k, seed=1).to(stored)
    products = np.zeros(-(-k // 16) * 16)
    products[:k] = x[0].double().numpy() * weight[0].double().numpy()
    lanes = np.zeros(16, np.float32)
    for part in products.reshape(-1, 16):
        lanes = (part + lanes.astype(np.float64)).astype(np.float32)
    while len(lanes) > 1:
        lanes = lanes[: len(lanes) // 2] + lanes[len(lanes) // 2 :]
    assert float(fused(x, weight)) == float(lanes[0])


@every_type
@pytest.mark.parametrize(("k", "n"), [(1, 1), (17, 3), (576, 49), (2049, 7), (2048, 300)])
def test_fused_gives_the_same_bits_for_any_batch(stored, k, n, threads):
    x, weight = made(150, k), made(n, k, seed=1).to(stored)
    whole = fused(x, weight)
    for m in range(1, 14):
        assert torch.equal(fused(x[:m], weight), whole[:m])
        assert torch.equal(torch.cat([fused(part, weight) for part in x.split(m)]), whole)
    assert torch.equal(fused(x[5:97], weight), whole[5:97])
    assert torch.equal(torch.cat([fused(x, part) for part in weight.split(5)], 1), whole)


@every_type
def test_fused_gives_the_same_bits_for_any_number_of_threads(stored):
    x, weight = made(9, 576), made(1001, 576, seed=1).to(stored)
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3, 7):
            torch.set_num_threads(count)
            found.append(fused(x, weight))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, found[0]) for one in found)


def test_another_order_shows_in_the_bits():
    """So that equal bits, above, mean something."""
    x, weight = made(1, 576), made(49, 576, seed=1).bfloat16()
    reverse = fused(x.flip(1).contiguous(), weight.flip(1).contiguous())
    assert not torch.equal(reverse, fused(x, weight))
    assert torch.allclose(reverse, fused(x, weight), atol=1e-4)


@pytest.mark.parametrize("how", ["blocked", "fused"])
def test_several_callers_at_once(how, threads):
    jobs = [
        (made(m, k, seed=m), made(n, k, seed=n).bfloat16()) for m, k, n in [(1, 576, 301), (5, 64, 999), (9, 300, 77)]
    ]
    expected = [upcast_linear(*job, how=how) for job in jobs]
    with ThreadPoolExecutor(6) as callers:
        found = list(callers.map(lambda number: upcast_linear(*jobs[number % 3], how=how), range(120)))
    for number, y in enumerate(found):
        x, weight = jobs[number % 3]
        assert off(y, x, weight) < BOUND
        assert how != "fused" or torch.equal(y, expected[number % 3])


def test_the_memory_of_blocked_is_used_again_and_bounded():
    x, weight = made(2, 576), made(400, 576, seed=1).bfloat16()

    def held():
        upcast_linear(x, weight)
        scratch = upcast._held.scratch[torch.device("cpu")]
        return scratch.data_ptr(), scratch.nbytes

    with ThreadPoolExecutor(1) as caller:
        own = caller.submit(held).result()
        assert own == caller.submit(held).result()
    assert own[1] == upcast.SCRATCH < weight.nbytes
    assert own[0] != held()[0]


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ((made(2, 7).double(), made(3, 7).bfloat16()), "x is float64"),
        ((made(2, 7).bfloat16(), made(3, 7).bfloat16()), "x is bfloat16"),
        ((made(2, 7), made(3, 7).to(torch.int8)), "the weight is int8"),
        ((made(2, 7), made(3, 7).double()), "the weight is float64"),
        ((made(2, 8), made(3, 7).bfloat16()), "do not fit"),
        ((made(2, 7), made(7).bfloat16()), "do not fit"),
        ((torch.tensor(1.0), made(3, 1).bfloat16()), "do not fit"),
        ((made(2, 7), made(3, 7).bfloat16(), made(2)), r"the bias is \[2\]"),
        ((made(2, 7), made(3, 7).bfloat16(), made(1, 3)), r"the bias is \[1, 3\]"),
        ((made(2, 7), made(3, 7).bfloat16(), made(3).double()), "the bias is float64"),
        ((made(2, 7), torch.empty(3, 7, dtype=torch.bfloat16, device="meta")), "several devices"),
    ],
)
@every_way
def test_what_does_not_fit(how, arguments, why):
    with pytest.raises(ToolrollError, match=why):
        upcast_linear(*arguments, how=how)


def test_what_cannot_be_had():
    with pytest.raises(UsageError, match="'quick' is not one of naive, blocked, fused"):
        upcast_linear(made(2, 7), made(3, 7).bfloat16(), how="quick")
    with pytest.raises(UsageError, match="not meta"):
        upcast_linear(made(2, 7).to("meta"), made(3, 7).bfloat16().to("meta"), how="fused")


@pytest.mark.parametrize("how", ["naive", "blocked"])
def test_torch_must_not_round_what_it_multiplies(how):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        with pytest.raises(ToolrollError, match="float32_matmul_precision is high"):
            upcast_linear(made(2, 7), made(3, 7).bfloat16(), how=how)
    finally:
        torch.set_float32_matmul_precision(before)


def test_without_a_place_for_the_machine_code(monkeypatch):
    njit = fused_cpu.numba.njit

    def nowhere(*arguments, cache=False, **others):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return njit(*arguments, **others)

    monkeypatch.setattr(fused_cpu.numba, "njit", nowhere)
    kernel = fused_cpu._kernel.__wrapped__()
    x, weight = made(5, 33), made(9, 33, seed=1).bfloat16()
    expected = fused(x, weight)
    monkeypatch.setattr(fused_cpu, "_kernel", lambda: kernel)
    assert torch.equal(fused(x, weight), expected)


def python(code, **environment):
    """What a program prints, as JSON, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


BITS = """
import hashlib, torch
from toolroll.numerics import fused_cpu
from toolroll.numerics.upcast import upcast_linear
found = hashlib.sha256()
draw = torch.Generator().manual_seed(0)
for stored in (torch.bfloat16, torch.float16):
    for k in (7, 33, 576):
        for m in (1, 2, 3, 9):
            x, weight = torch.randn(m, k, generator=draw), torch.randn(49, k, generator=draw).to(stored)
            found.update(upcast_linear(x, weight, how="fused").numpy().tobytes())
answer = [fused_cpu.ROWS, found.hexdigest()]
"""
AVX2 = "+64bit,+cx8,+cmov,+fxsr,+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+avx,+avx2,+f16c,+fma,+bmi,+bmi2,+lzcnt"


@pytest.mark.skipif("+avx512f" not in fused_cpu._FEATURES, reason="has no wider vectors than AVX2")
def test_narrower_vectors_give_the_same_bits(tmp_path):
    narrow = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": AVX2, "NUMBA_CACHE_DIR": str(tmp_path)}
    rows, bits = python(f"{BITS}\nimport json\nprint(json.dumps(answer))", **narrow)
    here = {}
    exec(BITS, here)
    assert rows < fused_cpu.ROWS
    assert [fused_cpu.ROWS, bits] == here["answer"]


@pytest.mark.skipif("x86" not in fused_cpu._TRIPLE, reason="only an x86 may lack it")
def test_a_processor_without_fused_multiply_add_is_refused(monkeypatch):
    monkeypatch.setattr(fused_cpu, "_FEATURES", "+sse2,-fma")
    with pytest.raises(UsageError, match="fused multiply-add"):
        fused_cpu._kernel.__wrapped__()


@pytest.mark.skipif("x86" not in fused_cpu._TRIPLE, reason="only an x86 may lack it")
def test_auto_does_without_fused_multiply_add(monkeypatch, capfd):
    prepare = Transformers("", Device("cpu", "float32", 1, "cpu"), top=2, log=Log("test"), stopped=lambda: False)
    assert [prepare._linear(precision) for precision in ("layercast", "fp32")] == ["fused", "fused"]
    monkeypatch.setattr(fused_cpu, "_FEATURES", "+sse2,-fma")
    assert [prepare._linear("layercast") for _ in range(2)] == ["blocked", "blocked"]
    assert capfd.readouterr().err == "test: --linear blocked: the processor has no fused multiply-add\n"


FORK = """
import json, os, sys, torch
from toolroll.numerics import upcast
early = [name for name in ("numba", "triton") if name in sys.modules]
torch.set_num_threads(2)
x, weight = torch.randn(33, 256), torch.randn(2000, 256).bfloat16()
bits = lambda: upcast.upcast_linear(x, weight, how="fused").numpy().tobytes()
expected = bits()
from toolroll.run import shares
threads = len(shares.pool()._threads)
child = os.fork()
if not child:
    own = bits() == expected and all(thread.is_alive() for thread in shares.pool()._threads)
    os._exit(0 if own else 3)
print(json.dumps([early, threads, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]))
"""


def test_a_fork_computes_too_and_compilers_are_loaded_when_they_are_needed():
    assert python(FORK) == [[], 1, 0]


TRITON = """
import json, torch
from toolroll.numerics.fused_cuda import fused_linear
worst, draw = 0.0, torch.Generator().manual_seed(0)
for stored in (torch.bfloat16, torch.float16):
    for m, n, k in ((1, 1, 1), (0, 3, 4), (2, 3, 0), (3, 49, 7), (17, 65, 130), (5, 3, 576)):
        x = torch.randn(m, k + 3, generator=draw)[:, 1 : k + 1]
        weight = torch.randn(n, k + 5, generator=draw).to(stored)[:, 2 : k + 2]
        y = fused_linear(x, weight)
        assert y.shape == (m, n) and y.dtype == torch.float32
        size = (x.double().abs() @ weight.double().abs().t()).clamp(min=1e-30)
        worst = max([worst, *((y - x.double() @ weight.double().t()).abs() / size).flatten().tolist()])
    spread = torch.randn(4, 70, generator=draw)
    whole, (a, b) = fused_linear(spread, spread.to(stored)), spread.split(2)
    assert torch.equal(torch.cat([fused_linear(part, spread.to(stored)) for part in (a, b)]), whole)
small = 2.0 ** -24 * torch.arange(1, 9).half().view(1, 8)
assert torch.equal(fused_linear(torch.eye(8), small), small.float().t())
print(json.dumps(worst))
"""


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_the_gpu_kernel_in_tritons_interpreter():
    assert 0 < python(TRITON, TRITON_INTERPRET="1") < BOUND
