"""Density control: what is cloned, split, pruned, reset, moved and added, worked out by hand."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from toolroll.splat.fit import Fit, Recipe, begun  # noqa: E402
from toolroll.splat.growth import Default, Growth, growth_for, relocated  # noqa: E402
from toolroll.splat.on_numba import NumbaRasterizer  # noqa: E402
from toolroll.splat.rasterizer import Flat  # noqa: E402

RANDOM = torch.Generator


class Table:
    """Gaussians as density control sees them."""

    def __init__(self, scales: list[float], opacities: list[float]) -> None:
        count = len(scales)
        self.rows = {
            "means": torch.arange(3.0 * count).view(count, 3),
            "quats": torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
            "scales": torch.tensor(scales).log()[:, None].repeat(1, 3),
            "logits": torch.tensor(opacities).logit(),
            "sh0": torch.arange(float(count)).view(count, 1, 1).repeat(1, 1, 3),
            "shn": torch.zeros(count, 0, 3),
        }
        self.forgotten: list[int] = []

    def values(self):
        return self.rows

    def rebuild(self, kept, added):
        self.rows = {name: torch.cat([part[kept], added[name]]) for name, part in self.rows.items()}
        self.kept = kept.tolist()

    def overwrite(self, rows, values):
        for name, value in values.items():
            self.rows[name][rows] = value
        self.forgotten += rows.tolist()


def pulled(grower: Default, pulls: list[float], times: int = 1) -> None:
    """A step in a picture of 4 x 4 pixels, in which gradients count twice."""
    for _ in range(times):
        means = torch.zeros(len(pulls), 2, requires_grad=True)
        means.grad = torch.tensor([[pull / 2, 0.0] for pull in pulls])
        none = torch.zeros(len(pulls))
        seen = torch.tensor([[int(pull > 0)] * 2 for pull in pulls])
        grower.watch(Flat(means, none, none, none, none, seen), 4, 4)


GROWTH = Growth(first=0, until=100, every=10, reset_every=1000, gradient=0.5, small=0.1, large=2.0)


def test_small_ones_are_cloned_and_large_ones_split():
    table = Table([0.05, 0.5, 0.5], [0.5, 0.5, 0.5])
    grower = Default(GROWTH, 1.0, 3)
    pulled(grower, [1.0, 1.0, 0.4])
    grower.act(10, table, 0.0, torch.Generator().manual_seed(0))
    origin = table.rows["sh0"][:, 0, 0].tolist()
    assert origin == [0, 2, 0, 1, 1]  # 1 is gone, two parts of it are there
    sizes = table.rows["scales"].exp()[:, 0].tolist()
    assert sizes == pytest.approx([0.05, 0.5, 0.05, 0.5 / 1.6, 0.5 / 1.6])
    assert table.rows["means"][0].tolist() == table.rows["means"][2].tolist() == [0, 1, 2]
    halves = table.rows["means"][3:]
    assert not torch.equal(halves[0], halves[1])
    assert float((halves - torch.tensor([3.0, 4.0, 5.0])).abs().max()) < 5 * 0.5


def test_the_pull_is_the_mean_over_the_steps_that_saw_it():
    grower = Default(GROWTH, 1.0, 2)
    pulled(grower, [1.0, 0.0])
    pulled(grower, [0.0, 0.6])
    pulled(grower, [0.0, 0.3])
    assert (grower.pulled / grower.seen).tolist() == pytest.approx([1.0, 0.45])


def test_faint_ones_go_and_large_ones_after_the_first_reset():
    growth = Growth(first=0, until=100, every=10, reset_every=20, gradient=0.5, large=0.3)
    table = Table([0.05, 0.05, 0.5], [0.5, 0.004, 0.5])
    grower = Default(growth, 1.0, 3)
    pulled(grower, [0.1, 0.1, 0.1])
    grower.act(10, table, 0.0, torch.Generator())
    assert table.rows["sh0"][:, 0, 0].tolist() == [0, 2]
    grower.act(30, table, 0.0, torch.Generator())
    assert table.rows["sh0"][:, 0, 0].tolist() == [0]


def test_opacities_fall_at_a_reset_and_adam_forgets_them():
    """gsplat 1.5.3 never does it: `step % every == 0 & step > 0` is always false."""
    growth = Growth(first=1000, until=100, every=10, reset_every=20)
    table = Table([0.05, 0.05], [0.5, 0.006])
    Default(growth, 1.0, 2).act(19, table, 0.0, torch.Generator())
    assert table.forgotten == []
    Default(growth, 1.0, 2).act(20, table, 0.0, torch.Generator())
    assert table.rows["logits"].sigmoid().tolist() == pytest.approx([0.01, 0.006])
    assert table.forgotten == [0, 1]
    assert float(table.rows["logits"].sigmoid()[0]) > 1 / 255  # or it would never be seen again


def test_the_cap_keeps_those_that_are_pulled_most():
    growth = Growth(first=0, until=100, every=10, gradient=0.5, small=0.1, cap=4)
    table = Table([0.05, 0.05, 0.05], [0.5] * 3)
    grower = Default(growth, 1.0, 3)
    pulled(grower, [0.6, 0.9, 0.7])
    grower.act(10, table, 0.0, torch.Generator())
    assert table.rows["sh0"][:, 0, 0].tolist() == [0, 1, 2, 1]


@pytest.mark.parametrize("step", [10, 15, 100])
def test_nothing_is_refined_outside_of_its_time(step):
    growth = Growth(first=10, until=100, every=10, gradient=0.5)
    table = Table([0.05], [0.5])
    grower = Default(growth, 1.0, 1)
    pulled(grower, [1.0])
    grower.act(step, table, 0.0, torch.Generator())
    assert len(table.rows["means"]) == 1


def test_schedules_shrink_with_the_run_and_are_gsplats_at_its_length():
    long = growth_for(30_000, Growth())
    assert (long.first, long.every, long.until, long.reset_every) == (500, 100, 15_000, 3000)
    assert growth_for(30_000, Growth(kind="mcmc")).until == 25_000
    short = growth_for(600, Growth())
    assert (short.first, short.every, short.until) == (40, 10, 300)


@pytest.mark.parametrize("copies", [1, 2, 3, 7, 51])
def test_copies_cover_together_what_one_did(copies):
    """n copies of opacity o' in one place leave (1 - o')^n of what is behind, which is 1 - o."""
    opacity = torch.tensor([0.6], dtype=torch.float64)
    new, factor = relocated(opacity, torch.tensor([copies]))
    assert float((1 - new) ** copies) == pytest.approx(0.4, abs=1e-12)
    assert (copies == 1) == (float(factor) == pytest.approx(1.0, abs=1e-12))


def test_relocation_vector():
    new, factor = relocated(torch.tensor([0.6], dtype=torch.float64), torch.tensor([3]))
    assert (float(new), float(factor)) == pytest.approx((0.2631937003, 0.9186091743), abs=1e-10)


def fit_of(kind: str, **changes) -> Fit:
    random = torch.Generator().manual_seed(0)
    places = torch.rand(60, 3, generator=random)
    start = begun(places, torch.rand(60, 3, generator=random), opacity=0.3, size=1.0, degree=0, random=random)
    growth = Growth(kind=kind, first=0, until=100, every=1, **changes)
    return Fit(start, 1.0, [], Recipe(steps=10, degree=0, growth=growth), NumbaRasterizer(), 0)


def test_mcmc_moves_faint_ones_to_opaque_ones_and_adds_five_percent():
    fit = fit_of("mcmc", cap=62, noise=0.0)
    fit.parts["logits"].detach()[:10] = -9.0
    before = fit.values()["means"].clone()
    fit.grower.act(1, fit, 0.0, torch.Generator().manual_seed(1))
    now = fit.values()
    assert len(now["means"]) == 62  # 63 would be 5 % more, beyond the cap
    assert float(now["logits"].sigmoid().min()) >= 0.005
    moved = now["means"][:10]
    assert (moved[:, None] == before[None, 10:]).all(2).any(1).all()
    assert (now["logits"][10:60].sigmoid() <= 0.3 + 1e-6).all()


def test_mcmc_shakes_the_faint_more():
    fit = fit_of("mcmc", noise=1.0)
    fit.grower.growth = Growth(kind="mcmc", first=1000)
    fit.parts["logits"].detach()[:30] = math.log(0.001)
    before = fit.values()["means"].clone()
    fit.grower.act(1, fit, 1.0, torch.Generator().manual_seed(1))
    moved = (fit.values()["means"] - before).norm(dim=1)
    assert float(moved[:30].min()) > 0
    assert float(moved[30:].max()) < 1e-6 * float(moved[:30].mean())
