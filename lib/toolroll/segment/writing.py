"""The fields that pmp-seg adds to a row, and the pictures it writes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from toolroll.segment.masks import encode
from toolroll.segment.overlay import drawn, label_image
from toolroll.segment.proposals import Mode, record_of, segments_of, selected
from toolroll.segment.rowed import plain

if TYPE_CHECKING:
    from toolroll.io.rows import Row
    from toolroll.segment.predicting import Predictor
    from toolroll.segment.prompts import Prompts


class Writer:
    """Makes rows, and files where these are asked for."""

    def __init__(
        self,
        mode: Mode,
        threshold: float,
        topk: int,
        background_score: float,
        *,
        proposals: bool,
        masks: str | None,
        overlay: str | None,
        overwrite: bool,
    ) -> None:
        from toolroll.world.images import Folder

        self.mode, self.threshold, self.topk, self.background_score = mode, threshold, topk, background_score
        self.proposals = proposals
        self.masks = None if masks is None else Folder(masks, overwrite=overwrite)
        self.overlay = None if overlay is None else Folder(overlay, overwrite=overwrite)

    def fields(self, row: Row[Any], image: Any, prompts: Prompts, predictor: Predictor) -> dict[str, Any]:
        """The fields for an image."""
        said = predictor.said(image, prompts)
        found = segments_of(said, self.mode, self.threshold, self.topk, self.background_score)
        names = [words[0] for words in prompts]
        opened = predictor.opened
        made: dict[str, Any] = {
            "prompts": plain(prompts),
            "width": image.width,
            "height": image.height,
            "mode": self.mode,
            "segments": [record_of(one, names, said) for one in found],
            "segmenter": f"{opened.name} {opened.weights_id}",
        }
        if self.proposals:
            made["proposals"] = [encode(said.mask(query)) for query in range(len(said.masks))]
            made["selected"] = selected(said)
        name = file_name(row.view.id if row.view.id is not None else row.view.image)
        if self.masks is not None:
            labels = label_image(found, image.height, image.width)
            kind = np.uint8 if len(names) < 256 else np.uint16
            made["mask_file"] = self.masks.put(f"{name}.png", labels.astype(kind))
        if self.overlay is not None:
            made["overlay_file"] = self.overlay.put(f"{name}.png", drawn(image, found, names))
        return made


def file_name(name: object) -> str:
    """The name of a record as that of a file.

    >>> file_name("photos/a b.jpg")
    'photos_a_b.jpg'
    """
    return re.sub(r"[^\w.-]+", "_", str(name)).lstrip(".") or "_"
