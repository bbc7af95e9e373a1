"""The vision tower of both models: a CLIPVisionModel that learns what every patch shows.

It has no text to learn from: every patch is asked whose it is, what that object looks like, which it is from the left
and where its middle lies; the class token what is in the whole picture. The heads that answer are thrown away.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import LARGEST, LOOKS, Pictures
from sizes import GRID, MEAN, MOST, PATCH, PATCHES, SIDE, STD, Size
from stages import chunks, shuffles, train
from torch import Tensor, nn
from torch.nn import functional
from transformers import CLIPVisionConfig, CLIPVisionModel

from toolroll.world.tables import KINDS

COMBINED = 96  #: looks that an object can have
COUNTS = 11


def config_of(size: Size) -> CLIPVisionConfig:
    """The tower's configuration."""
    return CLIPVisionConfig(
        hidden_size=size.width,
        intermediate_size=size.inner,
        num_hidden_layers=size.depth,
        num_attention_heads=size.heads,
        image_size=SIDE,
        patch_size=PATCH,
        hidden_act="gelu",
    )


def pixels(images: np.ndarray[Any, Any]) -> Tensor:
    """Pictures as the image processors give them: float32 [n, 3, SIDE, SIDE]."""
    values = torch.from_numpy(np.ascontiguousarray(images)).float() / 255
    return ((values - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)


class Taught(nn.Module):
    """The tower with the heads that teach it."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.tower = CLIPVisionModel(config_of(size))
        self.norm = nn.LayerNorm(size.width)
        self.looks = nn.Linear(size.width, sum(map(len, LOOKS)))
        self.combined = nn.Linear(size.width, COMBINED)
        self.rank = nn.Linear(size.width, MOST)
        self.place = nn.Linear(size.width, 2)
        self.flags = nn.Linear(size.width, 2)  # shows an object; is its object's own patch
        self.whole_norm = nn.LayerNorm(size.width)
        self.whole = nn.Linear(size.width, COMBINED + COUNTS + len(KINDS) + COUNTS + LARGEST)

    def forward(self, values: Tensor) -> tuple[Tensor, ...]:
        """Answers of all heads for pictures [n, 3, SIDE, SIDE]."""
        hidden = self.tower(pixel_values=values).last_hidden_state
        each, all_ = self.norm(hidden[:, 1:]), self.whole_norm(hidden[:, 0])
        heads = (self.looks, self.combined, self.rank, self.place, self.flags)
        return *(head(each) for head in heads), self.whole(all_)


def centres() -> Tensor:
    """The middle of every patch, [PATCHES, 2], in units of the picture."""
    numbers = torch.arange(PATCHES)
    return torch.stack([(numbers % GRID + 0.5) / GRID, (numbers // GRID + 0.5) / GRID], 1)


def targets(pictures: Pictures, rows: Tensor) -> dict[str, Tensor]:
    """What the heads should say for these pictures."""
    at = rows.numpy()
    owners = torch.from_numpy(pictures.owners[at]).long()
    looks = torch.from_numpy(pictures.looks[at]).long()
    shown = owners.clamp(min=0)
    own = torch.gather(looks, 1, shown[..., None].expand(-1, -1, 4))
    places = torch.gather(torch.from_numpy(pictures.places[at]), 1, shown[..., None].expand(-1, -1, 2))
    anchors = torch.from_numpy(pictures.anchors[at]).long()
    flags = torch.zeros(len(at), PATCHES)
    picture, number = (anchors >= 0).nonzero(as_tuple=True)
    flags[picture, anchors[picture, number]] = 1.0
    there = looks[..., 0] >= 0
    code = ((looks[..., 0] * 8 + looks[..., 1]) * 2 + looks[..., 2]) * 3 + looks[..., 3]
    present = torch.zeros(len(at), COMBINED)
    picture, number = there.nonzero(as_tuple=True)
    present[picture, code[picture, number]] = 1.0
    told = torch.from_numpy(pictures.charts[at]).long()
    return {
        "owners": owners, "looks": own, "places": places - centres(), "anchors": flags, "present": present,
        "code": torch.gather(code, 1, shown), "count": there.sum(1), "charts": told, "scene": told[:, 0] < 0,
    }  # fmt: skip


def cross(logits: Tensor, wanted: Tensor) -> Tensor:
    """Cross-entropy over what is wanted (>= 0); 0 where nothing is."""
    mask = wanted >= 0
    return functional.cross_entropy(logits[mask], wanted[mask]) if mask.any() else logits.sum() * 0


def loss_of(model: Taught, values: Tensor, wanted: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
    """The sum of all heads' losses, and the shares of patches that are right."""
    looks, combined, rank, place, flags, whole = model(values)
    on = wanted["owners"] >= 0
    scene = wanted["scene"]
    parts, first, right = [], 0, {}
    for k, choices in enumerate(LOOKS):
        logits, truth = looks[on][:, first : first + len(choices)], wanted["looks"][on][:, k]
        parts.append(functional.cross_entropy(logits, truth) if len(truth) else logits.sum() * 0)
        right[("size", "color", "material", "shape")[k]] = float((logits.argmax(1) == truth).float().mean())
        first += len(choices)
    parts.append(functional.cross_entropy(combined[on], wanted["code"][on]) * 0.5)
    parts.append(functional.cross_entropy(rank[on], wanted["owners"][on]))
    parts.append(functional.smooth_l1_loss(place[on] * 10, wanted["places"][on] * 10))
    parts.append(functional.binary_cross_entropy_with_logits(flags[..., 0], on.float()) * 2)
    own = functional.binary_cross_entropy_with_logits(flags[..., 1], wanted["anchors"], pos_weight=torch.tensor(4.0))
    parts.append(own * 2)
    present, count, kind, number, largest = whole.split([COMBINED, COUNTS, len(KINDS), COUNTS, LARGEST], 1)
    weight = torch.tensor(4.0)
    parts.append(
        functional.binary_cross_entropy_with_logits(present[scene], wanted["present"][scene], pos_weight=weight) * 3
    )
    parts.append(functional.cross_entropy(count[scene], wanted["count"][scene]) * 0.5)
    charts = wanted["charts"]
    parts += [cross(kind, charts[:, 0]) * 0.3, cross(number, charts[:, 1]) * 0.3, cross(largest, charts[:, 2]) * 0.3]
    right["rank"] = float((rank[on].argmax(1) == wanted["owners"][on]).float().mean())
    right["count"] = float((count[scene].argmax(1) == wanted["count"][scene]).float().mean())
    hits = (present[scene] > 0) & (wanted["present"][scene] > 0)
    right["present"] = float(2 * hits.sum() / ((present[scene] > 0).sum() + wanted["present"][scene].sum()))
    return sum(parts[1:], parts[0]), right


def taught(size: Size, pictures: Pictures, cache: Path, seed: int) -> tuple[CLIPVisionModel, dict[str, float]]:
    """The trained tower."""
    torch.manual_seed(seed)
    model = Taught(size)
    rows = shuffles(len(pictures), size.tower.batch, seed)

    def batch(step: int) -> tuple[Tensor, dict[str, Tensor]]:
        chosen = rows(step)
        return pixels(pictures.images[chosen.numpy()]), targets(pictures, chosen)

    logged = train(model, size.tower, batch, lambda given: loss_of(model, *given), cache, "tower")
    return model.tower, logged


@torch.inference_mode()
def features(tower: CLIPVisionModel, pictures: Pictures, batch: int = 128) -> Tensor:
    """The tower's last hidden states, float16 [n, 1 + PATCHES, width]."""
    tower.eval()
    found = [
        tower(pixel_values=pixels(pictures.images[rows])).last_hidden_state.half()
        for rows in chunks(len(pictures), batch)
    ]
    return torch.cat(found)


@torch.inference_mode()
def measured(size: Size, pictures: Pictures, cache: Path) -> dict[str, float]:
    """The shares that the heads get right on pictures they did not learn from, of the tower in the cache."""
    model = Taught(size)
    model.load_state_dict(torch.load(cache / "tower.pt", weights_only=True)["model"])
    model.eval()
    sums: dict[str, float] = {}
    slices = list(chunks(len(pictures), 100))
    for rows in slices:
        chosen = torch.arange(rows.start, rows.stop)
        wanted = targets(pictures, chosen)
        if wanted["scene"].any():
            _, right = loss_of(model, pixels(pictures.images[rows]), wanted)
            sums = {key: sums.get(key, 0.0) + value * int(wanted["scene"].sum()) for key, value in right.items()}
    scenes = sum(int((pictures.charts[rows][:, 0] < 0).sum()) for rows in slices)
    return {key: round(value / scenes, 4) for key, value in sums.items()}
