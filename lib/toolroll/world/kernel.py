"""The ray caster, compiled by numba: the inner loops of `toolroll.world.render`.

A solid is a row of `solids`: 0 kind (0 sphere, 1 cylinder, 2 cube), 1-3 centre, 4 half height, 5-6 cosine and sine of
its rotation, 7 radius of the sphere around it, 8-10 colour, 11-14 diffuse, highlight, exponent, mirror. A light is a
row of `lamps`: 0-2 position, 3-5 colour, 6 radius; `spots[l]` are 16 points of its disc.

A pixel is the mean of 2 x 2 rays, one in the middle of each quarter. For soft shadows each of the four looks at
another four of the 16 spots. Whose pixel it is, is decided by a fifth ray through its middle. No pixel depends on
another, and no sum on an order, so images are the same however many are made at a time.

`toolroll.world.plain` has the same in numpy, a line for a formula; tests hold this against that.
"""

from __future__ import annotations

import math
from typing import Any

from toolroll.run.compiled import compiled

SPHERE, CYLINDER, CUBE = 0, 1, 2
NEVER = 1e30
# Numbers are here and not with other looks because what numba keeps is made anew only when this file changes.
GROUND = 0.4  #: albedo of the ground, grey
SKY = 0.6  #: light where a camera looks over the horizon
AMBIENT_UP = 0.4  #: light from the sky on what faces up
AMBIENT_DOWN = 0.25  #: and on what faces down
BEVEL = 0.09  #: width of a rounded edge, of half the height

# What metal mirrors is made up, not traced: a dark horizon, a brighter sky, the ground, darker near the solid, and the
# lamps as white panels. So an object changes only the pixels of its own and of its shadow.
MIRRORED_HORIZON = 0.1
MIRRORED_ZENITH = 1.3
MIRRORED_GROUND = 1.5
MIRRORED_NEAR = 0.5  #: units away at which the ground has half its light
PANEL_FROM, PANEL_FULL = 0.93, 0.96  #: cosines at which a panel begins and is full
PANEL_LIGHT = 1.4

ASIDE = 1e-9  #: a ray that moves less than this along an axis does not move along it


@compiled
def hit(solids: Any, k: int, ox: float, oy: float, oz: float, dx: float, dy: float, dz: float) -> float:
    """How far along (dx, dy, dz), from a point outside it, solid `k` is met; NEVER if it is not."""
    half = solids[k, 4]
    px, py, pz = ox - solids[k, 1], oy - solids[k, 2], oz - solids[k, 3]
    a = dx * dx + dy * dy + dz * dz
    b = px * dx + py * dy + pz * dz
    away = px * px + py * py + pz * pz
    around = solids[k, 7]
    if b * b - a * (away - around * around) < 0.0:
        return NEVER
    kind = solids[k, 0]
    if kind == SPHERE:
        enter, _ = within_square(a, b, away - half * half)
        return enter if enter > 0.0 else NEVER
    enter, leave = within_slab(pz, dz, half)
    if kind == CYLINDER:
        one = within_square(dx * dx + dy * dy, px * dx + py * dy, px * px + py * py - half * half)
        enter, leave = max(enter, one[0]), min(leave, one[1])
    else:
        cos, sin = solids[k, 5], solids[k, 6]
        one = within_slab(cos * px + sin * py, cos * dx + sin * dy, half)
        other = within_slab(cos * py - sin * px, cos * dy - sin * dx, half)
        enter, leave = max(enter, one[0], other[0]), min(leave, one[1], other[1])
    return enter if 0.0 < enter < leave else NEVER


@compiled
def within_square(a: float, b: float, c: float) -> tuple[float, float]:
    """Between which t it holds that a t^2 + 2 b t + c < 0, for a >= 0; (NEVER, -NEVER) for none."""
    if a < ASIDE * ASIDE:
        return (-NEVER, NEVER) if c < 0.0 else (NEVER, -NEVER)
    inside = b * b - a * c
    if inside < 0.0:
        return NEVER, -NEVER
    root = math.sqrt(inside)
    return (-b - root) / a, (-b + root) / a


@compiled
def within_slab(p: float, d: float, half: float) -> tuple[float, float]:
    """Between which t it holds that |p + t d| < half; (NEVER, -NEVER) for none."""
    if abs(d) < ASIDE:
        return (-NEVER, NEVER) if abs(p) < half else (NEVER, -NEVER)
    one, other = (-half - p) / d, (half - p) / d
    return min(one, other), max(one, other)


@compiled
def first(solids: Any, ox: float, oy: float, oz: float, dx: float, dy: float, dz: float) -> tuple[int, float]:
    """The solid that is met first and how far along; -1 for none."""
    found, nearest = -1, NEVER
    for k in range(solids.shape[0]):
        far = hit(solids, k, ox, oy, oz, dx, dy, dz)
        if far < nearest:
            found, nearest = k, far
    return found, nearest


@compiled
def rounded(at: float) -> float:
    """How much a surface at `at` (0 in the middle, 1 at the edge) is turned outward there: 0 .. 1."""
    over = (abs(at) - (1.0 - BEVEL)) / BEVEL
    if over <= 0.0:
        return 0.0
    turned = min(over, 1.0)
    return math.copysign(turned * turned, at)


@compiled
def normal(solids: Any, k: int, x: float, y: float, z: float) -> tuple[float, float, float]:
    """The unit normal of solid `k` at a point of it, with edges as if they were rounded off."""
    half = solids[k, 4]
    px, py, pz = (x - solids[k, 1]) / half, (y - solids[k, 2]) / half, (z - solids[k, 3]) / half
    kind = solids[k, 0]
    if kind == SPHERE:
        nx, ny, nz = px, py, pz
    elif kind == CYLINDER:
        across = max(math.sqrt(px * px + py * py), 1e-12)
        out = rounded(across)
        nx, ny, nz = out * px / across, out * py / across, rounded(pz)
    else:
        cos, sin = solids[k, 5], solids[k, 6]
        u, v = rounded(cos * px + sin * py), rounded(cos * py - sin * px)
        nx, ny, nz = cos * u - sin * v, sin * u + cos * v, rounded(pz)
    size = max(math.sqrt(nx * nx + ny * ny + nz * nz), 1e-12)
    return nx / size, ny / size, nz / size


@compiled
def lit(solids: Any, lamps: Any, spots: Any, light: int, group: int, own: int, x: float, y: float, z: float) -> float:
    """The share of a light's four spots of this group that a point sees. They are convex: `own` hides none."""
    lx, ly, lz = lamps[light, 0] - x, lamps[light, 1] - y, lamps[light, 2] - z
    square = lx * lx + ly * ly + lz * lz
    seen0, seen1, seen2, seen3 = 1.0, 1.0, 1.0, 1.0
    for k in range(solids.shape[0]):
        if k == own:
            continue
        cx, cy, cz = solids[k, 1] - x, solids[k, 2] - y, solids[k, 3] - z
        along = min(max((cx * lx + cy * ly + cz * lz) / square, 0.0), 1.0)
        gx, gy, gz = cx - along * lx, cy - along * ly, cz - along * lz
        reach = solids[k, 7] + lamps[light, 6]
        if gx * gx + gy * gy + gz * gz > reach * reach:
            continue  # too far from the ray to any spot
        if seen0 > 0.0 and hit(solids, k, x, y, z, *toward(spots, light, group, x, y, z)) < 1.0:
            seen0 = 0.0
        if seen1 > 0.0 and hit(solids, k, x, y, z, *toward(spots, light, group + 4, x, y, z)) < 1.0:
            seen1 = 0.0
        if seen2 > 0.0 and hit(solids, k, x, y, z, *toward(spots, light, group + 8, x, y, z)) < 1.0:
            seen2 = 0.0
        if seen3 > 0.0 and hit(solids, k, x, y, z, *toward(spots, light, group + 12, x, y, z)) < 1.0:
            seen3 = 0.0
    return 0.25 * (seen0 + seen1 + seen2 + seen3)


@compiled
def toward(spots: Any, light: int, spot: int, x: float, y: float, z: float) -> tuple[float, float, float]:
    """The way from a point to a spot of a light."""
    return spots[light, spot, 0] - x, spots[light, spot, 1] - y, spots[light, spot, 2] - z


@compiled
def shade(
    solids: Any,
    lamps: Any,
    spots: Any,
    group: int,
    k: int,
    x: float,
    y: float,
    z: float,
    dx: float,
    dy: float,
    dz: float,
) -> tuple[float, float, float]:
    """Light that comes back along (dx, dy, dz), a unit vector, from a point of solid `k`; of the ground if k < 0."""
    if k < 0:
        nx, ny, nz = 0.0, 0.0, 1.0
        cr, cg, cb, diffuse, shine, exponent, mirror = GROUND, GROUND, GROUND, 1.0, 0.0, 1.0, 0.0
    else:
        nx, ny, nz = normal(solids, k, x, y, z)
        cr, cg, cb = solids[k, 8], solids[k, 9], solids[k, 10]
        diffuse, shine, exponent, mirror = solids[k, 11], solids[k, 12], solids[k, 13], solids[k, 14]
    facing = 0.5 + 0.5 * nz
    ambient = diffuse * (AMBIENT_DOWN + (AMBIENT_UP - AMBIENT_DOWN) * facing)
    r, g, b = ambient * cr, ambient * cg, ambient * cb
    for light in range(lamps.shape[0]):
        lx, ly, lz = lamps[light, 0] - x, lamps[light, 1] - y, lamps[light, 2] - z
        size = math.sqrt(lx * lx + ly * ly + lz * lz)
        lx, ly, lz = lx / size, ly / size, lz / size
        cosine = nx * lx + ny * ly + nz * lz
        if cosine <= 0.0:
            continue
        seen = lit(solids, lamps, spots, light, group, k, x, y, z)
        if seen == 0.0:
            continue
        matt = seen * cosine * diffuse
        gloss = 0.0
        if shine > 0.0:
            hx, hy, hz = lx - dx, ly - dy, lz - dz
            half = max((nx * hx + ny * hy + nz * hz) / math.sqrt(hx * hx + hy * hy + hz * hz), 0.0)
            gloss = seen * shine * half**exponent
        r += lamps[light, 3] * (matt * cr + gloss)
        g += lamps[light, 4] * (matt * cg + gloss)
        b += lamps[light, 5] * (matt * cb + gloss)
    if mirror > 0.0:
        into = nx * dx + ny * dy + nz * dz
        ex, ey, ez = dx - 2.0 * into * nx, dy - 2.0 * into * ny, dz - 2.0 * into * nz
        if ez > 0.0:
            seen = MIRRORED_HORIZON + (MIRRORED_ZENITH - MIRRORED_HORIZON) * ez
        else:
            away = z / max(-ez, 1e-6)
            seen = MIRRORED_HORIZON + (MIRRORED_GROUND - MIRRORED_HORIZON) * min(-2.0 * ez, 1.0) * away / (
                away + MIRRORED_NEAR
            )
        panels = 0.0
        for light in range(lamps.shape[0]):
            lx, ly, lz = lamps[light, 0] - x, lamps[light, 1] - y, lamps[light, 2] - z
            cosine = (lx * ex + ly * ey + lz * ez) / math.sqrt(lx * lx + ly * ly + lz * lz)
            part = min(max((cosine - PANEL_FROM) / (PANEL_FULL - PANEL_FROM), 0.0), 1.0)
            panels += PANEL_LIGHT * part * part * (3.0 - 2.0 * part) * lamps[light, 4]
        edge = (1.0 - min(max(-into, 0.0), 1.0)) ** 5
        r += mirror * (seen * (cr + (1.0 - cr) * edge) + panels * (0.5 + 0.5 * cr))
        g += mirror * (seen * (cg + (1.0 - cg) * edge) + panels * (0.5 + 0.5 * cg))
        b += mirror * (seen * (cb + (1.0 - cb) * edge) + panels * (0.5 + 0.5 * cb))
    return r, g, b


@compiled
def byte(light: float) -> int:
    """The sRGB value, 0 .. 255, of light of 0 .. 1; more is cut off."""
    part = min(max(light, 0.0), 1.0)
    coded = 12.92 * part if part <= 0.0031308 else 1.055 * part ** (1.0 / 2.4) - 0.055
    return int(255.0 * coded + 0.5)


@compiled
def owners(solids: Any, eye: Any, axes: Any, focal: float, ids: Any, alone: Any) -> None:
    """Whose each pixel is (-1: nobody's), by a ray through its middle, and how many pixels each would have alone."""
    height, width = ids.shape
    for row in range(height):
        for column in range(width):
            u, v = (column + 0.5 - 0.5 * width) / focal, (0.5 * height - row - 0.5) / focal
            dx = axes[2, 0] + u * axes[0, 0] + v * axes[1, 0]
            dy = axes[2, 1] + u * axes[0, 1] + v * axes[1, 1]
            dz = axes[2, 2] + u * axes[0, 2] + v * axes[1, 2]
            found, nearest = -1, NEVER
            for k in range(solids.shape[0]):
                far = hit(solids, k, eye[0], eye[1], eye[2], dx, dy, dz)
                if far < NEVER:
                    alone[k] += 1
                if far < nearest:
                    found, nearest = k, far
            ids[row, column] = found


@compiled
def paint(solids: Any, lamps: Any, spots: Any, eye: Any, axes: Any, focal: float, image: Any) -> None:
    """The image, sRGB: the mean light of 2 x 2 rays a pixel."""
    height, width = image.shape[0], image.shape[1]
    for row in range(height):
        for column in range(width):
            r, g, b = 0.0, 0.0, 0.0
            for quarter in range(4):
                u = (column + 0.25 + 0.5 * (quarter % 2) - 0.5 * width) / focal
                v = (0.5 * height - row - 0.25 - 0.5 * (quarter // 2)) / focal
                dx = axes[2, 0] + u * axes[0, 0] + v * axes[1, 0]
                dy = axes[2, 1] + u * axes[0, 1] + v * axes[1, 1]
                dz = axes[2, 2] + u * axes[0, 2] + v * axes[1, 2]
                size = math.sqrt(dx * dx + dy * dy + dz * dz)
                dx, dy, dz = dx / size, dy / size, dz / size
                k, far = first(solids, eye[0], eye[1], eye[2], dx, dy, dz)
                if k < 0:
                    if dz >= -ASIDE:
                        r, g, b = r + SKY, g + SKY, b + SKY
                        continue
                    far = -eye[2] / dz
                x, y, z = eye[0] + far * dx, eye[1] + far * dy, eye[2] + far * dz
                one = shade(solids, lamps, spots, quarter, k, x, y, z, dx, dy, dz)
                r, g, b = r + one[0], g + one[1], b + one[2]
            image[row, column, 0] = byte(0.25 * r)
            image[row, column, 1] = byte(0.25 * g)
            image[row, column, 2] = byte(0.25 * b)
