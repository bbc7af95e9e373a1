"""How large the shipped models are, and how long each stage trains: `FULL` makes what is shipped, `TINY` shows that it
works.

Sizes are of tensors; a stage's `steps` are optimiser steps of `batch` pictures each.
"""

from __future__ import annotations

from dataclasses import dataclass

SIDE = 120  #: pixels of the square that every picture is scaled to
PATCH = 12  #: pixels of a patch
GRID = SIDE // PATCH  #: patches of a row
PATCHES = GRID * GRID
MOST = 10  #: objects of a scene
WORDS = 768  #: tokens of the vocabulary
ROOM = 1024  #: tokens of a prompt with its picture and its answer, at most
MEAN, STD = (0.70, 0.70, 0.70), (0.14, 0.14, 0.14)  #: of the pictures' colours
RENDERED = (*[(128, 96)] * 6, *[(96, 72)] * 3, *[(192, 144)] * 2, (320, 240))  #: sizes that scenes are drawn at
OBJECTS = (0, 1, 2, *[3] * 4, *[4] * 6, *[5] * 6, *[6] * 6, 7, 8)  #: how many objects, each as often as it stands here


@dataclass(frozen=True, slots=True)
class Stage:
    """A training stage: the peak learning rates of AdamW and of Muon, which has the layers' matrices, and its decay."""

    steps: int
    batch: int
    rate: float
    matrices: float = 5e-3
    decay: float = 0.05


@dataclass(frozen=True, slots=True)
class Size:
    """All numbers of a run."""

    scenes: int
    charts: int
    held_out: int  #: scenes that are only measured on; a quarter as many charts
    tower: Stage
    sprite: Stage
    answers: Stage
    practice: Stage
    glance: Stage
    width: int = 160  #: of the vision tower
    depth: int = 5
    inner: int = 480
    heads: int = 5
    text_width: int = 192  #: of sprite's language model
    text_depth: int = 4
    text_inner: int = 512
    text_heads: int = 6
    clip_width: int = 96  #: of glance's text tower
    clip_depth: int = 3
    clip_inner: int = 256
    clip_heads: int = 4
    joint: int = 128  #: of glance's vectors
    turns: int = 12  #: questions about a picture in one training row


FULL = Size(
    scenes=20_000,
    charts=1_600,
    held_out=600,
    tower=Stage(2_400, 32, 1e-3),
    sprite=Stage(2_400, 8, 1e-3),
    answers=Stage(1_100, 16, 1e-3, 3e-3),
    practice=Stage(2_600, 16, 1e-3, 3e-3),
    glance=Stage(2_000, 32, 1e-3),
)
TINY = Size(
    scenes=48,
    charts=8,
    held_out=8,
    tower=Stage(4, 8, 1e-3),
    sprite=Stage(4, 4, 1e-3),
    answers=Stage(2, 4, 1e-3),
    practice=Stage(2, 4, 1e-3),
    glance=Stage(4, 8, 1e-3),
    width=32,
    depth=2,
    inner=64,
    heads=2,
    text_width=32,
    text_depth=2,
    text_inner=64,
    text_heads=2,
    clip_width=32,
    clip_depth=1,
    clip_inner=64,
    clip_heads=2,
    joint=32,
    turns=6,
)
