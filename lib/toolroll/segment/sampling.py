"""From scenes to batches: which prompts an image is asked with, and what is then to be found.

A model hears its prompts only if they vary. Some classes that an image has are left out, and their segments with them;
some that it has not are asked for in vain.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from toolroll.errors import UsageError
from toolroll.run.seeds import record_seed
from toolroll.segment.losses import Targets
from toolroll.segment.prompts import Prompts
from toolroll.segment.scenes import Scene, Scenes


@dataclass(frozen=True, slots=True)
class Asking:
    """How prompts are drawn: `least` to `most` of them, or all of the set where `most` is 0; the chance `drop` that a
    class the image has is left out; `most_present` of those at most, 0 for no limit.
    """

    least: int = 1
    most: int = 16
    drop: float = 0.3
    most_present: int = 0


def read_asking(text: str, drop: float, most_present: int = 0) -> Asking:
    """`all`, or MIN-MAX, or one number.

    >>> read_asking("4-16", 0.3).most
    16
    """
    if text == "all":
        return Asking(0, 0, 0.0, 0)
    low, _, high = text.partition("-")
    if not low.isdigit() or (high and not high.isdigit()) or not 1 <= int(low) <= int(high or low):
        raise UsageError("want all, a number, or MIN-MAX", place="--train-prompts")
    return Asking(int(low), int(high or low), drop, most_present)


def choose(classes: Prompts, present: Sequence[str], asking: Asking, draws: np.random.Generator) -> Prompts:
    """The prompts an image is asked with, in random order, each by one of its phrases, drawn; at least one it has."""
    by_name = {words[0]: words for words in classes}
    if asking.most == 0:
        return classes
    kept = [name for name in present if draws.random() >= asking.drop]
    if not kept and present:
        kept = [str(draws.choice(list(present)))]
    number = int(draws.integers(asking.least, asking.most + 1))
    limit = min(number, asking.most_present or number)
    kept = [str(name) for name in draws.permutation(kept)][:limit] if kept else []
    absent = [name for name in by_name if name not in set(present)]
    rest = [str(name) for name in draws.permutation(absent)][: number - len(kept)] if absent else []
    names = [str(name) for name in draws.permutation([*kept, *rest])]
    return tuple((str(draws.choice(by_name[name])),) for name in names)


@dataclass(frozen=True, slots=True)
class Example:
    """An image [3, H, W] in 0..1, its prompts, and the segments they are about: `labels`, `masks` [M, H, W]."""

    image: Tensor
    prompts: Prompts
    labels: list[int]
    masks: Tensor
    counted: Tensor


def example_of(
    scene: Scene, classes: Prompts, asking: Asking, size: tuple[int, int], draws: np.random.Generator, *, vary: bool
) -> Example:
    """A scene asked for something, at `size` (width, height); `vary`: mirrored, cut and lit at random."""
    present = list(dict.fromkeys(segment.name for segment in scene.segments))
    prompts = choose(classes, present, asking, draws)
    numbers = {word: number for number, words in enumerate(prompts) for word in words}
    phrases = {words[0]: words for words in classes}
    named = {name: next((numbers[word] for word in phrases[name] if word in numbers), None) for name in present}
    wanted = [(named[one.name], one.mask) for one in scene.segments if named[one.name] is not None]
    height, width = scene.image.shape[:2]
    unknown = np.zeros((height, width), bool) if scene.ignore is None else scene.ignore
    layers = np.stack([~unknown, *(mask for _, mask in wanted)]).astype(np.float32)
    image = torch.from_numpy(scene.image.copy()).permute(2, 0, 1).float() / 255
    maps = torch.from_numpy(layers)
    if vary:
        image, maps = _varied(image, maps, draws)
    image = _resized(image, (size[1], size[0]))
    maps = _resized(maps, (size[1] // 4, size[0] // 4))
    return Example(image.clamp(0, 1), prompts, [int(one) for one, _ in wanted if one is not None], maps[1:], maps[0])


def _varied(image: Tensor, maps: Tensor, draws: np.random.Generator) -> tuple[Tensor, Tensor]:
    if draws.random() < 0.5:
        image, maps = image.flip(-1), maps.flip(-1)
    height, width = image.shape[-2:]
    share = draws.uniform(0.7, 1)
    high, wide = max(1, int(height * share)), max(1, int(width * share))
    top, left = int(draws.integers(height - high + 1)), int(draws.integers(width - wide + 1))
    image, maps = (part[:, top : top + high, left : left + wide] for part in (image, maps))
    light = draws.uniform(0.7, 1.3)
    tint = torch.from_numpy(draws.uniform(0.9, 1.1, 3)).float().view(3, 1, 1)
    return (image * light * tint).clamp(0, 1), maps


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    if tuple(maps.shape[-2:]) == size or not len(maps):
        return maps if len(maps) else maps.new_zeros(0, *size)
    return interpolate(maps.unsqueeze(0), size=size, mode="bilinear", antialias=True, align_corners=False)[0]


def batch_of(examples: Sequence[Example]) -> tuple[Tensor, list[Prompts], Targets]:
    """Images [B, 3, H, W] in 0..1, their prompts and targets."""
    most = max(1, *(len(one.labels) for one in examples))
    images = torch.stack([one.image for one in examples])
    labels = torch.zeros(len(examples), most, dtype=torch.long)
    masks = images.new_zeros(len(examples), most, *examples[0].counted.shape)
    for number, one in enumerate(examples):
        labels[number, : len(one.labels)] = torch.tensor(one.labels, dtype=torch.long)
        masks[number, : len(one.labels)] = one.masks
    counted = torch.stack([one.counted for one in examples])
    return (
        images,
        [one.prompts for one in examples],
        Targets(labels, masks, [len(one.labels) for one in examples], counted),
    )


class Drawer:
    """Draws the examples of each update from sets of scenes: a set, by equal chances, a scene of it, its prompts.

    What update `step` gets depends on the seed and its number alone, so that a training that was stopped goes on as if
    it had not been.
    """

    def __init__(
        self,
        sets: Sequence[Scenes],
        asking: Asking,
        size: tuple[int, int],
        seed: int,
        *,
        vary: bool = True,
    ) -> None:
        self.sets, self.asking, self.size, self.seed, self.vary = list(sets), asking, size, seed, vary
        self._pools = [self._pool(scenes) for scenes in self.sets]
        self._kept: dict[tuple[int, int], Scene] = {}

    def draw(self, step: int, numbers: Iterable[int]) -> list[Example]:
        """The examples of an update that have these numbers."""
        return [self._one(step, number) for number in numbers]

    def _pool(self, own: Scenes) -> Prompts:
        """What scenes of a set are asked for: its classes; of drawn ones, which have nothing else, those of others."""
        pool = {words[0]: words for words in own.classes}
        for other in self.sets:
            if own.size is None and other.size is None:
                pool = {words[0]: words for words in other.classes} | pool
        names = [words[0] for words in own.classes]
        return tuple(pool[name] for name in dict.fromkeys([*names, *pool]))

    def _one(self, step: int, number: int) -> Example:
        draws: Any = np.random.default_rng(record_seed(self.seed, "example", step, number))
        which = int(draws.random() * len(self.sets))
        scenes = self.sets[which]
        at = int(draws.integers(scenes.size or 1 << 40))
        scene = self._scene(which, scenes, at)
        return example_of(scene, self._pools[which], self.asking, self.size, draws, vary=self.vary)

    def _scene(self, which: int, scenes: Scenes, at: int) -> Scene:
        """A scene; those of small sets of files are kept, for they come again."""
        if scenes.size is None or scenes.size > 2000:
            return scenes.scene(at)
        if (which, at) not in self._kept:
            self._kept[which, at] = scenes.scene(at)
        return self._kept[which, at]
