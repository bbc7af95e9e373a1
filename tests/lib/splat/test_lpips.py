"""LPIPS: against a plain reimplementation, by hand, with masks, and weights in files."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_lpips import made_weights

from toolroll.errors import RowError, ToolrollError
from toolroll.splat.lpips import ALEX, KINDS, VGG, Lpips, checked, converted, read_weights

NETS = {"alex": ALEX, "vgg": VGG}


def pictures(height=45, width=39, seed=0):
    draws = np.random.default_rng(seed)
    one = draws.uniform(0, 1, (height, width, 3))
    return one, np.clip(one + draws.normal(0, 0.2, one.shape), 0, 1)


# --- the same in numpy, value by value


def convolved(plane, weight, bias, stride, padding):
    plane = np.pad(plane, [(0, 0), (padding, padding), (padding, padding)])
    out, _, size, _ = weight.shape
    rows = (plane.shape[1] - size) // stride + 1
    columns = (plane.shape[2] - size) // stride + 1
    made = np.zeros((out, rows, columns))
    for y in range(rows):
        for x in range(columns):
            window = plane[:, y * stride : y * stride + size, x * stride : x * stride + size]
            made[:, y, x] = (weight * window).sum((1, 2, 3)) + bias
    return np.maximum(made, 0)


def pooled(plane, size):
    rows, columns = ((side - size) // 2 + 1 for side in plane.shape[1:])
    windows = [
        [plane[:, 2 * y : 2 * y + size, 2 * x : 2 * x + size].max((1, 2)) for x in range(columns)] for y in range(rows)
    ]
    return np.array(windows).transpose(2, 0, 1)


def layers_of(kind, tensors, picture):
    scaled = picture if kind == "lpips-vgg-3dgs" else 2 * picture - 1
    plane = ((scaled - (-0.030, -0.088, -0.188)) / (0.458, 0.448, 0.450)).transpose(2, 0, 1)
    if kind == "lpips-alex":
        steps = ["c", "p", "c", "p", "c", "c", "c"]
        seen, pool, strides, paddings = range(5), 3, [4, 1, 1, 1, 1], [2, 2, 1, 1, 1]
    else:
        steps = list("ccpccpcccpcccpccc")
        seen, pool, strides, paddings = (1, 3, 6, 9, 12), 2, [1] * 13, [1] * 13
    number, found = 0, []
    for step in steps:
        if step == "p":
            plane = pooled(plane, pool)
            continue
        weight, bias = (tensors[f"conv{number}.{part}"].double().numpy() for part in ("weight", "bias"))
        plane = convolved(plane, weight, bias, strides[number], paddings[number])
        if number in seen:
            found.append(plane / (np.sqrt((plane**2).sum(0)) + 1e-10))
        number += 1
    return found


def plain(kind, tensors, one, other, mask=None):
    if mask is not None:
        one = np.where(mask[..., None], one, other)
    total = 0.0
    for layer, (x, y) in enumerate(zip(layers_of(kind, tensors, one), layers_of(kind, tensors, other), strict=True)):
        weight = tensors[f"lin{layer}.weight"].double().numpy()
        plane = ((x - y) ** 2 * weight[:, None, None]).sum(0)
        total += np.average(plane, weights=None if mask is None else shares(mask, plane.shape))
    return total


def shares(mask, shape):
    """How much of each place's part of the picture counts."""
    (height, width), (rows, columns) = mask.shape, shape
    made = np.zeros(shape)
    for y in range(rows):
        for x in range(columns):
            made[y, x] = mask[
                y * height // rows : -(-(y + 1) * height // rows),
                x * width // columns : -(-(x + 1) * width // columns),
            ].mean()
    return made


@pytest.mark.parametrize("kind", KINDS)
def test_the_definition(kind):
    tensors = made_weights(KINDS[kind])
    lpips = Lpips(checked(tensors), kind)
    one, other = pictures()
    expected = plain(kind, tensors, one, other)
    assert expected > 0.01
    assert lpips(one, other) == pytest.approx(expected, rel=1e-4)
    assert lpips(one.astype(np.float32), other.astype(np.float32)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("kind", ["lpips-alex", "lpips-vgg"])
def test_the_definition_with_a_mask(kind):
    tensors = made_weights(KINDS[kind], seed=1)
    lpips = Lpips(checked(tensors), kind)
    one, other = pictures(seed=1)
    mask = np.zeros(one.shape[:2], bool)
    mask[5:30, 12:] = True
    expected = plain(kind, tensors, one, other, mask)
    assert lpips(one, other, mask) == pytest.approx(expected, rel=1e-4)
    assert lpips(one, other, np.ones_like(mask)) == pytest.approx(lpips(one, other), rel=1e-6)
    assert lpips(np.where(mask[..., None], other, one), other, mask) == 0  # it differs where nothing counts
    with pytest.raises(RowError, match="no pixel that counts"):
        lpips(one, other, np.zeros_like(mask))


def test_a_value_by_hand():
    """One layer sees (red, 1); of grey pictures red is (1 + .03) / .458 and (0 + .03) / .458."""
    tensors = {name: torch.zeros_like(tensor) for name, tensor in made_weights(ALEX).items()}
    tensors["conv0.weight"][0, 0, 5, 5] = 1
    tensors["conv0.bias"][1] = 1
    tensors["lin0.weight"][:2] = torch.tensor([3.0, 5.0])
    lpips = Lpips(checked(tensors), "lpips-alex")
    a, b = 1.03 / 0.458, 0.03 / 0.458
    (a, u), (b, v) = ((x / math.hypot(x, 1), 1 / math.hypot(x, 1)) for x in (a, b))
    expected = 3 * (a - b) ** 2 + 5 * (u - v) ** 2
    assert expected == pytest.approx(3.9089, abs=1e-4)
    assert lpips(np.full((43, 43, 3), 1.0), np.full((43, 43, 3), 0.5)) == pytest.approx(expected, rel=1e-5)
    assert lpips(np.full((43, 43, 3), 1.7), np.full((43, 43, 3), 0.5)) == pytest.approx(expected, rel=1e-5)  # clipped


@pytest.mark.parametrize("kind", KINDS)
def test_equal_pictures_and_blurred_ones(kind):
    lpips = Lpips(checked(made_weights(KINDS[kind])), kind)
    one, other = pictures()
    assert lpips(one, one) == 0
    assert lpips(one, other) == pytest.approx(lpips(other, one), rel=1e-6)
    little, much = (lpips(one, one + share * (other - one)) for share in (0.2, 1.0))
    assert 0 < little < much


def test_unscaled_pictures():
    """lpips-vgg-3dgs sees [0, 1] where lpips-vgg sees 2 x - 1."""
    weights = checked(made_weights(VGG))
    one, other = pictures()
    scaled = Lpips(weights, "lpips-vgg")((one + 1) / 2, (other + 1) / 2)
    assert Lpips(weights, "lpips-vgg-3dgs")(one, other) == pytest.approx(scaled, rel=1e-4)
    assert Lpips(weights, "lpips-vgg")(one, other) != pytest.approx(scaled, rel=1e-2)


@pytest.mark.parametrize(("kind", "least"), [("lpips-alex", 31), ("lpips-vgg", 16)])
def test_the_smallest_pictures(kind, least):
    lpips = Lpips(checked(made_weights(KINDS[kind])), kind)
    one, other = pictures(least, least + 3)
    assert lpips(one, other) > 0
    with pytest.raises(RowError, match=f"{least + 3} x {least - 1} is too small for {kind}"):
        lpips(one[1:], other[1:])
    with pytest.raises(RowError, match="different sizes"):
        lpips(one, other[:, 1:])


def test_weights_of_another_network():
    with pytest.raises(ToolrollError, match="weights of vgg are not for lpips-alex"):
        Lpips(checked(made_weights(VGG)), "lpips-alex")


# --- files


def of_package(net, tensors):
    """The names that the package lpips has."""
    places = {"alex": [0, 3, 6, 8, 10], "vgg": [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28]}[net.name]
    state = {"scaling_layer.shift": torch.zeros(1, 3, 1, 1)}
    for name, tensor in tensors.items():
        part, _, kind = name.partition(".")
        if part.startswith("lin"):
            state[f"{part}.model.1.weight"] = tensor[None, :, None, None].clone()
            state[f"{part[:3]}s.{part[3:]}.model.1.weight"] = tensor[None, :, None, None].clone()
        else:
            state[f"net.slice1.{places[int(part[4:])]}.{kind}"] = tensor
    return state


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_names_of_the_package(net, tmp_path):
    tensors = made_weights(net)
    state = of_package(net, tensors)
    found = converted(state)
    assert {name: tensor.tolist() for name, tensor in found.items()} == {
        name: tensor.tolist() for name, tensor in tensors.items()
    }
    for number, layout in enumerate((tensors, state)):
        save_file(layout, tmp_path / f"{number}.safetensors")
        read = read_weights(tmp_path / f"{number}.safetensors")
        assert read.net is net
        assert all(torch.equal(read.tensors[name], tensor) for name, tensor in tensors.items())


def test_names_of_torchvision_and_the_learned_layers():
    tensors = made_weights(ALEX)
    state = of_package(ALEX, tensors)
    features = {name.replace("net.slice1", "features"): tensor for name, tensor in state.items() if "slice" in name}
    features["classifier.1.weight"] = torch.zeros(2, 2)
    learned = {name: tensor for name, tensor in state.items() if name.startswith("lin") and name[3].isdigit()}
    assert checked(converted(features, learned)).tensors.keys() == tensors.keys()
    with pytest.raises(ToolrollError, match=r"no tensor lin0\.weight"):
        checked(converted(features))


def test_weights_in_half_precision(tmp_path):
    tensors = {name: tensor.half() for name, tensor in made_weights(ALEX).items()}
    save_file(tensors, tmp_path / "half.safetensors")
    assert {tensor.dtype for tensor in read_weights(tmp_path / "half.safetensors").tensors.values()} == {torch.float32}


class Trap:
    """A pickle of it writes a file when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "sprung"))


def test_pickles_are_not_opened(tmp_path):
    for name in ("a.pth", "a.safetensors"):
        (tmp_path / name).write_bytes(pickle.dumps(Trap(tmp_path / "trap")))
        with pytest.raises(ToolrollError, match="is no safetensors file; pickles are not read"):
            read_weights(tmp_path / name)
    assert not (tmp_path / "trap").exists()


def changed(**changes):
    tensors = made_weights(ALEX)
    for name, tensor in changes.items():
        tensors.pop(name.replace("__", "."))
        if tensor is not None:
            tensors[name.replace("__", ".")] = tensor
    return tensors


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        (changed(conv4__weight=None), "4 convolutions, neither AlexNet's 5 nor VGG16's 13"),
        (changed(conv4__bias=None), "no tensor conv4.bias"),
        (changed(lin2__weight=torch.ones(5)), r"lin2.weight is \[5\], not \[4\]"),
        (changed(conv1__weight=torch.ones(3, 2, 3, 3)), r"conv1.weight is \[3, 2, 3, 3\], not \[3, 2, 5, 5\]"),
        (changed(conv0__bias=torch.tensor([1, math.nan])), "conv0.bias has values that are not finite"),
        (changed(conv0__weight=torch.tensor(1.0)), r"conv0.weight is \[\], not \[0, 3, 11, 11\]"),
        (changed(conv0__bias=torch.tensor([1, 2])), "conv0.bias is torch.int64, not of floats"),
        ({}, "0 convolutions"),
    ],
)
def test_weights_that_do_not_fit(tensors, why, tmp_path):
    save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(ToolrollError, match=why) as raised:
        read_weights(tmp_path / "w.safetensors")
    assert raised.value.place == str(tmp_path / "w.safetensors")


def test_files_that_are_none(tmp_path):
    with pytest.raises(ToolrollError, match="No such file"):
        read_weights(tmp_path / "gone.safetensors")
    save_file(made_weights(ALEX), tmp_path / "w.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "w.safetensors").read_bytes()[:-9])
    with pytest.raises(ToolrollError, match="is no safetensors file"):
        read_weights(tmp_path / "cut.safetensors")
    with pytest.raises(ToolrollError):
        read_weights(tmp_path)


def test_weights_of_eight_bits(tmp_path):
    tensors = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in made_weights(ALEX).items()}
    save_file(tensors, tmp_path / "w.safetensors")
    assert {tensor.dtype for tensor in read_weights(tmp_path / "w.safetensors").tensors.values()} == {torch.float32}
