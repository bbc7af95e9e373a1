"""The ray caster once more, in numpy, all pixels at a time and a line for a formula: what the fast one is held against.

Some thirty times slower than `toolroll.world.kernel`, with the same numbers, rays and lights; see there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from toolroll.world.kernel import (
    AMBIENT_DOWN,
    AMBIENT_UP,
    BEVEL,
    GROUND,
    MIRRORED_GROUND,
    MIRRORED_HORIZON,
    MIRRORED_NEAR,
    MIRRORED_ZENITH,
    PANEL_FROM,
    PANEL_FULL,
    PANEL_LIGHT,
    SKY,
)
from toolroll.world.render import packed_camera, packed_lights, packed_solids
from toolroll.world.scene import Scene

if TYPE_CHECKING:
    Array = np.ndarray[Any, Any]


def plain_render(scene: Scene, width: int, height: int) -> Array:
    """The image of a scene: sRGB, uint8 (height, width, 3)."""
    solids, (lamps, spots) = packed_solids(scene), packed_lights(scene)
    light = np.zeros((height, width, 3))
    with np.errstate(all="ignore"):  # rays that miss, far away or edgewise
        for quarter in range(4):
            down, across = 0.25 + 0.5 * (quarter // 2), 0.25 + 0.5 * (quarter % 2)
            eye, ray = rays(scene, width, height, across, down)
            ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
            light += _seen(solids, lamps, spots[:, quarter::4], eye, ray)
    light = np.clip(light / 4, 0, 1)
    coded = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.floor(255 * coded + 0.5).astype(np.uint8)


def plain_ids(scene: Scene, width: int, height: int) -> Array:
    """Whose each pixel is, (height, width), -1 for nobody's."""
    with np.errstate(all="ignore"):
        far = distances(packed_solids(scene), *rays(scene, width, height, 0.5, 0.5))
    return np.where(np.isfinite(far.min(axis=0)), far.argmin(axis=0), -1)


def rays(scene: Scene, width: int, height: int, across: float, down: float) -> tuple[Array, Array]:
    """The eye, and for each pixel the way to the point (across, down) in it."""
    eye, axes, focal = packed_camera(scene.camera, width, height)
    u = (np.arange(width) + across - width / 2) / focal
    v = (height / 2 - np.arange(height) - down) / focal
    return eye, axes[2] + u[None, :, None] * axes[0] + v[:, None, None] * axes[1]


def distances(solids: Array, start: Array, ray: Array) -> Array:
    """How far along each ray, (..., 3), each solid is met from outside; inf for never. Shape (solids, ...);
    one row of inf where there are no solids.
    """
    never = np.full(np.broadcast_shapes(start.shape, ray.shape)[:-1], np.inf)
    return np.array([_distance(solid, start - solid[1:4], ray) for solid in solids] or [never])


def _distance(solid: Array, p: Array, d: Array) -> Array:
    half, cos, sin = solid[4:7]
    if solid[0] == 0:
        enter, leave = _interval((d * d).sum(-1), (p * d).sum(-1), (p * p).sum(-1) - half**2)
    else:
        enter, leave = _slab(p[..., 2], d[..., 2], half)
        if solid[0] == 1:
            p, d = p[..., :2], d[..., :2]
            bounds = [_interval((d * d).sum(-1), (p * d).sum(-1), (p * p).sum(-1) - half**2)]
        else:
            turn = np.array([[cos, -sin], [sin, cos]])
            p, d = p[..., :2] @ turn, d[..., :2] @ turn
            bounds = [_slab(p[..., axis], d[..., axis], half) for axis in (0, 1)]
        for first, last in bounds:
            enter, leave = np.maximum(enter, first), np.minimum(leave, last)
    found: Array = np.where((enter > 0) & (enter < leave), enter, np.inf)
    return found


def _interval(a: Array, b: Array, c: Array) -> tuple[Array, Array]:
    root = np.sqrt(b * b - a * c)  # NaN where the ray passes by
    enter, leave = (-b - root) / a, (-b + root) / a
    upright = a < 1e-18
    enter, leave = np.where(upright & (c < 0), -np.inf, enter), np.where(upright & (c < 0), np.inf, leave)
    return np.nan_to_num(enter, nan=np.inf), np.nan_to_num(leave, nan=-np.inf)


def _slab(p: Array, d: Array, half: float) -> tuple[Array, Array]:
    one, other = (-half - p) / d, (half - p) / d
    return np.minimum(one, other), np.maximum(one, other)


def _seen(solids: Array, lamps: Array, spots: Array, eye: Array, ray: Array) -> Array:
    """The light that comes back along each ray, (height, width, 3)."""
    met = distances(solids, eye, ray)
    far = met.min(axis=0)
    owner = np.where(np.isfinite(far), met.argmin(axis=0), -1)
    ground = (owner < 0) & (ray[..., 2] < -1e-9)
    far = np.where(ground, -eye[2] / ray[..., 2], far)
    point = eye + far[..., None] * ray
    light = np.full(ray.shape, SKY)
    for number in range(-1, len(solids)):
        own = ground if number < 0 else owner == number
        if own.any():
            light[own] = _shade(solids, number, lamps, spots, point[own], ray[own])
    return light


def _shade(solids: Array, own: int, lamps: Array, spots: Array, point: Array, ray: Array) -> Array:
    """The light that points (n, 3) of one solid, or of the ground if `own` < 0, send back along rays (n, 3)."""
    if own < 0:
        normal = np.broadcast_to([0.0, 0.0, 1.0], point.shape)
        color, diffuse, shine, exponent, mirror = np.full(3, GROUND), 1.0, 0.0, 1.0, 0.0
    else:
        normal = _normals(solids[own], point)
        color, (diffuse, shine, exponent, mirror) = solids[own, 8:11], solids[own, 11:15]
    facing = 0.5 + 0.5 * normal[:, 2:]
    light: Array = diffuse * (AMBIENT_DOWN + (AMBIENT_UP - AMBIENT_DOWN) * facing) * color
    panels = np.zeros((len(point), 1))
    echo = ray - 2 * (normal * ray).sum(-1, keepdims=True) * normal
    for lamp, places in zip(lamps, spots, strict=True):
        way = lamp[:3] - point
        way /= np.linalg.norm(way, axis=-1, keepdims=True)
        cosine = np.maximum((normal * way).sum(-1, keepdims=True), 0)
        others = np.delete(solids, own, axis=0) if own >= 0 else solids
        hidden = [(distances(others, point, place - point) < 1).any(axis=0) for place in places]
        seen = 1 - np.mean(hidden, axis=0)[:, None]
        middle = way - ray
        middle /= np.linalg.norm(middle, axis=-1, keepdims=True)
        gloss = shine * np.maximum((normal * middle).sum(-1, keepdims=True), 0) ** exponent * (cosine > 0)
        light += lamp[3:6] * seen * (cosine * diffuse * color + gloss)
        part = np.clip(((way * echo).sum(-1, keepdims=True) - PANEL_FROM) / (PANEL_FULL - PANEL_FROM), 0, 1)
        panels += PANEL_LIGHT * part**2 * (3 - 2 * part) * lamp[4]
    if mirror == 0:
        return light
    up = echo[:, 2:]
    away = point[:, 2:] / np.maximum(-up, 1e-6)
    below = (MIRRORED_GROUND - MIRRORED_HORIZON) * np.minimum(-2 * up, 1) * away / (away + MIRRORED_NEAR)
    around = MIRRORED_HORIZON + np.where(up > 0, (MIRRORED_ZENITH - MIRRORED_HORIZON) * up, below)
    edge = (1 - np.clip(-(normal * ray).sum(-1, keepdims=True), 0, 1)) ** 5
    light += mirror * (around * (color + (1 - color) * edge) + panels * (0.5 + 0.5 * color))
    return light


def _normals(solid: Array, point: Array) -> Array:
    """The unit normals of a solid at points of it, with edges as if they were rounded off."""
    half, cos, sin = solid[4:7]
    at = (point - solid[1:4]) / half
    if solid[0] == 1:
        across = np.linalg.norm(at[:, :2], axis=-1, keepdims=True)
        at = np.concatenate([_rounded(across) * at[:, :2] / across, _rounded(at[:, 2:])], axis=-1)
    elif solid[0] == 2:
        turn = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
        at = _rounded(at @ turn) @ turn.T
    found: Array = at / np.linalg.norm(at, axis=-1, keepdims=True)
    return found


def _rounded(at: Array) -> Array:
    over = np.clip((np.abs(at) - (1 - BEVEL)) / BEVEL, 0, 1)
    found: Array = np.sign(at) * over**2
    return found
