"""A window as strips: some rows of a grid at a time look at the rows around them, in one plain product of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from toolroll.pruning.plan import Plan
from toolroll.pruning.tokens import Cells, Stage

QUERIES = 192  #: about so many tokens make a strip; fewer compute fewer pairs, in smaller products


@dataclass(frozen=True, slots=True)
class Strip:
    """For the prompts `batch` [b]: queries are visual tokens `start` to `end` of the pass.

    Keys are the first `text` tokens of the text block and visual tokens `first` to `last` of the visual block.
    mask: bool [b, queries, text + last - first].
    """

    batch: Tensor
    start: int
    end: int
    text: int
    first: int
    last: int
    mask: Tensor

    @property
    def pairs(self) -> int:
        """Pairs of query and key that it computes, in all its prompts."""
        return len(self.batch) * (self.end - self.start) * int(self.mask.shape[-1])


def strips(stage: Stage, plan: Plan, text: Cells, visual: Cells) -> list[Strip]:
    """The strips of a pass's visual tokens. `text`, `visual`: all cells so far, those of the pass at the end."""
    marks = stage.marks
    assert marks is not None
    assert plan.reach is not None
    device = text.place.device
    count, before = stage.visual_cells.count, visual.count - stage.visual_cells.count
    made: list[Strip] = []
    for prompts in _alike(stage):
        b = prompts[0]
        own = marks.visual[b].nonzero().flatten()
        tiles, rows, columns = (part[b, own] for part in (marks.tile, marks.row, marks.column))
        filled = count - len(own)
        places = text.place[b].tolist()
        at = stage.cells.place[b].cpu()[own]
        for tile in tiles.unique().tolist():
            inside = (tiles == tile).nonzero().flatten()
            head, row = int(inside[0]), rows[inside]
            ahead = sum(place < int(at[head]) for place in places)
            for low, high in _bands(row, marks.grids[b][tile][1]):
                queries = inside[(row >= low) & (row < high)]
                top = high if plan.window_causal else high + plan.reach
                keys = inside[(row >= low - plan.reach) & (row < top)]
                near = (rows[queries][:, None] - rows[keys]).abs() <= plan.reach
                near &= (columns[queries][:, None] - columns[keys]).abs() <= plan.reach
                if plan.window_causal:
                    near &= queries[:, None] >= keys
                first, last = before + filled + int(keys[0]), before + filled + int(keys[-1]) + 1
                if plan.cross_tile:
                    earlier = before + filled + head
                    near = torch.cat(
                        [torch.ones(len(queries), earlier - 0, dtype=torch.bool), _from(near, keys, head)], 1
                    )
                    first = 0
                made.append(
                    _strip(
                        prompts,
                        filled + int(queries[0]),
                        len(queries),
                        ahead,
                        (first, last),
                        near,
                        text,
                        visual,
                        device,
                    )
                )
    return made


def _from(near: Tensor, keys: Tensor, head: int) -> Tensor:
    """The keys' mask with those of the tile's own tokens before the first key, which are out of reach."""
    return torch.cat([torch.zeros(len(near), int(keys[0]) - head, dtype=torch.bool), near], 1)


def _strip(
    prompts: Sequence[int],
    start: int,
    length: int,
    ahead: int,
    span: tuple[int, int],
    near: Tensor,
    text: Cells,
    visual: Cells,
    device: torch.device,
) -> Strip:
    batch = torch.tensor(prompts, device=device)
    sound = text.valid[batch, :ahead].unsqueeze(1).expand(-1, length, -1)
    seen = near.to(device) & visual.valid[batch, span[0] : span[1]].unsqueeze(1)
    return Strip(batch, start, start + length, ahead, *span, torch.cat([sound, seen], 2))


def _bands(rows: Tensor, columns: int) -> list[tuple[int, int]]:
    """Bands of rows of a tile, `low` to before `high`, that have some tokens."""
    each = max(1, QUERIES // columns)
    last = int(rows.max()) + 1
    bands = [(low, min(low + each, last)) for low in range(0, last, each)]
    return [(low, high) for low, high in bands if bool(((rows >= low) & (rows < high)).any())]


def _alike(stage: Stage) -> list[list[int]]:
    """Prompts whose tokens are in the same places, together."""
    marks = stage.marks
    assert marks is not None
    groups: dict[tuple[bytes, ...], list[int]] = {}
    for b in range(len(marks.visual)):
        parts = (marks.visual[b], marks.valid[b], marks.tile[b], marks.row[b], stage.cells.place[b].cpu())
        key = tuple(part.numpy().tobytes() for part in parts)
        groups.setdefault(key, []).append(b)
    return list(groups.values())
