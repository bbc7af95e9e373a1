"""Which tokens are where: those a pass reads, those a cache holds, and who may look at whom."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from toolroll.pruning.spans import Marks


@dataclass(frozen=True, slots=True)
class Cells:
    """Tokens [B, K] with their places in the sequence [B, K]; those not `valid` [B, K] are padding.

    `whole` is that all are valid, known without asking the device.
    """

    place: Tensor
    valid: Tensor
    whole: bool

    @property
    def count(self) -> int:
        """K."""
        return int(self.place.shape[1])

    def then(self, other: Cells) -> Cells:
        """These, and others behind."""
        return Cells(
            torch.cat([self.place, other.place], 1),
            torch.cat([self.valid, other.valid], 1),
            self.whole and other.whole,
        )

    def rows(self, chosen: Tensor) -> Cells:
        """Those of some prompts."""
        return Cells(self.place[chosen], self.valid[chosen], self.whole)


def no_cells(batch: int, device: torch.device) -> Cells:
    """None, for each of `batch` prompts."""
    place = torch.zeros(batch, 0, dtype=torch.long, device=device)
    return Cells(place, place.bool(), whole=True)


def may_see(queries: Cells, keys: Cells) -> Tensor:
    """Bool [B, Q, K]: what is valid and not later. Padding sees all, so that its softmax has something to sum."""
    earlier = keys.place.unsqueeze(1) <= queries.place.unsqueeze(2)
    seen = earlier & keys.valid.unsqueeze(1)
    return seen if queries.whole else seen | ~queries.valid.unsqueeze(2)


@dataclass(frozen=True, slots=True)
class Stage:
    """The new tokens [B, T] of a pass that go through some consecutive layers.

    index: [B, T], which of the pass's tokens these are; None is all of them. within: the same among those of the stage
    before. cells: their places. any_visual: whether there are visual tokens. text_at, visual_at: [B, K], where in T the
    text and the visual tokens are, as many for each prompt, filled up in front; text_cells, visual_cells say which of
    them count. text_real, visual_real: bool [B, K], which are no filling; None is all. text_rows, visual_rows: the
    same places in B * T, without filling. marks: of these tokens, on the CPU.
    """

    index: Tensor | None
    within: Tensor | None
    cells: Cells
    any_visual: bool
    text_at: Tensor
    text_cells: Cells
    text_real: Tensor | None
    visual_at: Tensor
    visual_cells: Cells
    visual_real: Tensor | None
    text_rows: Tensor
    visual_rows: Tensor
    marks: Marks | None

    @property
    def tokens(self) -> int:
        """T."""
        return self.cells.count


def first_stage(
    marks: Marks | None, batch: int, tokens: int, seen: int, valid: Tensor | None, device: torch.device
) -> Stage:
    """All tokens of a pass, behind `seen` earlier ones. `valid` [B, T] is None where there is no padding."""
    place = (torch.arange(tokens, device=device) + seen).expand(batch, tokens)
    whole = valid is None or bool(valid.all())
    sound = torch.ones(batch, tokens, dtype=torch.bool, device=device) if valid is None else valid.to(device).bool()
    return stage_of(None, None, Cells(place, sound, whole), marks)


def stage_of(index: Tensor | None, within: Tensor | None, cells: Cells, marks: Marks | None) -> Stage:
    """A stage of these tokens."""
    device, (batch, tokens) = cells.place.device, cells.place.shape
    any_visual = marks is not None and bool(marks.visual.any())
    if not any_visual:
        everywhere = torch.arange(tokens, device=device).expand(batch, tokens)
        none = no_cells(batch, device)
        flat = torch.arange(batch * tokens, device=device)
        return Stage(
            index, within, cells, False, everywhere, cells, None, none.place, none, None, flat, flat[:0], marks
        )
    assert marks is not None
    visual = marks.visual
    text_at, text_real = _gathered(~visual, device)
    visual_at, visual_real = _gathered(visual, device)
    flat = visual.flatten()
    return Stage(
        index,
        within,
        cells,
        True,
        text_at,
        _taken(cells, text_at, text_real),
        _unless_all(text_real),
        visual_at,
        _taken(cells, visual_at, visual_real),
        _unless_all(visual_real),
        (~flat).nonzero().flatten().to(device),
        flat.nonzero().flatten().to(device),
        marks,
    )


def later_stage(before: Stage, keep: Tensor) -> Stage:
    """Of the tokens of a stage those to `keep` (bool [B, T], on the CPU), in order, filled up in front."""
    at, real_at = _gathered(keep, before.cells.place.device)
    cells = _taken(before.cells, at, real_at)
    index = at if before.index is None else before.index.gather(1, at)
    marks = before.marks
    if marks is not None:
        here = at.cpu()
        real = real_at.cpu()
        visual = marks.visual.gather(1, here) & real
        tile, row, column = (part.gather(1, here) for part in (marks.tile, marks.row, marks.column))
        marks = Marks(visual, marks.valid.gather(1, here) & real, tile, row, column, marks.grids)
    return stage_of(index, at, cells, marks)


def _gathered(chosen: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where [B, K] the chosen of [B, T] are, filled up in front with place 0, and which of these are no filling."""
    counts = chosen.sum(1)
    most = int(counts.max())
    order = torch.argsort(chosen.int(), dim=1, stable=True)[:, chosen.shape[1] - most :]
    real = chosen.gather(1, order)
    return torch.where(real, order, 0).to(device), real.to(device)


def _taken(cells: Cells, at: Tensor, real: Tensor) -> Cells:
    valid = cells.valid.gather(1, at) & real
    return Cells(cells.place.gather(1, at), valid, bool(valid.all()))


def _unless_all(real: Tensor) -> Tensor | None:
    return None if bool(real.all()) else real


def take(states: Tensor, at: Tensor) -> Tensor:
    """Of [B, H, T, D] the tokens `at` [B, K]."""
    if states.shape[0] == 1:
        return states.index_select(2, at[0])
    index = at[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3])
    return states.gather(2, index)
