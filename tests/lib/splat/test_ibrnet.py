"""IBRNet: its pieces against formulas written out here, what must not matter, and training that stops and goes on."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("PIL", reason="photos are read by pillow")

from toolroll.errors import ToolrollError, UsageError  # noqa: E402
from toolroll.splat import ibrnet_training as training  # noqa: E402
from toolroll.splat.drawn import write_scene  # noqa: E402
from toolroll.splat.gaussians import Eye  # noqa: E402
from toolroll.splat.ibrnet import IBRNet, RayNet, Shape, Trunk, composite, positions  # noqa: E402
from toolroll.splat.ibrnet_fit import IbrFit, IbrRecipe, ray_loss  # noqa: E402
from toolroll.splat.ibrnet_rays import (  # noqa: E402
    Drawn,
    Sampling,
    Sources,
    by_nearness,
    depth_range,
    directions,
    draw_rays,
    even_depths,
    finer_depths,
    looked_up,
    pixels_of,
    project,
    render,
    sampled,
    turns_of,
)
from toolroll.splat.ibrnet_scenes import IbrScene  # noqa: E402
from toolroll.splat.metrics import psnr  # noqa: E402
from toolroll.splat.poses import rotation  # noqa: E402
from toolroll.splat.scene import Points  # noqa: E402
from toolroll.splat.splitting import part_shots  # noqa: E402
from toolroll.world.images import pillow  # noqa: E402

TINY = Shape(width=4, blocks=(1, 1, 1), features=6, fine=True)
RECIPE = IbrRecipe(
    steps=6, width=4, views=3, samples=8, fine=4, rays=24, lr_features=5e-3, lr_rays=5e-3, halve_every=3, eval_photos=1
)


def seeded(make, seed=0):
    torch.manual_seed(seed)
    return make()


def eye_at(place, ahead=(0.0, 0.0, 1.0), size=(48, 32)) -> Eye:
    """A camera that looks along `ahead`, upright."""
    ahead = np.array(ahead, float) / np.linalg.norm(ahead)
    right = np.cross([0.0, 1.0, 0.0], ahead)
    right = right / np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([right, np.cross(ahead, right), ahead])
    pose[:3, 3] = -pose[:3, :3] @ np.array(place, float)
    return Eye(torch.from_numpy(pose), 40.0, 42.0, size[0] / 2 + 1, size[1] / 2 - 1, *size)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """Two small scenes with their shots."""
    made = []
    for seed, name in ((3, "first"), (4, "second")):
        root = tmp_path_factory.mktemp("drawn") / name
        scene = write_scene(root, shots=8, size=(48, 32), seed=seed, points=300)
        made.append((scene, part_shots(scene.shots, "every:4")[0]))
    return made


@pytest.fixture(scope="module")
def place(drawn):
    return IbrScene(*drawn[0])


# --- the network


@pytest.mark.parametrize(("height", "width"), [(32, 48), (17, 35), (33, 66)])
def test_features_are_a_quarter_of_the_size_rounded_up(height, width):
    trunk = seeded(lambda: Trunk(TINY))
    made = trunk(torch.rand(2, 3, height, width))
    assert made.shape == (2, 12, -(-height // 4), -(-width // 4))
    model = seeded(lambda: IBRNet(replace(TINY, fine=False)))
    assert [one.shape for one in model.features([torch.rand(3, height, width)])[0]] == [(6, *made.shape[2:])]


def test_by_default_the_trunk_is_that_of_resnet_34():
    trunk = Trunk(Shape())
    convolutions = [one for one in trunk.modules() if isinstance(one, torch.nn.Conv2d)]
    blocks = [len(stage) for stage in trunk.stages]
    assert blocks == [3, 4, 6]
    assert [stage[0].first.out_channels for stage in trunk.stages] == [64, 128, 256]
    assert len(convolutions) == 1 + 2 * sum(blocks) + 3 + 4 + 1
    assert (trunk.stem.kernel_size, trunk.stem.stride) == ((7, 7), (2, 2))
    assert trunk.out.out_channels == 64
    norms = [one for one in trunk.modules() if isinstance(one, torch.nn.InstanceNorm2d)]
    assert len(norms) == len(convolutions) - 1
    assert not any(one.track_running_stats for one in norms)


def test_photos_of_different_sizes_have_the_features_that_each_has_alone():
    model = seeded(lambda: IBRNet(TINY))
    photos = [torch.rand(3, 32, 48), torch.rand(3, 48, 32)]
    together, alone = model.features(photos), [model.features([photo]) for photo in photos]
    for net in range(2):
        for number in range(2):
            assert torch.allclose(together[net][number], alone[number][net][0], atol=1e-6)


def elu(x):
    return torch.where(x > 0, x, x.exp() - 1)


def layers(part, x, last=lambda x: x):
    linears = part[::2]
    for linear in linears[:-1]:
        x = elu(linear.weight @ x + linear.bias)
    return last(linears[-1].weight @ x + linears[-1].bias)


def moments(values, weights):
    mean = sum(w * x for w, x in zip(weights, values, strict=True))
    return mean, sum(w * (x - mean) ** 2 for w, x in zip(weights, values, strict=True))


def sample_by_hand(net: RayNet, seen, turns, valid, number):
    """The colour of one sample, and what goes along the ray, from what each view shows of it."""
    views = range(len(seen))
    told = [seen[v] + layers(net.direction, turns[v], elu) for v in views]
    near = [torch.exp(net.sharpness.abs() * (turns[v, 3] - 1)) for v in views]
    near = [(near[v] - min(near)) * valid[v] for v in views]
    weights = [one / (sum(near) + 1e-8) for one in near]
    mean, variance = moments(told, weights)
    state = [layers(net.view, torch.cat([mean, variance, one]), elu) for one in told]
    sight = []
    for v in views:
        more = layers(net.doubt, state[v] * weights[v], elu)
        state[v] = state[v] + more[:32]
        gate = torch.sigmoid(more[32]) * valid[v]
        sight.append(layers(net.sight, state[v] * gate, torch.sigmoid)[0] * valid[v])
    weights = [one / (sum(sight) + 1e-8) for one in sight]
    solid = layers(net.solid, torch.cat([*moments(state, weights), sum(weights)[None] / len(seen)]), elu)
    code = [f(number / 10000 ** (2 * i / 16)) for i in range(8) for f in (math.sin, math.cos)]
    scores = [layers(net.colour, torch.cat([state[v], sight[v][None], turns[v]]))[0] for v in views]
    shares = [torch.exp(scores[v]) * valid[v] if valid.any() else torch.ones(()) for v in views]
    colour = sum(share * seen[v, :3] for v, share in enumerate(shares)) / sum(shares)
    return colour, solid + torch.tensor(code, dtype=seen.dtype)


def attended_by_hand(along, solid, known):
    """Samples of a ray that have looked at those of its samples that are known."""
    q, k, v = (solid @ part.weight.T for part in (along.query, along.key, along.value))
    read = torch.zeros_like(solid)
    for n in range(len(solid)):
        for own in (slice(4 * head, 4 * head + 4) for head in range(4)):
            scores = torch.exp(torch.stack([q[n, own] @ k[m, own] / 2 for m in known]))
            read[n, own] = sum(s * v[m, own] for s, m in zip(scores, known, strict=True)) / scores.sum()
    mixed = solid + read @ along.out.weight.T
    centred = mixed - mixed.mean(1, keepdim=True)
    return centred / ((centred**2).mean(1, keepdim=True) + 1e-6).sqrt() * along.norm.weight + along.norm.bias


def by_hand(net: RayNet, seen, turns, valid):
    """What a ray network says, sample by sample and view by view, as the method's description has it."""
    _, rays, samples, _ = seen.shape
    colours, densities = [], torch.zeros(rays, samples)
    for r in range(rays):
        made = [sample_by_hand(net, seen[:, r, n], turns[:, r, n], valid[:, r, n], n) for n in range(samples)]
        colours.append(torch.stack([colour for colour, _ in made]))
        known = [n for n in range(samples) if valid[:, r, n].sum() > 1] or list(range(samples))
        mixed = attended_by_hand(net.along, torch.stack([solid for _, solid in made]), known)
        for n in range(samples):
            if valid[:, r, n].any():
                densities[r, n] = layers(net.density, mixed[n], lambda x: x.clamp(min=0))[0]
    return torch.stack(colours).float(), densities


def looks(views=4, rays=2, samples=5, features=6, seed=1):
    """What views might show, in double precision; some see nothing."""
    random = torch.Generator().manual_seed(seed)
    seen = torch.rand(views, rays, samples, 3 + features, generator=random, dtype=torch.float64)
    turns = torch.nn.functional.normalize(torch.randn(views, rays, samples, 3, generator=random), dim=-1).double()
    dots = torch.rand(views, rays, samples, 1, generator=random, dtype=torch.float64) * 2 - 1
    valid = torch.rand(views, rays, samples, generator=random) < 0.7
    valid[:, 0, 1] = False  # no view
    valid[:, 0, 2] = torch.tensor([True] + [False] * (views - 1))  # one
    valid[:, 1, :] = False
    return seen, torch.cat([turns, dots], -1), valid


def test_a_ray_network_is_what_its_formulas_say():
    net = seeded(lambda: RayNet(6)).double()
    with torch.no_grad():
        for part in net.parameters():  # biases too
            part.add_(0.1 * torch.randn_like(part))
        net.density[2].bias.add_(0.5)
        found = net(*looks())
        expected = by_hand(net, *looks())
    assert float(expected[1][0].max()) > 0.1
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one.float(), other, atol=2e-6)


def test_the_order_of_views_does_not_matter():
    net, (seen, turns, valid) = seeded(lambda: RayNet(6)).double(), looks()
    order = torch.tensor([2, 0, 3, 1])
    with torch.no_grad():
        one, other = net(seen, turns, valid), net(seen[order], turns[order], valid[order])
    for a, b in zip(one, other, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_what_a_view_shows_that_does_not_see_a_sample_is_not_told():
    net, (seen, turns, valid) = seeded(lambda: RayNet(6)).double(), looks()
    spoiled = torch.where(valid[..., None], seen, 1e3)
    with torch.no_grad():
        one, other = net(seen, turns, valid), net(spoiled, turns, valid)
    anyone = valid.any(0)
    assert torch.equal(one[0][anyone], other[0][anyone])
    assert torch.equal(one[1], other[1])


def test_no_density_where_no_view_sees_and_no_colour_of_such_rays():
    net, (seen, turns, valid) = seeded(lambda: RayNet(6)).double(), looks()
    with torch.no_grad():
        net.density[2].bias.fill_(1.0)
        colours, densities = net(seen, turns, valid)
    assert bool((densities[~valid.any(0)] == 0).all())
    assert float(densities[valid.any(0)].min()) > 0
    assert composite(colours, densities)[0][1].tolist() == [0, 0, 0]


def test_samples_that_one_view_sees_do_not_speak_to_the_others():
    net, (seen, turns, valid) = seeded(lambda: RayNet(6)).double(), looks()
    net.density[2].bias.data.fill_(1.0)
    other = seen.clone()
    other[0, 0, 2] += 1.0  # the sample that only view 0 sees
    with torch.no_grad():
        one, two = (net(shown, turns, valid)[1][0] for shown in (seen, other))
    rest = [0, 1, 3, 4]
    assert torch.equal(one[rest], two[rest])
    assert one[2] != two[2]


def test_a_new_network_has_some_density_everywhere(place):
    sources, eye = place.sources([1, 2, 3]), place.train.eyes[0]
    for seed in range(8):
        model = seeded(lambda: IBRNet(replace(TINY, fine=False)), seed)
        with torch.no_grad():
            features = model.features(sources.images)
            drawn = draw_rays(model, features, sources, eye, pixels_of(eye)[::31], place.sampling(16, 0))[0]
        assert float(drawn.weights.sum(1)[drawn.counted].min()) > 0.05, seed


def test_positions_tell_samples_apart():
    codes = positions(128)
    assert codes.shape == (128, 16)
    assert float(torch.cdist(codes, codes).fill_diagonal_(9).min()) > 0.1


def test_composition_has_no_interval_in_it():
    colours, densities = torch.rand(3, 5, 3), torch.rand(3, 5) * 3
    image, weights = composite(colours, densities)
    for ray in range(3):
        left = 1.0
        for n in range(5):
            alpha = 1 - math.exp(-float(densities[ray, n]))
            assert float(weights[ray, n]) == pytest.approx(left * alpha, abs=1e-6)
            left *= 1 - alpha
        expected = (weights[ray, :, None] * colours[ray]).sum(0)
        assert torch.allclose(image[ray], expected, atol=1e-6)


# --- rays


def test_a_ray_of_a_pixel_leads_back_to_it():
    eye = eye_at((1.0, 2.0, -3.0), (0.3, -0.2, 1.0))
    pixels = pixels_of(eye)
    assert pixels[0].tolist() == [0.5, 0.5]
    assert pixels[49].tolist() == [1.5, 1.5]
    places = directions(eye, pixels)[:, None] * torch.tensor([0.5, 7.0])[:, None]
    back, inside = project(places, eye, [eye])
    assert torch.allclose(back[0], pixels[:, None].expand(-1, 2, -1), atol=1e-4)
    assert bool(inside[0][(pixels > 0.6).all(1) & (pixels < torch.tensor([47.4, 31.4])).all(1)].all())


def test_projection_by_hand():
    eye, other = eye_at((0.0, 0.0, 0.0)), eye_at((1.0, 0.0, 0.0))
    places = torch.tensor([[[0.0, 0.0, 2.0], [1.0, 0.2, 4.0], [1.0, 0.0, -1.0], [9.0, 0.0, 2.0]]])
    pixels, inside = project(places, eye, [eye, other])
    assert inside.tolist() == [[[True, True, False, False]], [[True, True, False, False]]]
    assert torch.allclose(pixels[1, 0, 0], torch.tensor([25.0 - 40 * 0.5, 15.0]))
    assert torch.allclose(pixels[1, 0, 1], torch.tensor([25.0, 15.0 + 42 * 0.05]))
    turns = turns_of(places[:, :2], eye, [eye, other])
    assert torch.allclose(turns[0, 0, :, 3], torch.ones(2))  # the camera itself
    back, away = torch.tensor([0.0, 0.0, -1.0]), torch.tensor([1.0, 0.0, -2.0]) / math.sqrt(5)
    apart = (back - away) / torch.linalg.vector_norm(back - away)
    assert torch.allclose(turns[1, 0, 0], torch.cat([apart, torch.tensor([2 / math.sqrt(5)])]), atol=1e-6)


def test_maps_are_read_between_their_places():
    y, x = torch.meshgrid(torch.arange(8.0), torch.arange(12.0), indexing="ij")
    ramp = torch.stack([x, y, 2 * x - y])
    pixels = torch.tensor([[[[0.5, 0.5], [6.5, 2.5], [20.5, 28.5], [3.0, 4.0], [99.0, -3.0]]]])
    found = sampled([ramp], pixels, 4)[0, 0]  # the middle of pixel (4 i, 4 j) is at (4 i + .5, 4 j + .5)
    expected = [[0, 0], [1.5, 0.5], [5, 7], [0.625, 0.875], [11, 0]]
    assert torch.allclose(found[:, :2], torch.tensor(expected), atol=1e-5)
    both = sampled([ramp, ramp[:, :4]], pixels.expand(2, -1, -1, -1), 4)
    assert torch.allclose(both[0, 0], found)
    assert both[1, 0, 2].tolist() == pytest.approx([5, 3, 7], abs=1e-5)


def test_features_are_where_their_pixels_are():
    """A pixel (4 i, 4 j) is told by features around the place (i, j), as far to one side as to the other."""
    trunk = seeded(lambda: Trunk(replace(TINY, width=16, fine=False))).double()
    for module in list(trunk.modules()):  # norms tell all places of each pixel
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.InstanceNorm2d):
                setattr(module, name, torch.nn.Identity())
    photo = torch.rand(1, 3, 256, 272, dtype=torch.float64)
    spot = photo.clone()
    spot[:, :, 128, 144] += 1e-3
    with torch.no_grad():
        told = ((trunk(spot) - trunk(photo)).abs().sum(1)[0] > 1e-12).nonzero()
    assert (told.amin(0) + told.amax(0)).tolist() == [2 * 32, 2 * 36]
    assert 10 < int(told[:, 0].max() - told[:, 0].min()) < 60


def test_depths_are_even_in_their_inverse():
    sampling = Sampling(2.0, 10.0, 9)
    depths = even_depths(sampling, 3)
    assert depths[0, [0, -1]].tolist() == pytest.approx([2, 10])
    steps = (1 / depths).diff(dim=1)
    assert torch.allclose(steps, torch.full_like(steps, -0.05), atol=1e-6)
    shaken = 1 / even_depths(sampling, 500, torch.Generator().manual_seed(0))
    off = (shaken - 1 / depths[:1]).abs()
    assert 0.02 < float(off.max()) <= 0.025 + 1e-6
    assert bool((shaken.diff(dim=1) <= 1e-6).all())
    assert float((shaken.mean(0) - 1 / depths[0])[1:-1].abs().max()) < 4e-3


@pytest.mark.parametrize("seed", [None, 1])
def test_finer_depths_are_where_weights_are(seed):
    depths = even_depths(Sampling(1.0, 5.0, 9), 2)
    weights = torch.zeros(2, 9)
    weights[0, 3] = 0.7
    weights[1, 2], weights[1, 6] = 0.3, 0.1
    random = None if seed is None else torch.Generator().manual_seed(seed)
    made = finer_depths(depths, weights, 400, random)
    assert made.shape == (2, 409)
    assert bool((made.diff(dim=1) >= 0).all())
    for ray, number, share in ((0, 3, 1.0), (1, 2, 0.75), (1, 6, 0.25)):
        nearer, farther = 1 / (1 / depths[ray, number] + 0.05), 1 / (1 / depths[ray, number] - 0.05)
        count = int(((made[ray] > nearer - 1e-5) & (made[ray] < farther + 1e-5)).sum()) - 1
        assert count / 400 == pytest.approx(share, abs=0.06)


def test_depth_range_by_points_and_without():
    eyes = [eye_at((x, 0.0, 0.0), (-x, 0.0, 5.0)) for x in (-1.0, 0.0, 1.0)]
    points = np.stack([np.zeros(300), np.zeros(300), np.linspace(4, 6, 300)], -1)
    near, far = depth_range(eyes, points)
    assert near == pytest.approx(0.9 * 4.0, abs=0.15)
    assert far == pytest.approx(1.5 * 6.05, abs=0.15)
    behind = np.concatenate([points, np.tile([0.0, 0.0, -50.0], (300, 1)), np.tile([90.0, 0.0, 1.0], (300, 1))])
    assert depth_range(eyes, behind) == pytest.approx((near, far))  # what is not in a picture says nothing
    near, far = depth_range(eyes, points[:2])
    assert near == pytest.approx(5 / 4)
    assert far == pytest.approx(4 * math.sqrt(26))
    ahead = [eye_at((x, 0.0, 0.0)) for x in (-1.0, 0.0, 1.0)]  # never look at one place
    assert depth_range(ahead, points[:0]) == pytest.approx((1.0, 50.0))


def test_nearest_cameras_are_those_that_look_alike():
    target = eye_at((0.0, 0.0, 0.0))
    others = [
        eye_at((2.0, 0.0, 0.0)),
        eye_at((0.1, 0.0, 0.0), (0.0, 0.0, -1.0)),  # looks back
        eye_at((0.5, 0.0, 0.0)),
        eye_at((0.5, 0.0, 0.0), (1.0, 0.0, 1.0)),
    ]
    assert by_nearness(target, others) == [2, 3, 0, 1]


def test_the_photo_that_is_drawn_is_not_looked_at(place):
    for number, eye in enumerate(place.train.eyes):
        assert place.nearest(eye, 99)[0] == number
        assert place.nearest(eye, 99, number) == [one for one in place.nearest(eye, 99) if one != number]
    sources = place.sources(place.nearest(place.test.eyes[0], 3))
    assert len(sources) == 3
    assert not any(torch.equal(one.pose, eye.pose) for one in sources.eyes for eye in place.test.eyes)


def test_what_is_masked_in_a_photo_is_not_seen(place):
    sources = place.sources([0, 1, 2])
    shown = torch.ones(32, 48, dtype=torch.bool)
    shown[:, :24] = False
    masked = replace(sources, masks=[None, shown, None])
    eye = place.train.eyes[3]
    places = directions(eye, pixels_of(eye)[::7])[:, None] * even_depths(place.sampling(6, 0), 1)[..., None]
    features = seeded(lambda: IBRNet(TINY)).features(sources.images)[0]
    (_, _, plain), (_, _, less) = (looked_up(places, eye, one, features) for one in (sources, masked))
    pixels, _ = project(places, eye, sources.eyes)
    assert torch.equal(less[[0, 2]], plain[[0, 2]])
    assert torch.equal(less[1], plain[1] & (pixels[1, ..., 0] > 24))
    assert 0 < int(less[1].sum()) < int(plain[1].sum())


def test_neither_where_the_world_is_nor_its_scale_matters(place):
    model = seeded(lambda: IBRNet(TINY)).eval()
    target, numbers = place.test.eyes[0], place.nearest(place.test.eyes[0], 3)
    sources, sampling = place.sources(numbers), place.sampling(8, 4)
    plain = render(model, sources, target, sampling)
    turn, shift, scale = rotation([0.9, 0.1, -0.3, 0.2]), np.array([40.0, -3.0, 7.0]), 3.0

    def moved(eye):  # x' = scale (turn x + shift)
        pose = eye.pose.numpy().copy()
        pose[:3, :3] = pose[:3, :3] @ turn.T
        pose[:3, 3] = scale * (eye.pose.numpy()[:3, 3] - pose[:3, :3] @ shift)
        return replace(eye, pose=torch.from_numpy(pose))

    others = replace(sources, eyes=[moved(eye) for eye in sources.eyes])
    wide = replace(sampling, near=scale * sampling.near, far=scale * sampling.far)
    assert torch.allclose(render(model, others, moved(target), wide), plain, atol=2e-4)


def test_pictures_are_the_same_in_shares_and_whole(place):
    model = seeded(lambda: IBRNet(TINY)).eval()
    sources, target = place.sources([0, 1, 2]), place.test.eyes[1]
    one, other = (render(model, sources, target, place.sampling(8, 4), rays=rays) for rays in (100, 10_000))
    assert one.shape == (32, 48, 3)
    assert torch.allclose(one, other, atol=1e-5)
    assert not one.requires_grad


# --- steps


def test_the_loss_is_of_rays_that_count():
    counted = torch.tensor([True, False, True])
    truth = torch.zeros(3, 3)
    one = Drawn(torch.tensor([[0.3, 0, 0], [9, 9, 9], [0, 0.6, 0]]), torch.zeros(3, 2), torch.zeros(3, 2), counted)
    two = replace(one, counted=~counted, colours=torch.ones(3, 3))
    expected = (0.09 + 0.36) / 3 / 2
    assert float(ray_loss([one], truth)) == pytest.approx(expected)
    assert float(ray_loss([one, two], truth)) == pytest.approx(expected + 1)
    assert float(ray_loss([replace(one, counted=counted & False)], truth)) == 0


def test_rays_count_that_two_views_see_for_long_enough(place):
    model, eye = seeded(lambda: IBRNet(TINY)), place.train.eyes[0]
    sources = place.sources(place.nearest(eye, 3, 0))
    sampling, pixels = place.sampling(8, 0), pixels_of(eye)
    made = draw_rays(model, model.features(sources.images), sources, eye, pixels, sampling)[0]
    places = directions(eye, pixels)[:, None] * even_depths(sampling, 1)[..., None]
    seen = project(places, eye, sources.eyes)[1].sum(0) > 1
    assert torch.equal(made.counted, seen.sum(1) > 2)  # a quarter of them, 8 at most
    assert 0 < int(made.counted.sum()) < len(pixels)


def test_every_part_of_the_network_learns(place):
    fit = IbrFit(seeded(lambda: IBRNet(TINY), 2), [place], replace(RECIPE, steps=4), seed=0)
    before = {name: part.detach().clone() for name, part in fit.parts.items()}
    list(fit.steps())
    still = [name for name, part in fit.parts.items() if torch.equal(part, before[name])]
    assert still == []


@pytest.mark.parametrize(("fine", "stop"), [(4, 1), (4, 4), (0, 3)])
def test_a_stop_changes_no_bit(drawn, fine, stop):
    recipe = replace(RECIPE, fine=fine)
    scenes = [IbrScene(*one) for one in drawn]

    def fit():
        return IbrFit(seeded(lambda: IBRNet(replace(TINY, fine=bool(fine)))), scenes, recipe, seed=7)

    whole, first = fit(), fit()
    told = list(whole.steps())
    half = [step for _, step in zip(range(stop), first.steps(), strict=False)]
    held = {name: tensor.clone() for name, tensor in first.tensors().items()}
    torch.manual_seed(stop)  # what else is drawn does not matter
    second = fit()
    second.restore(held, first.step)
    half += second.steps()
    assert half == told
    assert {step.scene for step in told} == {0, 1}
    expected, found = whole.tensors(), second.tensors()
    assert expected.keys() == found.keys()
    for name in expected:
        assert torch.equal(expected[name], found[name]), name


def test_rates_are_halved():
    fit = IbrFit(IBRNet(TINY), [], IbrRecipe(), seed=0)
    rates = [fit.rates(step) for step in (1, 50_000, 50_001, 200_001)]
    assert rates[0] == rates[1] == {"trunk": 1e-3, "rays": 5e-4}
    assert rates[2] == {"trunk": 5e-4, "rays": 2.5e-4}
    assert rates[3]["trunk"] == pytest.approx(1e-3 / 16)


def test_it_learns_a_scene(tmp_path):
    scene = write_scene(tmp_path, shots=12, size=(48, 32), seed=3, points=300)
    place = IbrScene(scene, part_shots(scene.shots, "every:12")[0])
    shape = Shape(width=8, blocks=(1, 1, 1), features=8, fine=False)
    rate = 3e-3
    recipe = IbrRecipe(150, 8, 3, 16, 0, 64, lr_features=rate, lr_rays=rate, halve_every=100)
    fit = IbrFit(seeded(lambda: IBRNet(shape)), [place], recipe, seed=0)

    def score():
        found = []
        for number in range(0, 11, 3):
            look = place.train[number]
            sources = place.sources(place.nearest(look.eye, 3, number))
            image = render(fit.model, sources, look.eye, place.sampling(16, 0))
            found.append(psnr(image.numpy(), look.image.numpy()))
        return np.mean(found)

    before = score()
    list(fit.steps())
    assert score() > before + 3


def test_masked_pixels_are_not_learned(drawn, tmp_path):
    scene, shots = drawn[0]
    left = np.zeros((32, 48), np.uint8)
    left[:, 24:] = 255
    pillow().fromarray(left).save(tmp_path / "mask.png")
    masked = [replace(shot, mask=tmp_path / "mask.png") for shot in shots]
    spoiled = []
    for number, shot in enumerate(masked):
        pixels = np.asarray(pillow().open(shot.path)).copy()
        pixels[:, :24] = 255
        pillow().fromarray(pixels).save(tmp_path / f"{number}.png")
        spoiled.append(replace(shot, path=tmp_path / f"{number}.png"))
    recipe = replace(RECIPE, steps=2, rays=64)

    def drawn_colours(own):
        place = IbrScene(scene, own)
        found = []
        fit = IbrFit(seeded(lambda: IBRNet(TINY)), [place], recipe, seed=0)
        from toolroll.splat import ibrnet_fit

        for seed in range(4):
            look = place.train[seed]
            pixels, colours = ibrnet_fit._rays(look, 50, torch.Generator().manual_seed(seed))
            assert float(pixels[:, 0].min()) > 24
            found.append(colours)
        assert len(list(fit.steps())) == 2
        return torch.cat(found)

    assert torch.equal(drawn_colours(masked), drawn_colours(spoiled))


def test_a_photo_that_is_masked_wholly_teaches_nothing(drawn, tmp_path):
    scene, shots = drawn[0]
    pillow().new("L", (48, 32)).save(tmp_path / "none.png")
    blind = [replace(shot, mask=tmp_path / "none.png") for shot in shots]
    some = [*blind[:4], *shots[4:]]

    def fit(own):
        return IbrFit(seeded(lambda: IBRNet(TINY)), [IbrScene(scene, own)], RECIPE, seed=3)

    dark = fit(blind)
    before = {name: part.detach().clone() for name, part in dark.parts.items()}
    assert [(told.loss, told.rays) for told in dark.steps()] == [(0.0, 0)] * 6
    assert all(torch.equal(before[name], part) for name, part in dark.parts.items())
    whole, half, rest = fit(some), fit(some), fit(some)
    told = [one.rays for one in whole.steps()]
    assert 0 < sum(rays == 0 for rays in told) < 6
    stop = 1 + max(number for number, rays in enumerate(told[:5]) if rays == 0)  # right behind one of these
    for _ in zip(range(stop), half.steps(), strict=False):
        pass
    rest.restore({name: tensor.clone() for name, tensor in half.tensors().items()}, stop)
    list(rest.steps())
    for name, tensor in whole.tensors().items():
        assert torch.equal(tensor, rest.tensors()[name]), name


# --- folders


def trained(drawn, folder, recipe=RECIPE, last=99, unseen=(), **settings):
    made = training.IbrTraining(drawn, recipe, folder, seed=5, device="cpu", unseen=unseen)
    warnings = []
    made.resume({"seed": 5, "rays": recipe.rays, **settings}, frozenset({"seed"}), warnings.append)
    rows = list(made.rows(lambda: False, report_every=2, eval_every=0, save_every=2, last=last))
    return made, rows, warnings


@pytest.fixture(scope="module")
def folder(drawn, tmp_path_factory):
    """A model of two scenes, its rows, and pictures."""
    root = tmp_path_factory.mktemp("ibrnet") / "model"
    made, rows, _ = trained(drawn, root)
    assert made.show() == 2
    return root, rows


def test_rows_and_scores_of_several_scenes(drawn, folder):
    root, rows = folder
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert set(rows[0]) == {"step", "loss"}
    each = rows[-1]["scenes"]
    assert [(one["scene"], one["seen"], one["n_images"]) for one in each] == [("first", True, 1), ("second", True, 1)]
    assert rows[-1]["psnr_db"] == pytest.approx(np.mean([one["psnr_db"] for one in each]))
    about = json.loads((root / "train.json").read_text())
    assert [one["name"] for one in about["scenes"]] == ["first", "second"]
    assert {camera["part"] for camera in about["scenes"][0]["cameras"]} == {"train", "test"}
    assert not list(root.rglob("*.p*kl*"))


def test_pictures_are_written_as_the_model_of_the_folder_draws_them(drawn, folder):
    root, rows = folder
    opened = training.open_ibrnet(root)
    assert opened.about.scenes == ("first", "second")
    assert opened.about.step == 6
    for number, name in enumerate(("first", "second")):
        scene = IbrScene(*drawn[number])
        look = scene.test[0]
        image = np.rint(opened.draw(scene, look.eye).numpy() * 255)
        written = np.asarray(pillow().open(root / "renders" / name / look.name))
        assert np.abs(written - image).max() <= 1
        both = np.asarray(pillow().open(root / "compare" / name / look.name))
        assert np.array_equal(both[:, 48:], written)
        assert np.array_equal(both[:, :48], np.rint(look.image.numpy() * 255))
        score = training.score_of(np.float32(written / 255), look)
        assert rows[-1]["scenes"][number]["psnr_db"] == pytest.approx(score[0], abs=1e-4)
        assert rows[-1]["scenes"][number]["ssim"] == pytest.approx(score[1], abs=1e-4)


def test_a_stopped_training_goes_on_to_the_same_bits(drawn, folder, tmp_path):
    root, rows = folder
    trained(drawn, tmp_path / "again", last=3)
    made, more, warnings = trained(drawn, tmp_path / "again", rays=99)
    assert warnings == ["--rays was 24, is now 99"]
    assert made.step == 6
    assert more[-1]["scenes"] == rows[-1]["scenes"]
    for name in ("model.safetensors", "ibrnet.json"):
        assert (tmp_path / "again" / name).read_bytes() == (root / name).read_bytes()
    with pytest.raises(ToolrollError, match="--seed: training began with 5"):
        training.IbrTraining(drawn, RECIPE, root, seed=6, device="cpu").resume({"seed": 6}, frozenset({"seed"}), print)
    other = training.IbrTraining(drawn, replace(RECIPE, width=8), root, seed=5, device="cpu")
    with pytest.raises(ToolrollError, match="its state is of another training"):
        other.resume({}, frozenset(), print)


def test_one_scene_has_its_pictures_in_the_folder_itself(drawn, tmp_path):
    _, rows, _ = trained(drawn[:1], tmp_path, replace(RECIPE, steps=1), unseen=drawn[1:])
    assert [(one["scene"], one["seen"]) for one in rows[-1]["scenes"]] == [("first", True), ("second", False)]
    assert rows[-1]["unseen_psnr_db"] == rows[-1]["scenes"][1]["psnr_db"]
    alone, rows, _ = trained(drawn[:1], tmp_path / "alone", replace(RECIPE, steps=1, eval_photos=0))
    assert set(rows[-1]) == {"step", "loss", "psnr_db", "ssim"}
    assert alone.show() == 2
    names = sorted(file.name for file in (tmp_path / "alone" / "renders").iterdir())
    assert names == ["frame_00001.png", "frame_00005.png"]
    about = json.loads((tmp_path / "alone" / "train.json").read_text())
    assert about["scene"] == str(drawn[0][0].root.resolve())
    assert len(about["cameras"]) == 8


def test_scenes_of_one_name_are_told_apart(drawn, tmp_path):
    made = training.IbrTraining([*drawn, drawn[0]], RECIPE, tmp_path, seed=0, device="cpu")
    assert made.names == ["first", "second", "first_2"]


def test_fine_tuning_begins_with_the_network_of_a_folder(drawn, folder, tmp_path):
    root, _ = folder
    recipe = replace(RECIPE, start=str(root), width=None, fine=None)
    made = training.IbrTraining(drawn[1:], recipe, tmp_path, seed=9, device="cpu")
    kept = training.open_ibrnet(root).model.state_dict()
    assert all(torch.equal(kept[name], part) for name, part in made.fit.model.state_dict().items())
    assert (made.recipe.width, made.recipe.fine) == (4, 4)
    for change, why in (({"width": 8}, "width 4, not 8"), ({"fine": 0}, "has a network for fine samples")):
        with pytest.raises(UsageError, match=why):
            training.begun(replace(recipe, **change), 0)
    new = [training.begun(RECIPE, seed)[0].trunk.stem.weight for seed in (1, 1, 2)]
    assert torch.equal(new[0], new[1])
    assert not torch.equal(new[0], new[2])


def test_folders_that_are_none(folder, tmp_path):
    root, _ = folder
    with pytest.raises(ToolrollError, match="No such file"):
        training.open_ibrnet(tmp_path / "none")
    with pytest.raises(ToolrollError, match=r"no ibrnet\.json"):
        training.open_ibrnet(tmp_path)
    (tmp_path / "ibrnet.json").write_text((root / "ibrnet.json").read_text())
    for weights in (None, b"", b"\x80\x04."):
        if weights is not None:
            (tmp_path / "model.safetensors").write_bytes(weights)
        with pytest.raises(ToolrollError, match="cannot be loaded as an IBRNet"):
            training.open_ibrnet(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((root / "model.safetensors").read_bytes())
    about = json.loads((root / "ibrnet.json").read_text())
    vast = {"width": 10**9, "blocks": [10**9, 1, 1], "features": 10**9, "fine": 1}
    changes = [{"shape": {**about["shape"], name: value}} for name, value in vast.items()]
    changes += [{"views": -1}, {"samples": 10**12}, {"fine": 1e3}, {"side": "x"}, {"step": -1}, {"scenes": [1]}]
    for text in ["[]", "[" * 100_000, *(json.dumps({**about, **change}) for change in changes)]:
        (tmp_path / "ibrnet.json").write_text(text)
        with pytest.raises(ToolrollError, match="cannot be loaded as an IBRNet: "):
            training.open_ibrnet(tmp_path)
    for change in ({"width": 5}, {"fine": not about["shape"]["fine"]}, {"features": 33}):
        (tmp_path / "ibrnet.json").write_text(json.dumps({**about, "shape": {**about["shape"], **change}}))
        if change != {"fine": False}:
            with pytest.raises(ToolrollError, match=r"model\.safetensors has no "):
                training.open_ibrnet(tmp_path)


def test_a_model_without_its_state_is_not_written_over(drawn, folder, tmp_path):
    (tmp_path / "ibrnet.json").write_text((folder[0] / "ibrnet.json").read_text())
    made = training.IbrTraining(drawn[:1], RECIPE, tmp_path, seed=0, device="cpu")
    with pytest.raises(ToolrollError, match="no state to go on from"):
        made.resume({}, frozenset(), print)


# --- photos


def test_photos_are_made_smaller_with_their_lenses(tmp_path):
    scene = write_scene(tmp_path, shots=5, size=(72, 48), seed=1, points=300)
    shots, _ = part_shots(scene.shots, "every:5")
    whole, small = IbrScene(scene, shots), IbrScene(scene, shots, side=36)
    eye, less = whole.train.eyes[0], small.train.eyes[0]
    assert (less.width, less.height) == (36, 24)
    assert (less.fx, less.fy, less.cx, less.cy) == (eye.fx / 2, eye.fy / 2, eye.cx / 2, eye.cy / 2)
    expected = whole.train[0].image.view(24, 2, 36, 2, 3).mean((1, 3))
    assert float((small.train[0].image - expected).abs().max()) <= 0.51 / 255 + 1e-6
    assert (small.near, small.far) == pytest.approx((whole.near, whole.far))


def test_few_or_small_photos_are_refused(drawn):
    scene, shots = drawn[0]
    with pytest.raises(ToolrollError, match="2 photos to train on: a network that blends photos wants 3"):
        IbrScene(scene, shots[:3])
    with pytest.raises(ToolrollError, match="18 x 12 pixels"):
        IbrScene(scene, shots, side=18)
    with pytest.raises(UsageError, match="no scene"):
        training.IbrTraining([], RECIPE, scene.root, seed=0)


def test_photos_that_have_no_room_are_read_anew(drawn):
    scene, shots = drawn[0]
    tight, wide = IbrScene(scene, shots, memory_bytes=0), IbrScene(scene, shots)
    for _ in range(2):
        assert torch.equal(tight.train[1].image, wide.train[1].image)
    assert (len(tight.train._kept), len(wide.train._kept)) == (0, 1)


def test_a_scene_without_points_is_looked_at_by_its_cameras(drawn):
    scene, shots = drawn[0]
    place = IbrScene(replace(scene, points=Points.none()), shots)
    assert 0 < place.near < 3 < place.far


def test_views_may_be_more_than_there_are(drawn, tmp_path):
    recipe = replace(RECIPE, views=30, steps=1)
    _, rows, _ = trained(drawn[:1], tmp_path, recipe)
    assert rows[-1]["psnr_db"] > 5


# --- options


def test_options_are_those_of_the_paper_by_default():
    import click

    from toolroll.cli import GroupedOption
    from toolroll.splat.ibrnet_options import IbrOptions, ibr_options

    command = click.Command("x", params=ibr_options(GroupedOption), callback=lambda **given: IbrOptions(**given))
    assert command.main([], standalone_mode=False) == IbrOptions()
    assert IbrOptions().recipe(250_000) == IbrRecipe()
    given = command.main(["--views", "5", "--fine-samples", "0", "--photo-side", "96"], standalone_mode=False)
    recipe = given.recipe(1001)
    assert (recipe.views, recipe.fine, recipe.side, recipe.halve_every) == (5, 0, 96, 201)


def test_sources_move_to_a_device(place):
    sources = place.sources([0, 1]).to("cpu")
    assert isinstance(sources, Sources)
    assert sources.images[0].shape == (3, 32, 48)
