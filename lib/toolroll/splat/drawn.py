"""Drawn scenes: textured boxes and balls on a ground, seen by cameras around them, with exact poses, lenses and points.

Light depends on the surface alone, so that a point has one colour from all sides. The same arguments give the same
files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from toolroll.run.seeds import record_seed
from toolroll.splat.colmap import write_model
from toolroll.splat.lenses import rays
from toolroll.splat.points import write_points
from toolroll.splat.scene import Lens, Model, Points, Scene, Shot
from toolroll.splat.transforms import write_transforms
from toolroll.world.images import pillow

Floats = NDArray[np.float64]
GROUND = 6.0  #: radius of the ground, a disc at z = 0; objects are within 1.5 of the middle
SUN = np.array([0.4, -0.5, 0.77]) / np.linalg.norm([0.4, -0.5, 0.77])
FINE = 2  #: rays along each side of a pixel
NEAR = 1e-6
NEVER = np.inf

#: Distortion of each model: mild, as of a phone's wide lens.
BENDS: dict[Model, tuple[float, ...]] = {
    "SIMPLE_PINHOLE": (),
    "PINHOLE": (),
    "SIMPLE_RADIAL": (-0.08,),
    "RADIAL": (-0.1, 0.02),
    "OPENCV": (-0.09, 0.02, 0.002, -0.003),
    "OPENCV_FISHEYE": (0.03, -0.01, 0.002, 0.0),
    "FULL_OPENCV": (0.1, 0.02, 0.001, -0.002, 0.003, 0.16, 0.01, 0.001),
}


@dataclass(frozen=True, slots=True)
class Solid:
    """A box or a ball. middle and half (half its sides, or its radius three times) in units; two colours, 0 to 1."""

    kind: Literal["box", "ball"]
    middle: Floats
    half: Floats
    turn: Floats  # [3, 3], its axes as columns
    colours: Floats  # [2, 3]
    pattern: int
    pitch: float


def write_scene(
    folder: Path | str,
    *,
    shots: int = 12,
    size: tuple[int, int] = (96, 64),
    lens: Model = "PINHOLE",
    seed: int = 0,
    kind: Literal["transforms", "colmap"] = "transforms",
    points: int = 2000,
) -> Scene:
    """Draw the scene of a seed and write it: images/frame_00001.png and on, and its files; what was written.

    shots: photos, on two rings around the middle. size: width and height of a photo in pixels. kind: a transforms.json
    with points.ply, or COLMAP's sparse/0 as binary. points: how many, on surfaces that are seen.
    """
    root = Path(folder)
    (root / "images").mkdir(parents=True, exist_ok=True)
    draws = np.random.default_rng(record_seed(seed, "drawn", 0))
    solids = made_solids(draws)
    glass = lens_of(lens, *size)
    found: list[Shot] = []
    directions = directions_of(glass)
    for number, pose in enumerate(made_poses(shots, draws), 1):
        path = root / "images" / f"frame_{number:05d}.png"
        pillow().fromarray(draw(solids, pose, glass, directions)).save(path)
        found.append(Shot(path.name, path, pose, glass))
    seen = made_points(solids, found, points, draws)
    if kind == "transforms":
        write_points(root / "points.ply", seen)
        write_transforms(root / "transforms.json", found, points="points.ply")
    else:
        write_model(root / "sparse/0", [(one.name, one.pose, one.lens) for one in found], seen, text=False)
    return Scene(root, "nerfstudio" if kind == "transforms" else "colmap", found, seen)


def lens_of(model: Model, width: int, height: int) -> Lens:
    """A lens that sees 65 degrees across, a little off the middle and, where the model can, not quite square."""
    f = width / 2 / np.tan(np.radians(32.5))
    one = model in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
    return Lens(
        model, width, height, float(f), float(f if one else 1.01 * f), 0.51 * width, 0.49 * height, BENDS[model]
    )


def made_solids(draws: np.random.Generator) -> list[Solid]:
    """Five boxes and three balls, standing on the ground, that may touch."""
    solids = []
    for number in range(8):
        angle = 2 * np.pi * number / 7 + draws.uniform(-0.3, 0.3)
        away = 0.0 if number == 7 else draws.uniform(0.7, 1.3)
        kind: Literal["box", "ball"] = "box" if number % 3 or number == 7 else "ball"
        half = draws.uniform(0.18, 0.42, 3) if kind == "box" else np.full(3, draws.uniform(0.2, 0.4))
        yaw = draws.uniform(0, np.pi)
        turn = np.array([[np.cos(yaw), -np.sin(yaw), 0], [np.sin(yaw), np.cos(yaw), 0], [0, 0, 1]])
        middle = np.array([away * np.cos(angle), away * np.sin(angle), half[2]])
        pattern, pitch = int(draws.integers(4)), float(draws.uniform(0.08, 0.16))
        solids.append(Solid(kind, middle, half, turn, draws.uniform(0.1, 1, (2, 3)), pattern, pitch))
    return solids


def made_poses(count: int, draws: np.random.Generator) -> list[Floats]:
    """World to camera, [4, 4]: on two rings, a low one and a high one in turn, looking near the middle."""
    poses = []
    for number in range(count):
        angle = 2 * np.pi * number / count + draws.uniform(-0.05, 0.05)
        height = (1.0, 2.0)[number % 2] + draws.uniform(-0.1, 0.1)
        at = np.array([3.2 * np.cos(angle), 3.2 * np.sin(angle), height])
        ahead = np.array([0, 0, 0.3]) + draws.uniform(-0.1, 0.1, 3) - at
        ahead = ahead / np.linalg.norm(ahead)
        right = np.cross(ahead, [0, 0, 1.0])
        right = right / np.linalg.norm(right)
        turn = np.stack([right, np.cross(ahead, right), ahead])
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = turn, -turn @ at
        poses.append(pose)
    return poses


def directions_of(lens: Lens) -> Floats:
    """The rays of a photo, FINE x FINE a pixel, [H FINE W FINE, 3]."""
    x = (np.arange(lens.width * FINE) + 0.5) / FINE
    y = (np.arange(lens.height * FINE) + 0.5) / FINE
    return rays(lens, np.stack(np.meshgrid(x, y), -1).reshape(-1, 2))


def draw(solids: Sequence[Solid], pose: Floats, lens: Lens, directions: Floats | None = None) -> NDArray[np.uint8]:
    """What a camera sees, uint8 [H, W, 3]. `directions` are those of the lens, if they are known."""
    colours = look(solids, pose, directions_of(lens) if directions is None else directions)[0]
    fine = colours.reshape(lens.height, FINE, lens.width, FINE, 3).mean((1, 3))
    made: NDArray[np.uint8] = np.rint(fine * 255).astype(np.uint8)
    return made


def look(solids: Sequence[Solid], pose: Floats, directions: Floats) -> tuple[Floats, Floats]:
    """The colours [R, 3] along rays of a camera's directions [R, 3], and how far away, infinite for the sky."""
    turn = pose[:3, :3]
    ahead = np.nan_to_num(directions) @ turn
    start = np.broadcast_to(-turn.T @ pose[:3, 3], ahead.shape)
    nearest, which = _on_ground(start, ahead), np.full(len(ahead), -1)
    for number, solid in enumerate(solids):
        origin = solid.middle - start[0]
        along = ahead @ origin
        near = np.flatnonzero((along > 0) & (origin @ origin - along**2 <= solid.half @ solid.half))
        away = _meet(solid, start[near], ahead[near])
        closer = away < nearest[near]
        nearest[near[closer]], which[near[closer]] = away[closer], number
    colours = 0.75 + 0.2 * ahead[:, 2:] * np.array([-1.0, -0.4, 0.5])  # the sky
    for number in range(-1, len(solids)):
        mine = (which == number) & np.isfinite(nearest)
        at = start[mine] + nearest[mine, None] * ahead[mine]
        colours[mine] = _ground_colour(at) if number < 0 else _colour(solids[number], at)
    return np.clip(colours, 0, 1), nearest


def _on_ground(start: Floats, ahead: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        away = -start[:, 2] / ahead[:, 2]
        at = start + np.where(np.isfinite(away), away, 0)[:, None] * ahead
    return np.where((away > NEAR) & (np.hypot(at[:, 0], at[:, 1]) < GROUND), away, NEVER)


def _meet(solid: Solid, start: Floats, ahead: Floats) -> Floats:
    """How far away rays meet a solid."""
    origin, along = (start - solid.middle) @ solid.turn, ahead @ solid.turn
    if solid.kind == "ball":
        b, c = (origin * along).sum(1), (origin**2).sum(1) - solid.half[0] ** 2
        inside = b * b - c
        away = -b - np.sqrt(np.maximum(inside, 0))
        return np.where((inside > 0) & (away > NEAR), away, NEVER)
    with np.errstate(divide="ignore", invalid="ignore"):
        near, far = (-np.sign(along) * solid.half - origin) / along, (np.sign(along) * solid.half - origin) / along
    enter, leave = np.nan_to_num(near, nan=-NEVER).max(1), np.nan_to_num(far, nan=NEVER).min(1)
    return np.where((enter > NEAR) & (enter < leave), enter, NEVER)


def _colour(solid: Solid, at: Floats) -> Floats:
    """The colours of places on a solid: its pattern in the light."""
    own = (at - solid.middle) @ solid.turn
    if solid.kind == "ball":
        normal = own / solid.half[0]
    else:
        share = np.abs(own) / solid.half
        normal = np.sign(own) * (share == share.max(1, keepdims=True))
    cell = own / solid.pitch + 0.37
    if solid.pattern == 0:  # a chequer
        mixed = np.floor(cell).sum(1) % 2
    elif solid.pattern == 1:  # stripes
        mixed = np.floor(cell[:, 2] + 0.5 * cell[:, 0]) % 2
    elif solid.pattern == 2:  # dots
        mixed = (((cell - np.floor(cell) - 0.5) ** 2).sum(1) < 0.2).astype(float)
    else:  # waves
        mixed = 0.5 + 0.5 * np.sin(3 * cell).prod(1)
    base = solid.colours[0] * mixed[:, None] + solid.colours[1] * (1 - mixed[:, None])
    return np.asarray(base * _light(normal @ solid.turn.T))


def _ground_colour(at: Floats) -> Floats:
    tiles = (np.floor(at[:, 0] / 0.5) + np.floor(at[:, 1] / 0.5)) % 2
    waves = 0.5 + 0.25 * (np.sin(7 * at[:, 0] + 2 * np.sin(5 * at[:, 1])) + np.sin(9 * at[:, 1]))
    light = np.array([0.85, 0.8, 0.7]) * waves[:, None] + np.array([0.35, 0.45, 0.4]) * (1 - waves[:, None])
    return np.asarray(light * (0.7 + 0.3 * tiles[:, None]) * _light(np.array([[0, 0, 1.0]])))


def _light(normal: Floats) -> Floats:
    return np.asarray(0.45 + 0.55 * np.maximum(normal @ SUN, 0)[:, None])


def made_points(solids: Sequence[Solid], shots: Sequence[Shot], count: int, draws: np.random.Generator) -> Points:
    """Points on surfaces, each where a ray of a shot, through a place in it that is drawn, meets one first."""
    places, colours = np.zeros((0, 3)), np.zeros((0, 3))
    while len(places) < count:
        for shot in shots:
            size = (shot.lens.width, shot.lens.height)
            directions = rays(shot.lens, draws.uniform(0, 1, (-(-count // len(shots)) + 8, 2)) * size)
            found, away = look(solids, shot.pose, directions)
            met = np.isfinite(away) & np.isfinite(directions).all(1)
            at = directions[met] * away[met, None]
            places = np.concatenate([places, (at - shot.pose[:3, 3]) @ shot.pose[:3, :3]])
            colours = np.concatenate([colours, found[met]])
    chosen = draws.permutation(len(places))[:count]
    return Points(places[chosen], np.rint(colours[chosen] * 255).astype(np.uint8))
