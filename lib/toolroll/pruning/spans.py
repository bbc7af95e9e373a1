"""Where the visual tokens of a prompt are, and the grids they form, family by family.

LLaVA-1.5           an image is (image size / patch size) squared tokens; adjacent images are told apart by that
LLaVA-NeXT          a tile of the whole image, then one of its parts, each row of which ends with a newline token
Qwen2-VL and later  image_grid_thw: t tiles of (h / merge) x (w / merge)
Idefics3, SmolVLM   tiles of (image size / patch size / scale factor) squared, with text between them
InternVL            tiles of image_seq_length tokens, one behind the other
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from toolroll.errors import RowError
from toolroll.pruning.flops import Grid

_IN_TIME = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "glm4v")
_SCALED = ("idefics3", "smolvlm")
SIZES = ("image_grid_thw", "image_sizes")  #: names of the tensors that say how large each image is
_UNKNOWN: Grid = (0, 0)  #: a tile that takes all that is left, as one row


@dataclass(frozen=True, slots=True)
class Marks:
    """Where visual tokens are among new tokens [B, S], and where each is in its grid; on the CPU.

    visual, valid: bool [B, S]; padding is not valid. tile, row, column: [B, S], of visual tokens; tiles of a prompt
    are numbered in order. grids: of each prompt, in order.
    """

    visual: Tensor
    valid: Tensor
    tile: Tensor
    row: Tensor
    column: Tensor
    grids: tuple[tuple[Grid, ...], ...]


def image_token(config: Any) -> int | None:
    """The id that stands for a visual token."""
    for name in ("image_token_id", "image_token_index"):
        found = getattr(config, name, None)
        if isinstance(found, int):
            return found
    return None


def marked(config: Any, ids: Tensor, mask: Tensor | None, features: Mapping[str, Any]) -> Marks:
    """The visual tokens of prompts `ids` [B, S], of which `mask` [B, S] says what is no padding.

    `features` are the tensors that go with the images: image_grid_thw, image_sizes. The last token of a prompt is
    never visual: what is sampled next hangs on it, so that it is computed like text. RowError where images and tokens
    do not fit.
    """
    ids = ids.detach().cpu()
    valid = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.detach().cpu().bool()
    visual = (ids == image_token(config)) & valid
    tile, row, column = (torch.full_like(ids, -1) for _ in range(3))
    images = _images(config, features)
    grids: list[tuple[Grid, ...]] = []
    for b in range(len(ids)):
        places = visual[b].nonzero().flatten()
        found = _tiles(images, len(places))
        start = 0
        for number, (rows, columns) in enumerate(found):
            here = places[start : start + rows * columns]
            inside = torch.arange(rows * columns)
            tile[b, here], row[b, here], column[b, here] = number, inside // columns, inside % columns
            start += rows * columns
        grids.append(tuple(found))
    last = valid.shape[1] - 1 - valid.flip(1).int().argmax(1)
    each = torch.arange(len(ids))
    visual[each, last] = False
    tile[each, last] = -1
    return Marks(visual, valid, tile, row, column, tuple(grids))


def marked_again(config: Any, ids: Tensor, mask: Tensor | None, features: Mapping[str, Any]) -> Marks:
    """`marked`, also where prompts stand several times one behind the other, with the images of one (beams)."""
    try:
        return marked(config, ids, mask, features)
    except RowError:
        each = next((k for k in range(len(ids), 1, -1) if len(ids) % k == 0 and _repeats(ids, k)), 1)
        if each == 1:
            raise
        once = marked(config, ids[::each], None if mask is None else mask[::each], features)
        parts = (once.visual, once.valid, once.tile, once.row, once.column)
        grids = tuple(grid for grid in once.grids for _ in range(each))
        visual, valid, tile, row, column = (part.repeat_interleave(each, 0) for part in parts)
        return Marks(visual, valid, tile, row, column, grids)


def _repeats(ids: Tensor, each: int) -> bool:
    return all(bool((ids[b] == ids[b - b % each]).all()) for b in range(len(ids)))


def knows_grids(config: Any) -> bool:
    """Whether the grids of this model's visual tokens are known, so that it can have a window."""
    try:
        first = next(_images(config, _SOME))
    except (StopIteration, AttributeError, TypeError, KeyError):
        return False
    return _UNKNOWN not in first


_SOME = {"image_grid_thw": torch.tensor([[1, 2, 2]]), "image_sizes": torch.tensor([[16, 16]])}


def _tiles(images: Iterator[Sequence[Grid]], count: int) -> list[Grid]:
    """Whole images until their tokens are `count`."""
    found: list[Grid] = []
    room = count
    while room > 0:
        image = next(images, None)
        if image is None:
            raise RowError(f"{count} visual tokens, and images for {count - room} of them")
        grids = [(1, room) if grid == _UNKNOWN else grid for grid in image]
        room -= sum(rows * columns for rows, columns in grids)
        found += grids
    if room:
        raise RowError(f"{count} visual tokens do not fit the grids of its images, which have {count - room}")
    return found


def _images(config: Any, features: Mapping[str, Any]) -> Iterator[Sequence[Grid]]:
    """The grids of each image, in order; for families whose images are all alike without end."""
    kind = str(config.model_type)
    vision = getattr(config, "vision_config", None)
    if kind.startswith(_IN_TIME):
        merge = getattr(vision, "spatial_merge_size", 1)
        for t, h, w in _rows(features, "image_grid_thw"):
            yield [(h // merge, w // merge)] * t
        return
    if kind == "llava_next":
        for height, width in _rows(features, "image_sizes"):
            yield _anyres(config, height, width)
        return
    whole = _same(config, kind, vision)
    while True:
        yield whole


def _same(config: Any, kind: str, vision: Any) -> Sequence[Grid]:
    """The grids of an image of a family where all images are alike."""
    if kind == "llava" and getattr(vision, "model_type", "") != "pixtral":
        side = vision.image_size // vision.patch_size
        return [(1, 1), (side, side)] if config.vision_feature_select_strategy == "full" else [(side, side)]
    if kind in _SCALED:
        side = vision.image_size // vision.patch_size // config.scale_factor
        return [(side, side)]
    if kind == "internvl":
        side = math.isqrt(config.image_seq_length)
        if side * side == config.image_seq_length:
            return [(side, side)]
    return [_UNKNOWN]


def _anyres(config: Any, height: int, width: int) -> list[Grid]:
    """LLaVA-NeXT: a tile of the whole image, then its parts without padding, with a column of newlines."""
    from transformers.image_processing_utils import select_best_resolution

    vision = config.vision_config
    side = vision.image_size // vision.patch_size
    best_height, best_width = select_best_resolution((height, width), config.image_grid_pinpoints)
    rows, columns = best_height // vision.image_size * side, best_width // vision.image_size * side
    whole: list[Grid] = [(1, 1)] if config.vision_feature_select_strategy == "full" else []
    whole.append((side, side))
    if width / height > columns / rows:
        rows -= (rows - int(round(height * (columns / width), 7))) // 2 * 2
    else:
        columns -= (columns - int(round(width * (rows / height), 7))) // 2 * 2
    return [*whole, (rows, columns + 1)]


def _rows(features: Mapping[str, Any], name: str) -> list[list[int]]:
    found = features.get(name)
    return [] if found is None else [[int(one) for one in row] for row in torch.as_tensor(found).tolist()]
