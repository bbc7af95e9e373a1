"""Gaussians in space to Gaussians in the picture, with their colours, and the way back of gradients: numba.

Of Gaussian g, `means` [N, 3], `quats` [N, 4] (w, x, y, z, of any length but 0), `scales` [N, 3] (logarithms), `logits`
[N] of opacity, `sh` [N, K, 3]. A camera is `view`, float32 [28]:

    0-8    rotation of the world into the camera, by rows; the camera looks along +z, x right, y down
    9-11   translation, 12-14 its place in the world
    15-18  fx, fy, cx, cy; 19, 20 width and height; 21, 22 nearest and farthest depth
    23     what is added to both variances in the picture, in pixels squared
    24-27  limits of x/z and y/z, left, right, top, bottom, for the derivative only

With Sigma = R S S R^T, t = W m + w and J the derivative of the perspective at t, the covariance in the picture is
C = J W Sigma W^T J^T + e I, and the conic C^-1. Colour is max(0, SH + .5) in the direction from
the camera to the mean. `flat` is described in `tiles`.

What is not finite, behind the nearest depth or beyond the farthest, or too faint to be seen is left out: its row of
`flat` is 0, and so are its gradients. The formulas are those of gsplat; tests hold both ways against torch's autograd.
All of it stands in one file, because numba takes cached machine code for stale when this file changes, and no other.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from toolroll.run.compiled import compiled

F = np.float32
ZERO, HALF, ONE, TWO, FOUR = F(0), F(0.5), F(1), F(2), F(4)
LEAST = F(1 / 255)
SPREAD = F(3.33)  #: standard deviations of a radius, as gsplat counts them
# Real spherical harmonics, as gsplat and the original code order them.
C0, C1 = F(0.2820947917738781), F(0.48860251190292)
C2A, C2B, C2C = F(1.092548430592079), F(0.9461746957575601), F(0.5462742152960395)
C2D = F(-0.3153915652525201)
C3A, C3B, C3C = F(-0.5900435899266435), F(1.445305721320277), F(-2.285228997322329)
C3D, C3E, C3F = F(1.865881662950577), F(-1.119528997770346), F(0.4570457994644658)
BASES = 16


@compiled
def _rotation(quats: Any, g: int, made: Any) -> Any:
    """The rotation, by rows, into made [9]; the length of the quaternion."""
    w, x, y, z = quats[g, 0], quats[g, 1], quats[g, 2], quats[g, 3]
    length = math.sqrt(w * w + x * x + y * y + z * z)
    if not length > ZERO:
        return ZERO
    w, x, y, z = w / length, x / length, y / length, z / length
    made[0], made[1], made[2] = ONE - TWO * (y * y + z * z), TWO * (x * y - w * z), TWO * (x * z + w * y)
    made[3], made[4], made[5] = TWO * (x * y + w * z), ONE - TWO * (x * x + z * z), TWO * (y * z - w * x)
    made[6], made[7], made[8] = TWO * (x * z - w * y), TWO * (y * z + w * x), ONE - TWO * (x * x + y * y)
    return length


@compiled
def _seen(view: Any, means: Any, g: int, made: Any) -> None:
    """The mean in the camera, made [3]."""
    for i in range(3):
        made[i] = (
            view[3 * i] * means[g, 0] + view[3 * i + 1] * means[g, 1] + view[3 * i + 2] * means[g, 2] + view[9 + i]
        )


@compiled
def _spread(view: Any, seen: Any, rotation: Any, scales: Any, g: int, jacobian: Any, root: Any) -> None:
    """J [4] (its entries that are not 0: 00, 02, 11, 12) and root [2, 3] = J W R S: C = root root^T + e I."""
    depth = seen[2]
    x = depth * min(max(seen[0] / depth, view[24]), view[25])
    y = depth * min(max(seen[1] / depth, view[26]), view[27])
    jacobian[0], jacobian[1] = view[15] / depth, -view[15] * x / (depth * depth)
    jacobian[2], jacobian[3] = view[16] / depth, -view[16] * y / (depth * depth)
    for k in range(3):
        size = math.exp(scales[g, k])
        across = down = along = ZERO
        for i in range(3):
            side = rotation[3 * i + k] * size
            across += view[i] * side
            down += view[3 + i] * side
            along += view[6 + i] * side
        root[0, k] = jacobian[0] * across + jacobian[1] * along
        root[1, k] = jacobian[2] * down + jacobian[3] * along


@compiled
def _direction(view: Any, means: Any, g: int, made: Any) -> Any:
    """The direction from the camera to the mean, made [3]; the distance."""
    x, y, z = means[g, 0] - view[12], means[g, 1] - view[13], means[g, 2] - view[14]
    length = math.sqrt(x * x + y * y + z * z)
    near = max(length, F(1e-12))
    made[0], made[1], made[2] = x / near, y / near, z / near
    return near


@compiled
def _bases(direction: Any, degree: int, made: Any) -> None:
    """The harmonics up to a degree of 0..3 in a direction, made [16]."""
    x, y, z = direction[0], direction[1], direction[2]
    made[0] = C0
    if degree > 0:
        made[1], made[2], made[3] = -C1 * y, C1 * z, -C1 * x
    if degree > 1:
        xx, yy, zz = x * x, y * y, z * z
        made[4], made[5], made[6] = C2A * x * y, -C2A * y * z, C2B * zz + C2D
        made[7], made[8] = -C2A * x * z, C2C * (xx - yy)
        if degree > 2:
            made[9], made[10] = C3A * y * (F(3) * xx - yy), F(2) * C3B * x * y * z
            made[11] = C3F * y * (ONE - F(5) * zz)
            made[12] = C3D * z * zz + C3E * z
            made[13] = C3F * x * (ONE - F(5) * zz)
            made[14], made[15] = C3B * z * (xx - yy), C3A * x * (xx - F(3) * yy)


@compiled
def _slopes(direction: Any, degree: int, made: Any) -> None:
    """What x, y and z of a direction change in each harmonic, made [16, 3]."""
    x, y, z = direction[0], direction[1], direction[2]
    made[:] = ZERO
    if degree > 0:
        made[1, 1], made[2, 2], made[3, 0] = -C1, C1, -C1
    if degree > 1:
        made[4, 0], made[4, 1] = C2A * y, C2A * x
        made[5, 1], made[5, 2] = -C2A * z, -C2A * y
        made[6, 2] = TWO * C2B * z
        made[7, 0], made[7, 2] = -C2A * z, -C2A * x
        made[8, 0], made[8, 1] = TWO * C2C * x, -TWO * C2C * y
        if degree > 2:
            xx, yy, zz = x * x, y * y, z * z
            made[9, 0], made[9, 1] = C3A * F(6) * x * y, C3A * F(3) * (xx - yy)
            made[10, 0], made[10, 1], made[10, 2] = TWO * C3B * y * z, TWO * C3B * x * z, TWO * C3B * x * y
            made[11, 1], made[11, 2] = C3F * (ONE - F(5) * zz), -C3F * F(10) * y * z
            made[12, 2] = F(3) * C3D * zz + C3E
            made[13, 0], made[13, 2] = C3F * (ONE - F(5) * zz), -C3F * F(10) * x * z
            made[14, 0], made[14, 1], made[14, 2] = TWO * C3B * x * z, -TWO * C3B * y * z, C3B * (xx - yy)
            made[15, 0], made[15, 1] = C3A * F(3) * (xx - yy), -C3A * F(6) * x * y


@compiled
def _finite(means: Any, quats: Any, scales: Any, logits: Any, sh: Any, bases: int, g: int) -> Any:
    total = logits[g] * ZERO
    for i in range(3):
        total += means[g, i] * ZERO + scales[g, i] * ZERO
    for i in range(4):
        total += quats[g, i] * ZERO
    for k in range(bases):
        for i in range(3):
            total += sh[g, k, i] * ZERO
    return total == ZERO  # which is false for NaN, and 0 times infinity is NaN


@compiled
def project(
    first: int,
    last: int,
    view: Any,
    means: Any,
    quats: Any,
    scales: Any,
    logits: Any,
    sh: Any,
    degree: int,
    antialiased: bool,
    flat: Any,
    depths: Any,
    radii: Any,
) -> None:
    """Rows `first` to before `last` of flat [N, 10], depths [N] and radii [N, 2], in pixels; 0 for what is not seen."""
    rotation, seen, direction = np.empty(9, F), np.empty(3, F), np.empty(3, F)
    jacobian, root, harmonics = np.empty(4, F), np.empty((2, 3), F), np.empty(BASES, F)
    bases = (degree + 1) * (degree + 1)
    for g in range(first, last):
        flat[g] = ZERO
        radii[g] = 0
        depths[g] = ZERO
        if not _finite(means, quats, scales, logits, sh, bases, g):
            continue
        _seen(view, means, g, seen)
        if not (view[21] < seen[2] < view[22]) or _rotation(quats, g, rotation) == ZERO:
            continue
        _spread(view, seen, rotation, scales, g, jacobian, root)
        xx, xy, yy = ZERO, ZERO, ZERO
        for k in range(3):
            xx += root[0, k] * root[0, k]
            xy += root[0, k] * root[1, k]
            yy += root[1, k] * root[1, k]
        sharp = xx * yy - xy * xy
        xx += view[23]
        yy += view[23]
        det = xx * yy - xy * xy
        opacity = ONE / (ONE + math.exp(-logits[g]))
        if antialiased:
            opacity *= math.sqrt(max(sharp / det, ZERO))
        if not (det > ZERO and det < F(1e30) and opacity >= LEAST):
            continue
        flat[g, 0] = view[15] * seen[0] / seen[2] + view[17]
        flat[g, 1] = view[16] * seen[1] / seen[2] + view[18]
        flat[g, 2], flat[g, 3], flat[g, 4] = yy / det, -xy / det, xx / det
        flat[g, 5] = opacity
        _direction(view, means, g, direction)
        _bases(direction, degree, harmonics)
        for i in range(3):
            shade = ZERO
            for k in range(bases):
                shade += harmonics[k] * sh[g, k, i]
            flat[g, 6 + i] = max(shade + HALF, ZERO)
        flat[g, 9] = TWO * math.log(F(255) * opacity)
        depths[g] = seen[2]
        radii[g, 0], radii[g, 1] = math.ceil(SPREAD * math.sqrt(xx)), math.ceil(SPREAD * math.sqrt(yy))


# --- gradients


@compiled
def _through_colour(
    view: Any,
    means: Any,
    sh: Any,
    degree: int,
    flat: Any,
    given: Any,
    g: int,
    work: Any,
    means_made: Any,
    sh_made: Any,
) -> None:
    """From the gradient of the colour, given [g, 6:9], to those of the coefficients and, by the direction, the mean."""
    direction, harmonics, slopes = work[0, :3], work[1], work[2:5].reshape(BASES, 3)
    distance = _direction(view, means, g, direction)
    _bases(direction, degree, harmonics)
    if degree > 0:
        _slopes(direction, degree, slopes)
    x = y = z = ZERO
    for k in range((degree + 1) * (degree + 1)):
        change = ZERO
        for i in range(3):
            by = given[g, 6 + i] if flat[g, 6 + i] > ZERO else ZERO
            sh_made[g, k, i] = by * harmonics[k]
            change += by * sh[g, k, i]
        if degree > 0:
            x += change * slopes[k, 0]
            y += change * slopes[k, 1]
            z += change * slopes[k, 2]
    along = x * direction[0] + y * direction[1] + z * direction[2]
    means_made[g, 0] += (x - along * direction[0]) / distance
    means_made[g, 1] += (y - along * direction[1]) / distance
    means_made[g, 2] += (z - along * direction[2]) / distance


@compiled
def _through_rotation(quats: Any, g: int, length: Any, by: Any, made: Any) -> None:
    """From the gradient of the rotation, by [9], to that of the quaternion, made [g]."""
    w, x, y, z = quats[g, 0] / length, quats[g, 1] / length, quats[g, 2] / length, quats[g, 3] / length
    dw = TWO * (x * (by[7] - by[5]) + y * (by[2] - by[6]) + z * (by[3] - by[1]))
    dx = TWO * (y * (by[1] + by[3]) + z * (by[2] + by[6]) + w * (by[7] - by[5])) - FOUR * x * (by[4] + by[8])
    dy = TWO * (x * (by[1] + by[3]) + z * (by[5] + by[7]) + w * (by[2] - by[6])) - FOUR * y * (by[0] + by[8])
    dz = TWO * (x * (by[2] + by[6]) + y * (by[5] + by[7]) + w * (by[3] - by[1])) - FOUR * z * (by[0] + by[4])
    along = dw * w + dx * x + dy * y + dz * z
    made[g, 0] = (dw - along * w) / length
    made[g, 1] = (dx - along * x) / length
    made[g, 2] = (dy - along * y) / length
    made[g, 3] = (dz - along * z) / length


@compiled
def _through_covariance(view: Any, flat: Any, given: Any, g: int, root: Any, shrink: bool, by_root: Any) -> Any:
    """From the gradients of the conic and of the opacity to that of root [2, 3]; the gradient of the plain opacity."""
    a, b, c = flat[g, 2], flat[g, 3], flat[g, 4]
    by_a, by_b, by_c = given[g, 2], HALF * given[g, 3], given[g, 4]
    # -Q G Q, the gradient of C, which is symmetric
    left_a, left_b = a * by_a + b * by_b, a * by_b + b * by_c
    left_c, left_d = b * by_a + c * by_b, b * by_b + c * by_c
    xx, xy, yy = -(left_a * a + left_b * b), -(left_a * b + left_b * c), -(left_c * b + left_d * c)
    by_opacity = given[g, 5]
    if shrink:
        det = ONE / (a * c - b * b)
        wide, slant, high = c * det, -b * det, a * det
        sharp_x, sharp_y = wide - view[23], high - view[23]
        sharp = sharp_x * sharp_y - slant * slant
        if sharp > ZERO:
            factor = math.sqrt(sharp / det)
            half = HALF * given[g, 5] * flat[g, 5]
            by_opacity *= factor
            xx += half * (sharp_y / sharp - high / det)
            yy += half * (sharp_x / sharp - wide / det)
            xy += half * (slant / det - slant / sharp)
    for k in range(3):
        by_root[0, k] = TWO * (xx * root[0, k] + xy * root[1, k])
        by_root[1, k] = TWO * (xy * root[0, k] + yy * root[1, k])
    return by_opacity


@compiled
def unproject(
    first: int,
    last: int,
    view: Any,
    means: Any,
    quats: Any,
    scales: Any,
    logits: Any,
    sh: Any,
    degree: int,
    antialiased: bool,
    flat: Any,
    given: Any,
    means_made: Any,
    quats_made: Any,
    scales_made: Any,
    logits_made: Any,
    sh_made: Any,
) -> None:
    """From gradients [N, 9] of mean, conic, opacity and colour in the picture to those of what `project` was given.

    The gradients are written, not added; rows of coefficients beyond `degree` are not touched.
    """
    rotation, seen, by_rotation = np.empty(9, F), np.empty(3, F), np.empty(9, F)
    jacobian, root, by_root = np.empty(4, F), np.empty((2, 3), F), np.empty((2, 3), F)
    by_seen, work = np.empty(3, F), np.empty((5, BASES), F)
    bases = (degree + 1) * (degree + 1)
    for g in range(first, last):
        means_made[g] = ZERO
        quats_made[g] = ZERO
        scales_made[g] = ZERO
        logits_made[g] = ZERO
        sh_made[g, :bases] = ZERO
        if flat[g, 5] == ZERO:
            continue
        _seen(view, means, g, seen)
        length = _rotation(quats, g, rotation)
        _spread(view, seen, rotation, scales, g, jacobian, root)
        by_opacity = _through_covariance(view, flat, given, g, root, antialiased, by_root)
        plain = ONE / (ONE + math.exp(-logits[g]))
        logits_made[g] = by_opacity * plain * (ONE - plain)
        # root = J W R S: what each entry of J, of R and of S changes
        by_seen[:] = ZERO
        by_across = by_along_x = by_down = by_along_y = ZERO
        for k in range(3):
            size = math.exp(scales[g, k])
            across = down = along = ZERO
            grown = ZERO
            for i in range(3):
                side = rotation[3 * i + k] * size
                across += view[i] * side
                down += view[3 + i] * side
                along += view[6 + i] * side
                turned = by_root[0, k] * (jacobian[0] * view[i] + jacobian[1] * view[6 + i]) + by_root[1, k] * (
                    jacobian[2] * view[3 + i] + jacobian[3] * view[6 + i]
                )
                by_rotation[3 * i + k] = turned * size
                grown += turned * side
            scales_made[g, k] = grown
            by_across += by_root[0, k] * across
            by_along_x += by_root[0, k] * along
            by_down += by_root[1, k] * down
            by_along_y += by_root[1, k] * along
        _through_rotation(quats, g, length, by_rotation, quats_made)
        _through_place(view, seen, jacobian, given, g, by_across, by_along_x, by_down, by_along_y, by_seen)
        for i in range(3):
            means_made[g, i] = view[i] * by_seen[0] + view[3 + i] * by_seen[1] + view[6 + i] * by_seen[2]
        _through_colour(view, means, sh, degree, flat, given, g, work, means_made, sh_made)


@compiled
def _through_place(
    view: Any,
    seen: Any,
    jacobian: Any,
    given: Any,
    g: int,
    by_across: Any,
    by_along_x: Any,
    by_down: Any,
    by_along_y: Any,
    made: Any,
) -> None:
    """From the gradients of J's entries and of the mean in the picture to that of the mean in the camera, made [3]."""
    depth = seen[2]
    by_x, by_y = given[g, 0], given[g, 1]
    made[0] = by_x * view[15] / depth
    made[1] = by_y * view[16] / depth
    made[2] = -(by_x * view[15] * seen[0] + by_y * view[16] * seen[1]) / (depth * depth)
    made[2] -= (by_across * jacobian[0] + by_down * jacobian[2]) / depth
    made[2] -= TWO * (by_along_x * jacobian[1] + by_along_y * jacobian[3]) / depth
    x, y = seen[0] / depth, seen[1] / depth
    by_near_x, by_near_y = -view[15] * by_along_x / (depth * depth), -view[16] * by_along_y / (depth * depth)
    if view[24] <= x <= view[25]:
        made[0] += by_near_x
    else:
        made[2] += by_near_x * min(max(x, view[24]), view[25])
    if view[26] <= y <= view[27]:
        made[1] += by_near_y
    else:
        made[2] += by_near_y * min(max(y, view[26]), view[27])
