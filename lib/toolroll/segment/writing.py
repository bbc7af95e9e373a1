"""The fields that pmp-seg adds to a row, and the pictures it writes."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from toolroll.errors import UsageError
from toolroll.io.paths import same_file
from toolroll.segment.masks import encode
from toolroll.segment.overlay import drawn, label_image
from toolroll.segment.proposals import Mode, record_of, segments_of, selected
from toolroll.segment.scene_rows import plain

if TYPE_CHECKING:
    from toolroll.io.rows import Row
    from toolroll.segment.predicting import Predictor
    from toolroll.segment.prompts import Prompts

LONGEST = 200  #: bytes of a file's name, with room for what is put behind it


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
        if masks is not None and overlay is not None and same_file(masks, overlay):
            raise UsageError("masks and pictures need a folder each", place="--overlay")
        self.overwrite = overwrite
        instead = "another folder or --overwrite"
        self.masks = None if masks is None else Folder(masks, overwrite=overwrite, instead=instead)
        self.overlay = None if overlay is None else Folder(overlay, overwrite=overwrite, instead=instead)

    def fields(self, row: Row[Any], path: Path, image: Any, prompts: Prompts, predictor: Predictor) -> dict[str, Any]:
        """The fields for the image in a file."""
        name = f"{file_name(row.view.id if row.view.id is not None else row.view.image)}.png"
        for folder in (self.masks, self.overlay):
            if folder is not None:
                self._check_apart(Path(folder.path, name), path)
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
        if self.masks is not None:
            labels = label_image(found, image.height, image.width)
            kind = np.uint8 if len(names) < 256 else np.uint16
            made["mask_file"] = self.masks.put(name, labels.astype(kind))
        if self.overlay is not None:
            made["overlay_file"] = self.overlay.put(name, drawn(image, found, names))
        return made

    def _check_apart(self, picture: Path, image: Path) -> None:
        """UsageError where a picture would take the place of the image, or might take that of another row's."""
        if same_file(picture, image):
            raise UsageError("input and output are the same file", place=str(picture))
        if self.overwrite and picture.exists() and same_file(picture.parent, image.parent):
            why = "--overwrite could replace images that are read: write into another folder"
            raise UsageError(why, place=str(picture))


def file_name(name: object) -> str:
    """The name of a record as that of a file; of one that is too long for that the beginning, and a digest.

    >>> file_name("photos/a b.jpg")
    'photos_a_b.jpg'
    """
    made = re.sub(r"[^\w.-]+", "_", str(name)).lstrip(".") or "_"
    if len(made.encode()) <= LONGEST:
        return made
    digest = hashlib.blake2b(str(name).encode(), digest_size=8).hexdigest()
    return f"{made.encode()[: LONGEST - 17].decode(errors='ignore')}-{digest}"
