"""Training: it learns, stops and goes on to the bit, whatever the kind of growth."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from toolroll.splat.fit import Fit, Recipe, View, begun, thinned  # noqa: E402
from toolroll.splat.frame import Frame, frame_of  # noqa: E402
from toolroll.splat.gaussians import Eye, Gaussians, Manner  # noqa: E402
from toolroll.splat.growth import Growth  # noqa: E402
from toolroll.splat.on_numba import NumbaRasterizer  # noqa: E402
from toolroll.splat.rasterizer import draw  # noqa: E402
from toolroll.splat.scene import Lens  # noqa: E402


def eye(number: int) -> Eye:
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, 3] = torch.tensor([0.15 * number - 0.3, 0.1 * (number % 2), 2.0], dtype=torch.float64)
    return Eye(pose, 40, 40, 24, 16, 48, 32)


def scene(count: int = 5, mask: bool = False) -> list[View]:
    """Pictures of 30 Gaussians."""
    random = torch.Generator().manual_seed(5)
    places = torch.rand(30, 3, generator=random) - 0.5
    truth = begun(places, torch.rand(30, 3, generator=random), opacity=0.8, size=0.6, degree=0, random=random)
    made = []
    for number in range(count):
        picture = draw(NumbaRasterizer(), truth, eye(number), Manner(degree=0), torch.zeros(3))
        shown = None
        if mask:
            shown = torch.ones(32, 48, dtype=torch.bool)
            shown[:, :24] = False
        made.append(View(f"{number}.png", eye(number), picture.image, shown))
    return made


def fit(views, steps: int = 12, seed: int = 1, **changes) -> Fit:
    random = torch.Generator().manual_seed(6)
    places = torch.rand(40, 3, generator=random) - 0.5
    start = begun(places, torch.rand(40, 3, generator=random), opacity=0.3, size=1.0, degree=1, random=random)
    growth = Growth(first=1, until=10, every=3, gradient=1e-5, reset_every=8)
    recipe = Recipe(steps=steps, degree=1, degree_every=4, **{"growth": growth, **changes})
    return Fit(start, 1.0, views, recipe, NumbaRasterizer(), seed)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"growth": Growth(kind="mcmc", first=1, until=10, every=3, cap=60), "opacity_reg": 0.01, "scale_reg": 0.01},
        {"growth": Growth(kind="none"), "exposure": 0.01, "background": None, "antialiased": True},
    ],
    ids=["default", "mcmc", "exposure"],
)
@pytest.mark.parametrize("stop", [1, 5, 9])
def test_a_stop_changes_no_bit(changes, stop):
    views = scene()
    whole = fit(views, **changes)
    told = list(whole.steps())
    first = fit(views, **changes)
    half = [step for _, step in zip(range(stop), first.steps(), strict=False)]
    held = {name: tensor.clone() for name, tensor in first.tensors().items()}
    second = fit(views, **changes)
    second.restore(held, first.step)
    half += second.steps()
    assert [step.loss for step in half[:stop] + half[-(12 - stop) :]] == [step.loss for step in told]
    expected, found = whole.tensors(), second.tensors()
    assert expected.keys() == found.keys()
    for name in expected:
        assert torch.equal(expected[name], found[name]), name


def test_it_learns():
    views = scene()
    trained = fit(views, steps=150, growth=Growth(kind="none"))
    losses = [told.loss for told in trained.steps()]
    assert sum(losses[-10:]) < 0.3 * sum(losses[:10])


def test_other_seeds_see_photos_in_another_order_and_each_once():
    one, other = fit(scene(), seed=1), fit(scene(), seed=2)
    assert sorted(one.order(step) for step in range(1, 6)) == [0, 1, 2, 3, 4]
    assert sorted(one.order(step) for step in range(6, 11)) == [0, 1, 2, 3, 4]
    assert [one.order(step) for step in range(1, 11)] != [other.order(step) for step in range(1, 11)]


def test_what_is_masked_teaches_nothing():
    views = scene(mask=True)
    spoiled = []
    for view in views:
        image = view.image.clone()
        image[:, :24] = 1.0
        spoiled.append(View(view.name, view.eye, image, view.mask))
    one, other = fit(views), fit(spoiled)
    assert [told.loss for told in one.steps()] == [told.loss for told in other.steps()]
    assert torch.equal(one.values()["means"], other.values()["means"])


def test_exposure_takes_up_what_differs_between_photos():
    views = [View(v.name, v.eye, (v.image * (0.6 if i % 2 else 1.0))) for i, v in enumerate(scene(6))]
    plain, lit = (fit(views, steps=120, growth=Growth(kind="none"), exposure=rate) for rate in (0.0, 0.02))
    losses = [[told.loss for told in one.steps()][-6:] for one in (plain, lit)]
    assert sum(losses[1]) < 0.8 * sum(losses[0])
    gains = lit.parts["light"].detach()[:, 0].mean(1)
    assert float(gains[1::2].max()) < float(gains[::2].min())


def test_harmonics_come_later():
    degrees = [told.degree for told in fit(scene()).steps()]
    assert degrees == [0] * 3 + [1] * 9


def test_the_rate_of_means_falls_to_its_hundredth():
    made = fit(scene(), steps=100)
    assert made.rate(1) == pytest.approx(1.6e-4)
    assert made.rate(101) == pytest.approx(1.6e-6)


def test_begun_is_as_large_as_the_nearest_three_are_far():
    places = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3], [9, 9, 9]])
    made = begun(places, torch.full((5, 3), 0.25), opacity=0.1, size=1.0, degree=2, random=torch.Generator())
    assert made.scales[0].exp().tolist() == pytest.approx([((1 + 4 + 9) / 3) ** 0.5] * 3)
    assert made.logits.sigmoid().tolist() == pytest.approx([0.1] * 5)
    assert made.sh[0, 0].tolist() == pytest.approx([-0.886226925] * 3, abs=1e-7)
    assert made.sh.shape == (5, 9, 3)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_points_are_enough_to_begin(count):
    made = begun(torch.rand(count, 3), torch.rand(count, 3), opacity=0.1, size=1.0, degree=0, random=torch.Generator())
    assert made.finite().all()


def test_thinned():
    made = begun(torch.rand(20, 3), torch.rand(20, 3), opacity=0.1, size=1.0, degree=0, random=torch.Generator())
    assert len(thinned(made, 7, torch.Generator().manual_seed(0))) == 7
    assert thinned(made, 0, torch.Generator()) is made


def test_pictures_are_the_same_in_the_frame_and_in_the_world():
    views = scene(1)
    frame = Frame((3.0, -2.0, 1.0), 0.25)
    random = torch.Generator().manual_seed(7)
    inner = begun(
        torch.rand(40, 3, generator=random) - 0.5, torch.rand(40, 3), opacity=0.5, size=1.0, degree=0, random=random
    )
    outer = frame.outward(inner)
    pose = views[0].eye.pose.numpy().copy()
    lens = Lens("PINHOLE", 48, 32, 40, 40, 24, 16)
    # the camera that stands in the world where that of the frame stands in the frame
    world = pose.copy()
    world[:3, 3] = pose[:3, 3] / frame.scale - pose[:3, :3] @ [3.0, -2.0, 1.0]
    assert torch.allclose(frame.eye(world, lens).pose, views[0].eye.pose, atol=1e-12)
    here = draw(NumbaRasterizer(), inner, views[0].eye, Manner(), torch.zeros(3)).image
    far = Eye(torch.from_numpy(world), 40, 40, 24, 16, 48, 32)
    there = draw(NumbaRasterizer(), outer, far, Manner(), torch.zeros(3)).image
    assert float((here - there).abs().max()) < 1e-4


def test_frame_puts_cameras_one_unit_around_the_origin():
    import numpy as np

    poses = []
    for x in (10.0, 12.0, 17.0):
        pose = np.eye(4)
        pose[:3, 3] = [-x, -5.0, 0.0]
        poses.append(pose)
    frame = frame_of(poses)
    assert frame.centre == (13.0, 5.0, 0.0)
    assert frame.scale == 0.25
    assert frame.inward(np.array([[17.0, 5.0, 4.0]])).tolist() == [[1.0, 0.0, 1.0]]
    assert frame_of(poses[:1]).scale == 1.0


def test_gaussians_of_many():
    made = Gaussians(torch.zeros(3, 3), torch.ones(3, 4), torch.zeros(3, 3), torch.zeros(3), torch.zeros(3, 9, 3))
    assert (len(made), made.degree) == (3, 2)
    made.means[1, 2] = float("nan")
    assert made.finite().tolist() == [True, False, True]
    assert len(made.chosen(made.finite())) == 2
