"""sprite: a LlavaForConditionalGeneration of the trained tower and a small Llama that learns to talk about pictures.

A training row is a picture and all that is said about it: the picture's tokens are read once, and every question and
answer sees them and itself but not the others, with the positions it has when it is asked alone.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from data import Pictures
from sizes import MEAN, MOST, PATCH, PATCHES, ROOM, SIDE, STD, Size, Stage
from stages import shuffles, train
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional
from tower import config_of, features
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionModel,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from turns import ANSWERS, PRACTICE, TALK, Lesson, turns_of
from words import ANSWER, END, IMAGE, PAD, TEMPLATE, USER, for_chats

from toolroll.world.draws import Draws
from toolroll.world.scene import Scene
from toolroll.world.tables import Table
from toolroll.world.words import placed_mentions

SEEN = 1 + PATCHES  #: tokens of a picture
AHEAD = 4  #: batches made ahead


def built(size: Size, words: Tokenizer, tower: CLIPVisionModel | None = None) -> LlavaForConditionalGeneration:
    """The untrained model, with the tower's weights where they are given."""
    config = LlavaConfig(
        vision_config=config_of(size),
        text_config=LlamaConfig(
            vocab_size=words.get_vocab_size(),
            hidden_size=size.text_width,
            intermediate_size=size.text_inner,
            num_hidden_layers=size.text_depth,
            num_attention_heads=size.text_heads,
            num_key_value_heads=size.text_heads,
            max_position_embeddings=ROOM,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=words.token_to_id(END),
            pad_token_id=words.token_to_id(PAD),
        ),
        image_token_index=words.token_to_id(IMAGE),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        image_seq_length=SEEN,
        tie_word_embeddings=True,
    )
    model = LlavaForConditionalGeneration(config)
    model.generation_config.eos_token_id = words.token_to_id(END)
    model.generation_config.pad_token_id = words.token_to_id(PAD)
    if tower is not None:
        model.model.vision_tower.load_state_dict(tower.state_dict())
    return model


def processor(words: Tokenizer) -> LlavaProcessor:
    """Pictures scaled to SIDE x SIDE, and the chat template."""
    size = {"height": SIDE, "width": SIDE}
    pictures = CLIPImageProcessorPil(
        size=size, do_center_crop=False, crop_size=size, resample=3, image_mean=list(MEAN), image_std=list(STD)
    )
    return LlavaProcessor(
        image_processor=pictures,
        tokenizer=for_chats(words),
        patch_size=PATCH,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=1,
        image_token=IMAGE,
        chat_template=TEMPLATE,
    )


@dataclass
class Told:
    """What is said about the pictures of a batch, filled up on the right.

    ids: [n, T]; places: the position of each token, from 0 behind the picture; turn: which turn a token belongs to, -1
    for filling; wanted: the next token where it is part of an answer, -1 elsewhere; weight: of each wanted token;
    points: int8 [n, T, MOST], where a token ends the name of an object, which of the objects have that name, else -1.
    """

    ids: Tensor
    places: Tensor
    turn: Tensor
    wanted: Tensor
    weight: Tensor
    points: Tensor


def told(
    about: list[Scene | Table],
    seeds: list[int],
    count: int,
    words: Tokenizer,
    lesson: Lesson = TALK,
    *,
    talk: bool = True,
) -> Told:
    """The turns drawn for these pictures, with or without those that are long."""
    answering, end = words.token_to_id(ANSWER), words.token_to_id(END)
    rows, named = [], []
    for number_of_row, (one, seed) in enumerate(zip(about, seeds, strict=True)):
        row: list[tuple[int, int, int, int, float]] = []
        for number, asked in enumerate(turns_of(one, Draws(seed), count, lesson, talk=talk)):
            question = [*words.encode(asked.question).ids, answering]
            answer = [*words.encode(asked.answer).ids, end]
            ids = question + answer
            if isinstance(one, Scene):
                first = len(row)
                for text, start in ((asked.question, first), (asked.answer, first + len(question))):
                    named += [(number_of_row, start + place, fits) for place, fits in pointed(one, text, words)]
            for place, token in enumerate(ids):
                following = ids[place + 1] if len(question) - 1 <= place < len(ids) - 1 else -1
                weight = 0.0 if following < 0 else len(answer) ** -0.5 * (lesson.ending if following == end else 1.0)
                row.append((token, place, number, following, weight))
        rows.append(row)
    longest = max(map(len, rows))
    filled = [row + [(words.token_to_id(PAD), 0, -1, -1, 0.0)] * (longest - len(row)) for row in rows]
    columns = [[[cell[k] for cell in row] for row in filled] for k in range(5)]
    points = torch.full((len(rows), longest, MOST), -1, dtype=torch.int8)
    for number_of_row, place, fits in named:
        points[number_of_row, place] = torch.tensor(fits, dtype=torch.int8)
    return Told(*(torch.tensor(column) for column in columns), points)


def pointed(scene: Scene, text: str, words: Tokenizer) -> Iterator[tuple[int, list[int]]]:
    """Where the tokens of a text end the name of an object, and which objects of the scene have it (1) or not (0)."""
    offsets = words.encode(text).offsets
    ends = {end: place for place, (_, end) in enumerate(offsets)}
    for mention, end in placed_mentions(text):
        if end in ends:
            fits = [int(mention.fits(solid)) for solid in scene.solids]
            yield ends[end], fits + [0] * (MOST - len(fits))


def mask_of(turn: Tensor) -> Tensor:
    """What each token may see: bool [n, 1, S, S], S = 1 + SEEN + T. Tokens of a turn see the picture and the turn."""
    count, length = turn.shape
    first = 1 + SEEN
    own = torch.cat([torch.full((count, first), -2), turn], 1)
    same = own[:, :, None] == own[:, None, :]
    same[:, :, :first] = True
    seen: Tensor = same & torch.ones(first + length, first + length, dtype=torch.bool).tril()
    return seen[:, None]


class Pointing(nn.Module):
    """The model with a head that says, in the middle of it, which objects a name means: thrown away afterwards."""

    def __init__(self, model: LlavaForConditionalGeneration, size: Size) -> None:
        super().__init__()
        self.model = model
        self.points = nn.Linear(size.text_width, MOST)


def loss_of(
    model: LlavaForConditionalGeneration, seen: Tensor, given: Told, user: int, points: nn.Module | None = None
) -> tuple[Tensor, dict[str, float]]:
    """The weighted cross-entropy of the answers, and with `points` that of which objects are meant by a name.

    seen: [n, SEEN, width] of the tower; user: the token before it.
    """
    inner = model.model
    table = inner.get_input_embeddings()
    count = len(given.ids)
    before = table(torch.full((count, 1), user))
    told_at = torch.arange(1 + SEEN).expand(count, -1)
    places = torch.cat([told_at, given.places + 1 + SEEN], 1)
    read = inner.language_model(
        inputs_embeds=torch.cat([before, inner.multi_modal_projector(seen), table(given.ids)], 1),
        attention_mask=mask_of(given.turn),
        position_ids=places,
        use_cache=False,
        output_hidden_states=points is not None,
    )
    asked = given.wanted >= 0
    logits = model.lm_head(read.last_hidden_state[:, 1 + SEEN :][asked])
    wanted, weight = given.wanted[asked], given.weight[asked]
    each = functional.cross_entropy(logits, wanted, reduction="none")
    right = (logits.argmax(1) == wanted).float()
    loss, numbers = (each * weight).sum() / weight.sum(), {"right": float(right.mean())}
    if points is not None:
        named = given.points[..., 0] >= 0
        middle = read.hidden_states[len(read.hidden_states) // 2][:, 1 + SEEN :][named]
        said, meant = points(middle), given.points[named].float()
        loss = loss + functional.binary_cross_entropy_with_logits(said, meant, pos_weight=said.new_tensor(3.0))
        numbers["pointed"] = float(((said > 0) == (meant > 0)).all(-1).float().mean())
    return loss, numbers


class Drawn:
    """Batches of turns, made ahead by another process."""

    def __init__(
        self,
        about: list[Scene | Table],
        rows: Callable[[int], Tensor],
        count: int,
        words: Tokenizer,
        lesson: Lesson,
    ) -> None:
        context = multiprocessing.get_context("fork")
        self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_remember, initargs=(about, words))
        self._rows, self._count, self._lesson = rows, count, lesson
        self._made: dict[int, Future[Told]] = {}

    def __call__(self, step: int) -> tuple[Tensor, Told]:
        """The rows of a step, and what is said of them."""
        for ahead in range(step, step + AHEAD):
            if ahead not in self._made:
                rows = self._rows(ahead).tolist()
                seeds = [ahead * 1_000 + place for place in range(len(rows))]
                self._made[ahead] = self._pool.submit(
                    _told, rows, seeds, self._count, self._lesson, ahead % self._lesson.talk_every == 0
                )
        made = self._made.pop(step).result()
        return self._rows(step), made

    def close(self) -> None:
        """End the other process."""
        self._pool.shutdown(cancel_futures=True)


_KNOWN: list[tuple[list[Scene | Table], Tokenizer]] = []


def _remember(about: list[Scene | Table], words: Tokenizer) -> None:
    torch.set_num_threads(1)
    _KNOWN[:] = [(about, words)]


def _told(rows: list[int], seeds: list[int], count: int, lesson: Lesson, talk: bool) -> Told:
    about, words = _KNOWN[0]
    return told([about[row] for row in rows], seeds, count, words, lesson, talk=talk)


def taught(
    size: Size, pictures: Pictures, tower: CLIPVisionModel, words: Tokenizer, folder: Path, seed: int
) -> tuple[LlavaForConditionalGeneration, dict[str, dict[str, float]]]:
    """The trained model, on top of what the tower sees.

    First it learns to talk: captions, the game's turns and questions together. Then mostly short questions, which are
    cheap, and which it is slow to learn: what they ask for stands behind an object that has to be found first. So a
    head in the middle of the model is asked, wherever a name ends, which of the objects have that name. Then it
    practises, with a new head, what holds many names against the picture: counts, lists, votes.
    """
    torch.manual_seed(seed)
    model = built(size, words, tower)
    model.model.vision_tower.requires_grad_(False)
    seen = cache(lambda: features(tower, pictures))  # not where all is learned already
    stages = (("sprite", size.sprite, TALK), ("answers", size.answers, ANSWERS), ("practice", size.practice, PRACTICE))
    return model, {
        name: lesson_taught(name, model, size, stage, lesson, pictures, seen, words, folder, seed + number)
        for number, (name, stage, lesson) in enumerate(stages)
    }


def lesson_taught(
    name: str,
    model: LlavaForConditionalGeneration,
    size: Size,
    stage: Stage,
    lesson: Lesson,
    pictures: Pictures,
    seen: Callable[[], Tensor],
    words: Tokenizer,
    folder: Path,
    seed: int,
) -> dict[str, float]:
    """Train the model, in place, for one stage; names point in all but the first. What was logged last."""
    rows = shuffles(len(pictures), stage.batch, seed)
    drawn = Drawn(pictures.about, rows, size.turns, words, lesson)
    trained = model if lesson is TALK else Pointing(model, size)
    head = trained.points if isinstance(trained, Pointing) else None

    def loss(batch: tuple[Tensor, Told]) -> tuple[Tensor, dict[str, float]]:
        chosen, given = batch
        return loss_of(model, seen()[chosen].float(), given, words.token_to_id(USER), head)

    try:
        return train(trained, stage, drawn, loss, folder, name)
    finally:
        drawn.close()
