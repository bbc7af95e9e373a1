"""Every back end that is here draws the same picture, with the same gradients, as numbers worked out elsewhere say."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from toolroll.errors import UsageError  # noqa: E402
from toolroll.splat.gaussians import Eye, Gaussians, Manner  # noqa: E402
from toolroll.splat.on_numba import NumbaRasterizer  # noqa: E402
from toolroll.splat.on_torch import TorchRasterizer, covariances, harmonics  # noqa: E402
from toolroll.splat.rasterizer import Flat, depth_of, draw, open_rasterizer  # noqa: E402

BACK_ENDS = {"numba": NumbaRasterizer, "torch": TorchRasterizer}
TURN = [[math.cos(0.2), 0.0, math.sin(0.2)], [0.0, 1.0, 0.0], [-math.sin(0.2), 0.0, math.cos(0.2)]]


@pytest.fixture(params=[*BACK_ENDS, "gsplat"])
def rasterizer(request):
    if request.param == "gsplat":
        pytest.importorskip("gsplat")
        if not torch.cuda.is_available():
            pytest.skip("gsplat draws on CUDA, and there is none")
        return open_rasterizer("gsplat")
    return BACK_ENDS[request.param]()


def pose() -> torch.Tensor:
    made = torch.eye(4, dtype=torch.float64)
    made[:3, :3] = torch.tensor(TURN, dtype=torch.float64)
    made[:3, 3] = torch.tensor([0.05, 0.1, 2.0], dtype=torch.float64)
    return made


EYE = Eye(pose(), 300, 310, 160, 120, 320, 240)
SMALL = Eye(pose(), 60, 62, 35, 26, 70, 50)


def one(**changes) -> Gaussians:
    made = Gaussians(
        torch.tensor([[0.1, -0.2, 0.3]]),
        torch.tensor([[0.9, 0.1, -0.3, 0.2]]),
        torch.tensor([[0.05, 0.1, 0.02]]).log(),
        torch.tensor([0.8]).logit(),
        torch.zeros(1, 16, 3),
    )
    return replace(made, **changes)


def many(count: int, dtype=torch.float32, seed: int = 1) -> list[torch.Tensor]:
    """Gaussians of all kinds, some behind the camera, some outside of the picture, some too faint."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    parts = [
        normal(count, 3) * torch.tensor([1.4, 1.0, 0.9], dtype=torch.float64),
        normal(count, 4),
        torch.rand(count, 3, generator=random, dtype=torch.float64) * 1.8 - 3.6,
        normal(count) * 2.5,
        normal(count, 16, 3) * 0.3,
    ]
    return [part.to(dtype).requires_grad_() for part in parts]


def test_projection_is_that_of_gsplat(rasterizer):
    """Numbers of gsplat 1.5.3's torch implementation in double precision."""
    gaussians = one().to(rasterizer.device)
    flat = rasterizer.project(gaussians, EYE, Manner())
    assert flat.means[0].tolist() == pytest.approx([187.3870034267, 106.3685515218], rel=1e-6)
    assert flat.conics[0].tolist() == pytest.approx([0.0246072604, 0.0090217940, 0.0096746157], rel=1e-5)
    assert float(flat.depths[0]) == pytest.approx(2.2741530403, rel=1e-6)
    assert flat.radii[0].tolist() == [27, 42]
    assert float(flat.opacities[0]) == pytest.approx(0.8, rel=1e-6)
    smooth = rasterizer.project(gaussians, EYE, Manner(antialiased=True))
    assert float(smooth.opacities[0]) == pytest.approx(0.8 * 0.9948515154, rel=1e-5)


def test_covariance():
    found = covariances(one().quats.double(), one().scales.double())[0]
    upper = [float(found[i, j]) for i in range(3) for j in range(i, 3)]
    expected = [0.003384211, -0.003315789, 0.000663158, 0.008294737, 0.000947368, 0.001221053]
    assert upper == pytest.approx(expected, abs=1e-8)


SHADES = [
    (-0.1410473959, -0.1351704211, -0.1292934462),
    (-0.3509454239, -0.3347673310, -0.3185892382),
    (-0.4149246538, -0.3938873939, -0.3728501339),
    (-0.4557438994, -0.4371931010, -0.4186423027),
]


@pytest.mark.parametrize("degree", range(4))
def test_harmonics(degree):
    sh = (torch.arange(48, dtype=torch.float64).reshape(1, 16, 3)) / 48 - 0.5
    direction = torch.tensor([[0.3, -0.5, 0.81]], dtype=torch.float64)
    assert harmonics(direction, sh, degree)[0].tolist() == pytest.approx(SHADES[degree], abs=1e-9)


@pytest.mark.parametrize("degree", range(4))
def test_colour_is_that_of_the_direction_from_the_camera(rasterizer, degree):
    ahead = torch.eye(4, dtype=torch.float64)
    ahead[:3, 3] = torch.tensor([0.0, 0.0, 2.0])
    sh = (torch.arange(48).reshape(1, 16, 3)) / 48 - 0.5
    gaussian = one(means=torch.tensor([[0.3, -0.5, 0.81 - 2.0]]), sh=sh).to(rasterizer.device)
    found = rasterizer.project(gaussian, replace(EYE, pose=ahead), Manner(degree=degree)).colours[0].tolist()
    assert found == pytest.approx([shade + 0.5 for shade in SHADES[degree]], abs=1e-6)


def flat_of(rows: list[tuple[float, ...]], device) -> Flat:
    """x, y, a, b, c, opacity, red, green, blue; the first is the nearest."""
    table = torch.tensor(rows, device=device)
    return Flat(
        table[:, :2],
        table[:, 2:5],
        table[:, 5],
        table[:, 6:9],
        torch.arange(len(rows), dtype=torch.float32, device=device) + 1,
        torch.full((len(rows), 2), 40, dtype=torch.int32, device=device),
    )


FRONT = (187.3870034267, 106.3685515218, 0.0246072604, 0.0090217940, 0.0096746157, 0.8, 0.9, 0.2, 0.1)


def test_pixel_of_two(rasterizer):
    flat = flat_of([FRONT, (190, 108, 0.02, 0.005, 0.03, 0.6, 0.1, 0.3, 0.8)], rasterizer.device)
    image, alpha = rasterizer.blend(flat, 320, 240, torch.full((3,), 0.5, device=rasterizer.device))
    assert image[106, 187].tolist() == pytest.approx([0.7770304380, 0.2386650632, 0.2122571403], abs=2e-6)
    assert 1 - float(alpha[106, 187]) == pytest.approx(0.0931754719, abs=2e-6)


def test_what_is_fainter_than_a_255th_is_not_drawn(rasterizer):
    alone = flat_of([FRONT], rasterizer.device)
    both = flat_of([FRONT, (170, 90, 0.02, 0.005, 0.03, 0.6, 0.1, 0.3, 0.8)], rasterizer.device)
    ground = torch.zeros(3, device=rasterizer.device)
    first, second = (rasterizer.blend(flat, 320, 240, ground)[0] for flat in (alone, both))
    assert torch.equal(first[106, 187], second[106, 187])
    assert not torch.equal(first[90, 170], second[90, 170])


def test_a_pixel_that_is_covered_is_done_without_the_one_that_would_cover_it(rasterizer):
    """One of alpha .995 leaves .005, two would leave 2.5e-5, which is not more than 1e-4: the second is not drawn."""
    wall = (8.5, 8.5, 1e-4, 0.0, 1e-4, 0.995)
    flat = flat_of([(*wall, 1, 0, 0), (*wall, 0, 1, 0), (*wall, 0, 0, 1)], rasterizer.device)
    image, _ = rasterizer.blend(flat, 17, 17, torch.ones(3, device=rasterizer.device))
    assert image[8, 8].tolist() == pytest.approx([1.0, 0.005, 0.005], abs=1e-5)


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("count", [1, 7, 400])
def test_pictures_and_gradients_are_those_of_the_definition(rasterizer, count, antialiased):
    random = torch.Generator().manual_seed(3)
    weights = torch.rand(50, 70, 3, generator=random), torch.rand(50, 70, generator=random)
    found = []
    for back, dtype in ((TorchRasterizer(), torch.float64), (rasterizer, torch.float32)):
        parts = many(count, dtype)
        ground = torch.tensor([0.2, 0.5, 0.7], dtype=dtype, device=back.device).requires_grad_()
        gaussians = Gaussians(*parts).to(back.device)
        picture = draw(back, gaussians, SMALL, Manner(antialiased=antialiased), ground)
        picture.flat.means.retain_grad()
        sums = (picture.image * weights[0].to(picture.image)).sum() + (
            picture.alpha * weights[1].to(picture.image)
        ).sum()
        sums.backward()
        gradients = [part.grad for part in parts] + [ground.grad, picture.flat.means.grad]
        found.append([picture.image.detach(), picture.alpha.detach(), *gradients])
    for expected, made in zip(*found, strict=True):
        scale = float(expected.abs().max()) or 1.0
        assert float((made.cpu().double() - expected).abs().max()) <= 2e-5 * scale


@pytest.mark.parametrize("part", range(5))
def test_gradients_are_those_of_finite_differences(part):
    """Of the definition, in double precision, away from thresholds: weights stay where nothing is cut off."""
    parts = [each.detach() for each in many(5, torch.float64, seed=8)]
    parts[3] = parts[3].abs() * 0.2
    random = torch.Generator().manual_seed(4)
    weights = torch.rand(50, 70, 3, generator=random, dtype=torch.float64)

    def total(values: list[torch.Tensor]) -> torch.Tensor:
        ground = torch.zeros(3, dtype=torch.float64)
        return (draw(TorchRasterizer(), Gaussians(*values), SMALL, Manner(), ground).image * weights).sum()

    leaf = parts[part].clone().requires_grad_()
    total([*parts[:part], leaf, *parts[part + 1 :]]).backward()
    step = 1e-6
    checked = 0
    for at in range(0, leaf.numel(), max(1, leaf.numel() // 6)):
        moved = []
        for sign in (1, -1):
            value = parts[part].clone()
            value.view(-1)[at] += sign * step
            moved.append(float(total([*parts[:part], value, *parts[part + 1 :]])))
        slope = (moved[0] - moved[1]) / (2 * step)
        assert float(leaf.grad.view(-1)[at]) == pytest.approx(slope, rel=2e-2, abs=2e-3)
        checked += 1
    assert checked >= 5


def drawn_with(threads: int) -> list[torch.Tensor]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        parts = many(3000)
        picture = draw(NumbaRasterizer(), Gaussians(*parts), EYE, Manner(), torch.zeros(3))
        (picture.image**2).sum().backward()
        return [picture.image.detach(), picture.alpha.detach(), *(part.grad for part in parts)]
    finally:
        torch.set_num_threads(before)


def test_threads_change_no_bit():
    for one_thread, more in zip(drawn_with(1), drawn_with(3), strict=True):
        assert torch.equal(one_thread, more)


@pytest.mark.parametrize("name", ["means", "quats", "scales", "logits", "sh"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_that_is_not_finite_is_dropped_and_no_other(rasterizer, name, value):
    parts = dict(zip(("means", "quats", "scales", "logits", "sh"), many(40), strict=True))
    whole = Gaussians(**{key: part.detach() for key, part in parts.items()}).to(rasterizer.device)
    others = whole.chosen(torch.arange(1, 40, device=rasterizer.device))
    broken = getattr(whole, name).clone()
    broken[0] = value
    ground = torch.zeros(3, device=rasterizer.device)
    with_it = draw(rasterizer, replace(whole, **{name: broken}), SMALL, Manner(), ground)
    without = draw(rasterizer, others, SMALL, Manner(), ground)
    assert torch.equal(with_it.image, without.image)
    assert float(with_it.flat.opacities[0]) == 0


def test_nothing_to_draw_is_the_background(rasterizer):
    none = one().chosen(torch.zeros(1, dtype=torch.bool)).to(rasterizer.device)
    ground = torch.tensor([0.1, 0.2, 0.3], device=rasterizer.device)
    picture = draw(rasterizer, none, SMALL, Manner(), ground)
    assert torch.equal(picture.image, ground.expand(50, 70, 3))
    assert not picture.alpha.any()


def test_expected_depth(rasterizer):
    flat = flat_of(
        [(8.5, 8.5, 1e-4, 0.0, 1e-4, 0.5, 1, 1, 1), (8.5, 8.5, 1e-4, 0.0, 1e-4, 0.5, 1, 1, 1)], rasterizer.device
    )
    flat = replace(flat, depths=torch.tensor([2.0, 5.0], device=rasterizer.device))
    # weights .5 and .25
    assert float(depth_of(rasterizer, flat, 17, 17)[8, 8]) == pytest.approx((0.5 * 2 + 0.25 * 5) / 0.75, abs=1e-5)


def test_the_nearer_one_hides_the_other_whatever_their_order(rasterizer):
    rows = [(8.5, 8.5, 1e-3, 0.0, 1e-3, 0.9, 1, 0, 0), (8.5, 8.5, 1e-3, 0.0, 1e-3, 0.9, 0, 1, 0)]
    flat = replace(flat_of(rows, rasterizer.device), depths=torch.tensor([3.0, 1.0], device=rasterizer.device))
    image, _ = rasterizer.blend(flat, 17, 17, torch.zeros(3, device=rasterizer.device))
    assert image[8, 8].tolist() == pytest.approx([0.09, 0.9, 0.0], abs=1e-5)


def test_a_cpu_is_chosen_where_there_is_no_gpu(monkeypatch):
    """Whether gsplat can be imported or nvcc is found is not asked."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert open_rasterizer().name == "numba"
    assert open_rasterizer("torch").name == "torch"
    with pytest.raises(UsageError, match="gsplat: needs a CUDA device"):
        open_rasterizer("gsplat")
    with pytest.raises(UsageError, match="numba: draws on a CPU"):
        open_rasterizer("numba", "cuda")
