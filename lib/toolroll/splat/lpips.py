"""LPIPS, how unlike two pictures look to a network (Zhang et al. 2018, version 0.1), in plain torch.

    d = sum over layers l of the mean over places of  sum_c w_l[c] (x_l[c] / |x_l| - y_l[c] / |y_l|)^2

x_l and y_l are what layer l of AlexNet or VGG16 makes of the pictures, |.| is the norm over channels, w_l are learned.

    lpips-alex      AlexNet, pictures scaled to [-1, 1]
    lpips-vgg       VGG16, the same
    lpips-vgg-3dgs  VGG16, pictures left in [0, 1], as the code of 3D Gaussian splatting and gsplat's trainer has them

The weights of a network are a safetensors file with float tensors:

    conv{i}.weight [out, in, size, size], conv{i}.bias [out]    i: 0 to 4 of AlexNet, 0 to 12 of VGG16, in their order
    lin{l}.weight [channels]                                    l: 0 to 4, the w of the five layers

A file with the names of the package lpips is read, too: see `converted`. Pickles are not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from toolroll.errors import RowError, ToolrollError

TINY = 1e-10  #: beside the norm of features
SHIFT, SPREAD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  #: of colours, as ImageNet has them in [-1, 1]
_CONV = re.compile(r"(?:net\.slice\d+|features)\.(\d+)\.(weight|bias)")
_LIN = re.compile(r"lin(\d+)\.(?:model\.\d+\.)?weight")


@dataclass(frozen=True, slots=True)
class Net:
    """A network: its convolutions as (size, stride, padding), before which of them it pools, behind which it is seen.

    pool: size of the pooling, which takes the largest of that many places every second place. least: the smallest side
    of a picture that has a place in each layer.
    """

    name: str
    convolutions: tuple[tuple[int, int, int], ...]
    pooled: frozenset[int]
    seen: frozenset[int]
    pool: int
    least: int


ALEX = Net(
    "alex", ((11, 4, 2), (5, 1, 2), (3, 1, 1), (3, 1, 1), (3, 1, 1)), frozenset({1, 2}), frozenset(range(5)), 3, 31
)
VGG = Net("vgg", ((3, 1, 1),) * 13, frozenset({2, 4, 7, 10}), frozenset({1, 3, 6, 9, 12}), 2, 16)
KINDS = {"lpips-alex": ALEX, "lpips-vgg": VGG, "lpips-vgg-3dgs": VGG}


@dataclass(frozen=True, slots=True)
class Weights:
    """A network and its tensors, by the names above."""

    net: Net
    tensors: Mapping[str, Tensor]


class Lpips:
    """LPIPS of one kind, on one device."""

    def __init__(self, weights: Weights, kind: str, device: torch.device | str = "cpu") -> None:
        net = KINDS[kind]
        if net is not weights.net:
            raise ToolrollError(f"weights of {weights.net.name} are not for {kind}")
        self.kind, self.net, self.device = kind, net, torch.device(device)
        self._tensors = {name: tensor.to(self.device) for name, tensor in weights.tensors.items()}
        self._scale, self._offset = (1.0, 0.0) if kind == "lpips-vgg-3dgs" else (2.0, -1.0)

    def __call__(self, one: NDArray[Any], other: NDArray[Any], mask: NDArray[np.bool_] | None = None) -> float:
        """LPIPS of two pictures [H, W, 3] in [0, 1], at least 0; 0 for equal ones.

        With a mask [H, W], `one` is as `other` where it is false, and the places of a layer count as much as there are
        true pixels in their share of the picture. RowError for pictures of different sizes, or too small ones.
        """
        if one.shape != other.shape:
            raise RowError("the pictures are of different sizes")
        if min(one.shape[:2]) < self.net.least:
            raise RowError(f"a picture of {one.shape[1]} x {one.shape[0]} is too small for {self.kind}")
        if mask is not None:
            if not mask.any():
                raise RowError("the mask has no pixel that counts")
            one = np.where(mask[..., None], one, other)
        seen = None if mask is None else torch.from_numpy(mask).float()[None, None].to(self.device)
        with torch.inference_mode():
            pair = torch.stack([self._input(one), self._input(other)])
            found = [self._distance(layer, features, seen) for layer, features in enumerate(self._features(pair))]
        return float(sum(found))

    def _input(self, picture: NDArray[Any]) -> Tensor:  # [3, H, W]
        inside = torch.from_numpy(np.clip(picture, 0, 1).astype(np.float32)).to(self.device).permute(2, 0, 1)
        shift, spread = (torch.tensor(values, device=self.device)[:, None, None] for values in (SHIFT, SPREAD))
        return (inside * self._scale + self._offset - shift) / spread

    def _features(self, pictures: Tensor) -> list[Tensor]:  # [2, 3, H, W] to five of [2, C, h, w]
        found = []
        for number, (_, stride, padding) in enumerate(self.net.convolutions):
            if number in self.net.pooled:
                pictures = functional.max_pool2d(pictures, self.net.pool, 2)
            weight, bias = (self._tensors[f"conv{number}.{part}"] for part in ("weight", "bias"))
            pictures = functional.conv2d(pictures, weight, bias, stride, padding).relu()
            if number in self.net.seen:
                found.append(pictures)
        return found

    def _distance(self, layer: int, features: Tensor, mask: Tensor | None) -> float:  # [2, C, h, w]
        units = features / (features.square().sum(1, keepdim=True).sqrt() + TINY)
        weight = self._tensors[f"lin{layer}.weight"]
        plane = ((units[0] - units[1]).square() * weight[:, None, None]).sum(0).double()
        if mask is None:
            return float(plane.mean())
        shares = functional.adaptive_avg_pool2d(mask, plane.shape)[0, 0].double()
        return float((plane * shares).sum() / shares.sum())


def read_weights(path: Path) -> Weights:
    """The weights in a safetensors file. ToolrollError for a file that is none, or whose tensors do not fit."""
    from safetensors import safe_open

    place = str(path)
    if not path.exists():
        raise ToolrollError("No such file or directory", place=place)
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
    except OSError as error:
        raise ToolrollError(error.strerror or "cannot be read", place=place) from error
    except Exception as error:  # safetensors has errors of its own; pickles of torch end here
        raise ToolrollError("is no safetensors file; pickles are not read", place=place) from error
    try:
        return checked(converted(tensors))
    except ToolrollError as error:
        raise ToolrollError(error.why, place=place) from error


def converted(*states: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by the names of this module, from those of other programs; several mappings are joined.

    The package lpips has net.slice{n}.{k}.weight and lin{l}.model.1.weight [1, channels, 1, 1], torchvision's networks
    have features.{k}.weight without the latter. k counts more than convolutions; their order is what matters. Names
    that mean nothing here are left out.

    >>> sorted(converted({"features.3.bias": torch.ones(2), "features.0.bias": torch.ones(1), "classifier.1.bias": 0}))
    ['conv0.bias', 'conv1.bias']
    """
    joined = {name: tensor for state in states for name, tensor in state.items()}
    convolutions = [(int(found[1]), found[2], name) for name in joined if (found := _CONV.fullmatch(name))]
    order = sorted({number for number, _, _ in convolutions})
    made = {f"conv{order.index(number)}.{part}": joined[name] for number, part, name in convolutions}
    for name, tensor in joined.items():
        lin = _LIN.fullmatch(name)
        if lin is not None:
            made[f"lin{lin[1]}.weight"] = tensor.flatten()
        elif re.fullmatch(r"conv\d+\.(weight|bias)", name):
            made[name] = tensor
    return made


def checked(tensors: Mapping[str, Tensor]) -> Weights:
    """Weights in float32. ToolrollError where they are not all there, or of shapes that do not follow on each other."""
    count = sum(name.startswith("conv") and name.endswith(".weight") for name in tensors)
    net = next((one for one in (ALEX, VGG) if len(one.convolutions) == count), None)
    if net is None:
        raise ToolrollError(f"{count} convolutions, neither AlexNet's 5 nor VGG16's 13")
    channels, layer = 3, 0
    wanted: dict[str, tuple[int, ...]] = {}
    for number, (size, _, _) in enumerate(net.convolutions):
        first = tensors.get(f"conv{number}.weight")
        out = 0 if first is None or not first.ndim else len(first)
        wanted[f"conv{number}.weight"] = (out, channels, size, size)
        wanted[f"conv{number}.bias"] = (out,)
        if number in net.seen:
            wanted[f"lin{layer}.weight"] = (out,)
            layer += 1
        channels = out
    for name, shape in wanted.items():
        if name not in tensors:
            raise ToolrollError(f"no tensor {name}")
        if tuple(tensors[name].shape) != shape:
            raise ToolrollError(f"{name} is {list(tensors[name].shape)}, not {list(shape)}")
        if not tensors[name].is_floating_point():
            raise ToolrollError(f"{name} is {tensors[name].dtype}, not of floats")
    made = {name: tensors[name].float() for name in wanted}
    wrong = next((name for name, tensor in made.items() if not tensor.isfinite().all()), None)
    if wrong is not None:
        raise ToolrollError(f"{wrong} has values that are not finite")
    return Weights(net, made)
