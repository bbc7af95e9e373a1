"""A model at work on images: what it says of one, with or without a contrastive encoder that names masks again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from toolroll.errors import RowError, ToolrollError
from toolroll.segment.model import Opened, pixels, working_size
from toolroll.segment.prompts import Prompts, seen_in, shortened
from toolroll.segment.proposals import Said, ensemble
from toolroll.segment.text import Reader, open_text

CROP_THRESHOLD = 0.4  #: OVSeg's: where a mask is below this, its crop shows the mean colour
TEMPERATURE = 100.0  #: of the cosines of a CLIP


class Encoder(Protocol):
    """A contrastive encoder, as clip-score has them. `limit`: the most tokens of a text."""

    limit: int

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""
        ...

    def texts(self, windows: Sequence[Sequence[int]]) -> Tensor:
        """Vectors [n, D] of texts."""
        ...

    def images(self, images: Sequence[Any]) -> Tensor:
        """Vectors [n, D] of PIL images."""
        ...


class Naming:
    """Stage 2: every mask's crop is named by an encoder, and the two probabilities are joined.

    p = own^(1-w) clip^w, with w `seen_weight` for classes that the model was trained with and `weight` for others. Then
    the classes' shares are set right so that the chance of "none of them" stays what the model says. As in FC-CLIP.
    """

    def __init__(
        self, encoder: Encoder, templates: Sequence[str], trained: Sequence[str], weight: float, seen_weight: float
    ) -> None:
        self.encoder, self.templates, self.trained = encoder, tuple(templates), tuple(trained)
        self.weight, self.seen_weight = weight, seen_weight
        self._vectors: dict[str, Tensor] = {}

    def _phrase(self, phrase: str) -> Tensor:
        if phrase not in self._vectors:
            texts = [template.replace("{}", phrase) for template in self.templates]
            ids = [self.encoder.encode(text) for text in texts]
            if max(map(len, ids)) > self.encoder.limit:
                raise RowError(
                    f"the prompt {shortened(phrase)!r} has more tokens than the {self.encoder.limit} that CLIP reads"
                )
            self._vectors[phrase] = torch.nn.functional.normalize(self.encoder.texts(ids).mean(0), dim=0)
        return self._vectors[phrase]

    def guess(self, image: Any, masks: Tensor, prompts: Prompts) -> Tensor:
        """Probabilities [Q, K] of classes for crops of an image by masks [Q, h, w] of probabilities.

        RowError for a prompt that is too long.
        """
        crops = [crop(image, mask) for mask in masks.cpu()]
        vectors = self.encoder.images(crops)
        cosines = torch.stack(
            [torch.stack([vectors @ self._phrase(word) for word in words]).amax(0) for words in prompts], dim=1
        )
        return (TEMPERATURE * cosines).softmax(-1)

    def joined(self, own: Tensor, guessed: Tensor, prompts: Prompts) -> Tensor:
        """Probabilities [Q, K+1] of the model [Q, K+1] and of the encoder [Q, K] together."""
        seen = torch.tensor(seen_in(prompts, self.trained))
        weight = torch.where(seen, self.seen_weight, self.weight)
        inner = own[:, :-1] / own[:, :-1].sum(1, keepdim=True).clamp(min=1e-12)
        mixed = ensemble(inner.clamp(min=1e-12), guessed.clamp(min=1e-12), weight)
        shares = mixed / mixed.sum(1, keepdim=True)
        return torch.cat([shares * (1 - own[:, -1:]), own[:, -1:]], dim=1)


def crop(image: Any, mask: Tensor, threshold: float = CROP_THRESHOLD) -> Any:
    """The box of a mask [h, w] of probabilities cut out of a PIL image, the image's mean colour around the mask."""
    from PIL import Image

    large = interpolate(mask[None, None], size=(image.height, image.width), mode="bilinear", align_corners=False)
    inside = (large[0, 0] >= threshold).numpy()
    colours = np.asarray(image, np.uint8)
    mean = colours.reshape(-1, 3).mean(0).astype(np.uint8)
    if not inside.any():
        return Image.fromarray(np.broadcast_to(mean, (16, 16, 3)).copy())
    rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    return Image.fromarray(np.where(inside[part][..., None], colours[part], mean).astype(np.uint8))


class Predictor:
    """A model with its text encoder, on a device."""

    def __init__(
        self,
        opened: Opened,
        device: str = "cpu",
        *,
        templates: Sequence[str] | None = None,
        side: int | None = None,
        naming: Naming | None = None,
        warn: Callable[[str], None] = lambda _: None,
    ) -> None:
        about = opened.about
        encoder = open_text(about.text, device)
        if encoder.width != about.shape.text_width:
            why = f"its vectors have {encoder.width} numbers, the model wants {about.shape.text_width}"
            raise ToolrollError(why, place=about.text)
        if about.text_id and encoder.weights_id != about.text_id:
            warn(f"the text encoder {about.text} is not the one that the model was trained with")
        self.opened, self.device, self.naming = opened, device, naming
        self.side = side or about.side
        self.model = opened.model.to(device).eval()
        self.reader = Reader(encoder, templates or about.templates, words=about.text_tokens == "words")

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def said(self, image: Any, prompts: Prompts) -> Said:
        """What the model says of a PIL image in RGB. RowError for a prompt that the text encoder cannot read."""
        size = working_size(image.width, image.height, self.side)
        batch = pixels([image], self.opened.about, size).to(self.device)
        text = self.reader.read([prompts]).to(self.device)
        outputs = self.model(batch, text)
        classes = outputs.classes[-1, 0].float().softmax(-1).cpu()
        masks = outputs.masks[-1, 0].float().cpu()
        if self.naming is None:
            return Said(classes, masks, image.height, image.width)
        guessed = self.naming.guess(image, masks.sigmoid(), prompts)
        return Said(self.naming.joined(classes, guessed, prompts), masks, image.height, image.width, classes, guessed)
