"""glance: a CLIPModel that tells which sentences fit a rendered scene.

Its vision half starts as the trained tower, of which only the last layers go on learning. Every sentence of a batch is
held against every picture of it, since the scenes say which fit; and every true sentence against the same made false.
"""

from __future__ import annotations

import math
import multiprocessing
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data import Pictures
from sentences import codes, fitting, pairs
from sizes import MEAN, SIDE, STD, Size
from stages import chunks, shuffles, train
from tokenizers import Tokenizer, processors
from torch import Tensor, nn
from torch.nn import functional
from tower import config_of, pixels
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
)
from words import BEGIN, END, PAD

from toolroll.world.draws import Draws
from toolroll.world.scene import Scene

LENGTH = 77  #: tokens of a text, as with CLIP
SHORT = 20  #: tokens of a short text
LEARNING = 2  #: layers of the tower that go on learning
AHEAD = 4  #: batches made ahead
SCALE = 10.0  #: the scale of cosines at first; 30 at most, so that they stay apart


def tokenizer(words: Tokenizer) -> PreTrainedTokenizerFast:
    """The tokenizer with a beginning and an end around every text, as CLIP's."""
    own = Tokenizer.from_str(words.to_str())
    begin, end = own.token_to_id(BEGIN), own.token_to_id(END)
    own.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A {END}", special_tokens=[(BEGIN, begin), (END, end)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=own,
        pad_token=PAD,
        bos_token=BEGIN,
        eos_token=END,
        model_max_length=LENGTH,
        clean_up_tokenization_spaces=False,
    )


def processor(words: Tokenizer) -> CLIPProcessor:
    """Pictures scaled to SIDE x SIDE, texts of at most LENGTH tokens."""
    size = {"height": SIDE, "width": SIDE}
    pictures = CLIPImageProcessorPil(
        size=size, do_center_crop=False, crop_size=size, resample=3, image_mean=list(MEAN), image_std=list(STD)
    )
    return CLIPProcessor(image_processor=pictures, tokenizer=tokenizer(words))


def built(size: Size, words: Tokenizer, tower: CLIPVisionModel | None = None) -> CLIPModel:
    """The untrained model, with the tower's weights where they are given."""
    text = CLIPTextConfig(
        vocab_size=words.get_vocab_size(),
        hidden_size=size.clip_width,
        intermediate_size=size.clip_inner,
        num_hidden_layers=size.clip_depth,
        num_attention_heads=size.clip_heads,
        max_position_embeddings=LENGTH,
        hidden_act="gelu",
        pad_token_id=words.token_to_id(PAD),
        bos_token_id=words.token_to_id(BEGIN),
        eos_token_id=words.token_to_id(END),
        projection_dim=size.joint,
    )
    vision = config_of(size)
    vision.projection_dim = size.joint
    model = CLIPModel(CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=size.joint))
    with torch.no_grad():
        model.logit_scale.fill_(math.log(SCALE))
    if tower is not None:
        model.vision_model.load_state_dict(tower.state_dict())
    return model


class Learning(nn.Module):
    """The part of the model that learns: the tower's last layers, the text tower, both projections."""

    def __init__(self, model: CLIPModel) -> None:
        super().__init__()
        vision = model.vision_model
        self.layers = vision.encoder.layers[-LEARNING:]
        self.norm, self.seen = vision.post_layernorm, model.visual_projection
        self.text, self.read = model.text_model, model.text_projection
        self.scale, self.bias = model.logit_scale, nn.Parameter(torch.tensor(-3.0))

    def images(self, hidden: Tensor) -> Tensor:
        """Vectors [n, joint] from hidden states before the learning layers."""
        for layer in self.layers:
            hidden = layer(hidden, None)
        return functional.normalize(self.seen(self.norm(hidden[:, 0])), dim=-1)

    def texts(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Vectors [m, joint] of texts; short ones are read apart from long ones, with less filling."""
        lengths = mask.sum(1)
        made = ids.new_zeros(len(ids), self.read.out_features, dtype=self.read.weight.dtype)
        for rows in ((lengths <= SHORT).nonzero()[:, 0], (lengths > SHORT).nonzero()[:, 0]):
            if len(rows):
                longest = int(lengths[rows].max())
                read = self.text(input_ids=ids[rows, :longest], attention_mask=mask[rows, :longest])
                made = made.index_copy(0, rows, self.read(read.pooler_output))
        return functional.normalize(made, dim=-1)


@dataclass
class Held:
    """Sentences of a batch. ids, mask: [m, T]; fits: [n, m]; true, false, of: [p], pairs and their picture."""

    ids: Tensor
    mask: Tensor
    fits: Tensor
    true: Tensor
    false: Tensor
    of: Tensor


def held(scenes: list[Scene], looks: np.ndarray[Any, Any], seed: int, words: PreTrainedTokenizerFast) -> Held:
    """The sentences drawn for these scenes."""
    texts: list[str] = []
    triples = []
    for number, scene in enumerate(scenes):
        for good, bad in pairs(scene, Draws(seed + number)) if scene.solids else []:
            triples.append((len(texts), len(texts) + 1, number))
            texts += [good, bad]
    made = words(texts, padding=True, truncation=True, return_tensors="pt")
    fits = torch.from_numpy(fitting(np.stack([codes(text) for text in texts]), looks))
    true, false, of = torch.tensor(triples).T
    return Held(made["input_ids"], made["attention_mask"], fits, true, false, of)


def loss_of(model: Learning, hidden: Tensor, given: Held) -> tuple[Tensor, dict[str, float]]:
    """Which sentences fit which pictures (binary cross-entropy), and true above false for a picture (logistic)."""
    images, texts = model.images(hidden), model.texts(given.ids, given.mask)
    scale = model.scale.exp().clamp(max=30.0)
    cosines = images @ texts.T
    labels = given.fits.float()
    fit = functional.binary_cross_entropy_with_logits(
        cosines * scale + model.bias, labels, pos_weight=torch.tensor(4.0)
    )
    gap = cosines[given.of, given.true] - cosines[given.of, given.false]
    order = functional.softplus(-gap * 30.0).mean()
    return fit + order, {"fit": float(fit.detach()), "ordered": float((gap > 0).float().mean())}


class Drawn:
    """Batches of sentences, made ahead by another process."""

    def __init__(self, pictures: Pictures, rows: Any, words: Tokenizer) -> None:
        context = multiprocessing.get_context("fork")
        given = (pictures.about, pictures.looks, words.to_str())
        self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_remember, initargs=given)
        self._rows = rows
        self._made: dict[int, Future[Held]] = {}

    def __call__(self, step: int) -> tuple[Tensor, Held]:
        """The rows of a step, and sentences about them."""
        for ahead in range(step, step + AHEAD):
            if ahead not in self._made:
                self._made[ahead] = self._pool.submit(_held, self._rows(ahead).tolist(), ahead * 1_000)
        made = self._made.pop(step).result()
        return self._rows(step), made

    def close(self) -> None:
        """End the other process."""
        self._pool.shutdown(cancel_futures=True)


_KNOWN: list[Any] = []


def _remember(about: list[Scene], looks: np.ndarray[Any, Any], words: str) -> None:
    torch.set_num_threads(1)
    _KNOWN[:] = [about, looks, tokenizer(Tokenizer.from_str(words))]


def _held(rows: list[int], seed: int) -> Held:
    about, looks, words = _KNOWN
    return held([about[row] for row in rows], looks[rows], seed, words)


@torch.inference_mode()
def before(tower: CLIPVisionModel, images: np.ndarray[Any, Any], batch: int = 128) -> Tensor:
    """Hidden states in front of the layers that go on learning, float16 [n, 1 + PATCHES, width]."""
    found = []
    for rows in chunks(len(images), batch):
        states = tower(pixel_values=pixels(images[rows]), output_hidden_states=True).hidden_states
        found.append(states[-1 - LEARNING].half())
    return torch.cat(found)


def taught(
    size: Size, pictures: Pictures, tower: CLIPVisionModel, words: Tokenizer, folder: Path, seed: int
) -> tuple[CLIPModel, dict[str, float]]:
    """The trained model. It learns from scenes alone."""
    torch.manual_seed(seed)
    model = built(size, words, tower)
    scenes = int((pictures.charts[:, 0] < 0).sum())
    hidden = cache(lambda: before(tower, pictures.images[:scenes]))  # not where all is learned already
    learning = Learning(model)
    drawn = Drawn(pictures, shuffles(scenes, size.glance.batch, seed), words)
    try:

        def loss(batch: tuple[Tensor, Held]) -> tuple[Tensor, dict[str, float]]:
            rows, given = batch
            return loss_of(learning, hidden()[rows].float(), given)

        logged = train(learning, size.glance, drawn, loss, folder, "glance")
    finally:
        drawn.close()
    return model, logged
