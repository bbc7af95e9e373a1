"""A training of IBRNet in a folder, and models that were trained.

DIR/model.safetensors, DIR/ibrnet.json   the network, and what it is
DIR/train.json                           the scenes, their cameras with their parts, and how it was trained
DIR/renders/, DIR/compare/               pictures of the test photos, and the photo beside them; of several scenes each
                                         in a folder of its name
DIR/state/                               what training goes on from
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import torch
from msgspec import Meta
from numpy.typing import NDArray
from torch import Tensor

from toolroll import __version__
from toolroll.errors import ToolrollError, UsageError, first_line
from toolroll.io.filesystem import put
from toolroll.run.seeds import record_seed
from toolroll.splat import metrics
from toolroll.splat.gaussians import Eye, View
from toolroll.splat.ibrnet import IBRNet, Shape
from toolroll.splat.ibrnet_fit import IbrFit, IbrRecipe
from toolroll.splat.ibrnet_rays import Rendered, rendered
from toolroll.splat.ibrnet_scenes import IbrScene, named_apart
from toolroll.splat.options import NETWORK
from toolroll.splat.pictures import Score, camera_row, means_of, png_name, score_of, write_beside
from toolroll.splat.scene import Scene, Shot
from toolroll.train.resumable import Resumable

__all__ = [
    "IbrAbout", "IbrOpened", "IbrTraining", "begun", "means_of", "open_ibrnet", "save_ibrnet", "score_of", "spread",
]  # fmt: skip

WEIGHTS, MODEL = "model.safetensors", NETWORK
METHOD = "ibrnet"
MANY = 100_000  #: views or samples
Row = dict[str, Any]


# --- models


@dataclass(frozen=True, slots=True)
class IbrAbout:
    """What a folder says of its network: its shape, how it was trained to look, and on what, by name."""

    shape: Shape
    views: Annotated[int, Meta(ge=1, le=MANY)] = 10
    samples: Annotated[int, Meta(ge=3, le=MANY)] = 64
    fine: Annotated[int, Meta(ge=0, le=MANY)] = 64
    side: Annotated[int, Meta(ge=0)] = 0
    step: Annotated[int, Meta(ge=0)] = 0
    scenes: tuple[str, ...] = ()
    start: str = ""
    toolroll: str = ""


@dataclass(frozen=True, slots=True)
class IbrOpened:
    """A network ready to draw."""

    model: IBRNet
    about: IbrAbout

    def draw(self, scene: IbrScene, eye: Eye, *, leave_out: int | None = None, views: int | None = None) -> Tensor:
        """The image of `rendered`."""
        return self.rendered(scene, eye, leave_out=leave_out, views=views).image

    def rendered(
        self, scene: IbrScene, eye: Eye, *, leave_out: int | None = None, views: int | None = None
    ) -> Rendered:
        """The picture of a camera in a scene, from the scene's photos to train on near it.

        leave_out: the number of a photo that is not looked at. views: how many are; else as many as in training.
        """
        numbers = scene.nearest(eye, self.about.views if views is None else views, leave_out)
        sources = scene.sources(numbers).to(next(self.model.parameters()).device)
        return rendered(self.model, sources, eye, scene.sampling(self.about.samples, self.about.fine))


def open_ibrnet(folder: Path, device: str = "cpu") -> IbrOpened:
    """The network of a folder. ToolrollError for a folder without one, or with one that is not sound."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not (folder / MODEL).is_file():
        why = f"has no {MODEL}: is no folder of IBRNet" if folder.is_dir() else "No such file or directory"
        raise ToolrollError(why, place=str(folder))
    try:
        about = msgspec.json.decode((folder / MODEL).read_bytes(), type=IbrAbout)
        weights = load_file(folder / WEIGHTS)
    except (OSError, ValueError, TypeError, KeyError, RecursionError, msgspec.MsgspecError, SafetensorError) as error:
        raise ToolrollError(f"cannot be loaded as an IBRNet: {first_line(error)}", place=str(folder)) from error
    with torch.device("meta"):  # takes no memory before it is known that the weights are those
        model = IBRNet(about.shape)
    for name, part in model.state_dict().items():
        if name not in weights or (weights[name].shape, weights[name].dtype) != (part.shape, part.dtype):
            why = f"cannot be loaded as an IBRNet: {WEIGHTS} has no {name} of {list(part.shape)}"
            raise ToolrollError(why, place=str(folder))
    model.load_state_dict({name: weights[name] for name in model.state_dict()}, assign=True)
    return IbrOpened(model.to(device).eval(), about)


def save_ibrnet(folder: Path, model: IBRNet, about: IbrAbout) -> None:
    """Write a network into a folder, which is there."""
    from safetensors.torch import save

    weights = {name: part.detach().cpu().contiguous() for name, part in model.state_dict().items()}
    put(folder / WEIGHTS, save(weights))
    put(folder / MODEL, json.dumps(asdict(about), indent=1).encode() + b"\n")


# --- training


class IbrTraining(Resumable[IbrFit]):
    """A network under training on scenes, in a folder.

    scenes: each with its shots and their parts. unseen: scenes that are only measured on. Photos take `memory_bytes` at
    most. device: auto (CUDA if torch sees one), cpu, cuda, cuda:N.
    """

    def __init__(
        self, scenes: Sequence[tuple[Scene, Sequence[Shot]]], recipe: IbrRecipe, folder: Path, *,
        seed: int, memory_bytes: int = 1 << 31, device: str = "auto",
        unseen: Sequence[tuple[Scene, Sequence[Shot]]] = (),
    ) -> None:  # fmt: skip
        if not scenes:
            raise UsageError("no scene to train on")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        room = memory_bytes // (len(scenes) + len(unseen))
        made = [IbrScene(scene, shots, side=recipe.side, memory_bytes=room) for scene, shots in (*scenes, *unseen)]
        self.names, self.scenes = named_apart(made), made
        model, self.recipe = begun(recipe, seed)
        fit = IbrFit(model, made[: len(scenes)], self.recipe, seed=seed, device=device)
        super().__init__(fit, self.recipe.steps, folder, MODEL)
        self._room, self._drawn_at = memory_bytes // 8, -1
        self._drawn: dict[tuple[int, int], NDArray[np.float32]] = {}

    def write_model(self) -> None:
        """Write the network as it is."""
        save_ibrnet(self.folder, self.fit.model, self.about())

    def about(self) -> IbrAbout:
        """What is said of the network."""
        recipe = self.recipe
        names = tuple(self.names[: len(self.fit.scenes)])
        return IbrAbout(
            self.fit.model.shape, recipe.views, recipe.samples, recipe.fine or 0, recipe.side, self.step, names,
            recipe.start, __version__,
        )  # fmt: skip

    def told(self) -> Row:
        """train.json: of one scene as that of Gaussians has it, of several a list of them."""
        told = [
            {
                "name": name, "scene": str(scene.root), "near": scene.near, "far": scene.far,
                "cameras": cameras_of_scene(scene),
            }
            for name, scene in zip(self.names, self.scenes, strict=True)
        ]  # fmt: skip
        about: Row = {
            "method": METHOD, "settings": self.settings, "recipe": asdict(self.recipe), "step": self.step,
            "toolroll": __version__,
        }  # fmt: skip
        return about | (told[0] if len(told) == 1 else {"scenes": told})

    # --- scores and pictures

    def scores(self) -> Row:
        """Mean PSNR and SSIM: over the test photos of a scene, then over scenes; nothing where there are none.

        `unseen_psnr_db` and `unseen_ssim` are those of scenes that are only measured on; `scenes`, where there are
        several, has each.
        """
        found: dict[int, list[Score]] = {}
        for number, look, image in self.pictures():
            found.setdefault(number, []).append(score_of(image, look))
        each = [
            {"scene": self.names[number], "seen": number < len(self.fit.scenes), "n_images": len(one), **means_of(one)}
            for number, one in found.items()
        ]
        row: Row = {}
        for mark, seen in (("", True), ("unseen_", False)):
            own = [(one["psnr_db"], one["ssim"]) for one in each if one["seen"] == seen]
            row |= {mark + name: value for name, value in means_of(own).items()} if own else {}
        return row | ({"scenes": each} if len(self.scenes) > 1 else {})

    def pictures(self) -> Iterator[tuple[int, View, NDArray[np.float32]]]:
        """The test photos that are scored, by the number of their scene, and the pictures made in their place.

        Pictures are [H, W, 3], as 8 bits have them. They are kept, as far as there is room, till the next step.
        """
        if self._drawn_at != self.step:
            self._drawn, self._drawn_at = {}, self.step
        opened = IbrOpened(self.fit.model, self.about())
        for number, scene in enumerate(self.scenes):
            for place in spread(len(scene.test), self.recipe.eval_photos):
                look = scene.test[place]
                image = self._drawn.get((number, place))
                if image is None:
                    image = metrics.in_bytes(opened.draw(scene, look.eye).cpu().numpy()).astype(np.float32)
                    if sum(one.nbytes for one in self._drawn.values()) + image.nbytes <= self._room:
                        self._drawn[number, place] = image
                yield number, look, image

    def show(self) -> int:
        """Write the pictures of the test photos that are scored, alone and beside the photo; how many."""
        count = 0
        for number, look, image in self.pictures():
            name = png_name(look.name)
            if len(self.scenes) > 1:
                name = Path(self.names[number]) / name
            write_beside(self.folder, name, look, image)
            count += 1
        return count


def begun(recipe: IbrRecipe, seed: int) -> tuple[IBRNet, IbrRecipe]:
    """The network that training begins with, new or of a folder, and the recipe with what was left open.

    UsageError where the recipe wants another one than the folder has.
    """
    if not recipe.start:
        settled = replace(recipe, width=recipe.width or Shape().width, fine=64 if recipe.fine is None else recipe.fine)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(record_seed(seed, "start") % 2**63)
            return IBRNet(Shape(width=settled.width or 0, fine=bool(settled.fine))), settled
    opened = open_ibrnet(Path(recipe.start))
    shape, fine = opened.model.shape, opened.about.fine if recipe.fine is None else recipe.fine
    if recipe.width not in (None, shape.width):
        raise UsageError(f"has a trunk of width {shape.width}, not {recipe.width}", place=recipe.start)
    if bool(fine) != shape.fine:
        raise UsageError(f"has {'a' if shape.fine else 'no'} network for fine samples", place=recipe.start)
    return opened.model.train(), replace(recipe, width=shape.width, fine=fine)


def spread(count: int, most: int) -> list[int]:
    """The numbers of at most `most` of `count`, evenly spread with both ends; 0: all.

    >>> spread(13, 4), spread(2, 4), spread(3, 0)
    ([0, 4, 8, 12], [0, 1], [0, 1, 2])
    """
    if not most or count <= most:
        return list(range(count))
    return [round(place) for place in np.linspace(0, count - 1, most).tolist()]


def cameras_of_scene(scene: IbrScene) -> list[Row]:
    """The cameras of photos as the network sees them: those to train on, then those to be measured on."""
    return [
        camera_row(shot.name, shot.part, shot.pose, eye)
        for photos in (scene.train, scene.test)
        for shot, eye in zip(photos.shots, photos.eyes, strict=True)
    ]
