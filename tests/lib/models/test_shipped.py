"""The models in the package are what their cards say, and do as well on pictures of these tests."""

import hashlib
import json
from pathlib import Path

import pytest

from toolroll.models.base import Sampling
from toolroll.models.load import find_model
from toolroll.models.pictures import Request
from toolroll.preference.mentions import Scenes, compared
from toolroll.spygame import parse
from toolroll.world.clevr import scene_json
from toolroll.world.draws import Draws
from toolroll.world.game import clue_turn, vote_turn
from toolroll.world.images import png
from toolroll.world.place import drawn_scene
from toolroll.world.questions import QUESTIONS, VALUES, description, questions_about
from toolroll.world.render import render

LIMITS = {"sprite": 16_000_000, "glance": 4_000_000}  # bytes of a folder
SIZE = (320, 240)
KINDS = [kind for kind in QUESTIONS if kind not in ("caption", "list")]
ATTRIBUTES = ("color", "shape", "size", "material")


def scores(name):
    return json.loads((Path(find_model(name, print)) / "training.json").read_text())["scores"]


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scenes")
    found = []
    for seed in range(40):
        scene = drawn_scene(Draws(seed), 3 + seed % 4, *SIZE)
        path = folder / f"{seed}.png"
        path.write_bytes(png(render(scene, *SIZE)))
        found.append((scene, path))
    return found


@pytest.fixture(scope="module")
def sprite():
    from toolroll.models.open import open_image_text

    engine = open_image_text(device="cpu")  # what stands in where no model is named
    yield engine
    engine.close()


def answers(engine, asked, *, room=16):
    requests = [
        Request([{"role": "user", "content": turn.question}], Sampling(max_tokens=room), [path]) for turn, path in asked
    ]
    return [reply.text for reply in engine.answer(requests)]


def share(values):
    values = list(values)
    return sum(values) / len(values)


@pytest.mark.parametrize("name", LIMITS)
def test_the_card_names_the_weights_and_their_folder_is_small(name):
    folder = Path(find_model(name, print))
    digest = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    assert digest in (folder / "README.md").read_text()
    assert sum(file.stat().st_size for file in folder.iterdir()) <= LIMITS[name]


def test_sprite_is_an_image_text_model_to_transformers():
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder = find_model("sprite", print)
    model, processor = AutoModelForImageTextToText.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
    assert 3e6 <= model.num_parameters() <= 8e6
    messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
    assert processor.apply_chat_template(messages, add_generation_prompt=True).count("<image>") == 1


def test_sprite_answers_questions(sprite, scenes):
    asked = [(turn, path) for scene, path in scenes for turn in questions_about(scene, Draws(7), KINDS)]
    right = [(turn.kind, reply == turn.answer) for (turn, _), reply in zip(asked, answers(sprite, asked), strict=True)]
    card = scores("sprite")
    assert share(good for _, good in right) > card["answers"] - 0.08
    assert share(good for kind, good in right if kind in ATTRIBUTES) > card["attributes"] - 0.08


def test_sprite_describes_scenes(sprite, scenes):
    replies = answers(sprite, [(description(scene), path) for scene, path in scenes], room=100)
    f1 = [
        compared(Scenes(), reply, scene_json(scene, *SIZE)["objects"]).scores()["f1"] or 0.0
        for (scene, _), reply in zip(scenes, replies, strict=True)
    ]
    assert share(f1) > scores("sprite")["caption F1"] - 0.08


def test_sprite_plays(sprite, scenes):
    clues = answers(sprite, [(clue_turn(scene, Draws(3)), path) for scene, path in scenes], room=40)
    assert share(parse.clue(parse.answer(reply)) is not None for reply in clues) > 0.95
    asked = [(vote_turn(scene, Draws(seed)), path) for seed, (scene, path) in enumerate(scenes)]
    replies = answers(sprite, asked, room=80)
    votes = [parse.vote(parse.answer(reply), range(1, 6)) for reply in replies]
    assert None not in votes  # each is a player or an abstention
    right = [
        parse.answer(reply).text == parse.answer(turn.answer).text
        for reply, (turn, _) in zip(replies, asked, strict=True)
    ]
    assert share(right) > scores("sprite")["vote"] - 0.15


def test_sprite_tells_one_picture_from_another(sprite, scenes):
    (scene, path), (_, other) = scenes[0], scenes[1]
    turn = description(scene)
    assert len(set(answers(sprite, [(turn, path), (turn, other)], room=100))) == 2


@pytest.mark.parametrize("kind", ["color", "shape", "object"])
def test_glance_ranks_true_above_false(scenes, kind):
    import torch
    from PIL import Image

    from toolroll.models.device import choose_device
    from toolroll.preference.encoders import open_encoder
    from toolroll.world.questions import absent
    from toolroll.world.words import described

    encoder = open_encoder("glance", choose_device("cpu"))
    images = encoder.images([Image.open(path) for _, path in scenes])
    draws = Draws(11)
    of, texts = [], []
    for number, (scene, _) in enumerate(scenes):
        for solid in scene.solids:
            other = absent(scene, draws)
            if kind != "object":
                value = draws.pick([one for one in VALUES[kind] if one != getattr(solid, kind)])
                other = solid.but(**{kind: value})
            if other.looks in {one.looks for one in scene.solids}:
                continue
            of.append(number)
            texts += [f"There is {described(solid)}.", f"There is {described(other)}."]
    vectors = encoder.texts([encoder.encode(text) for text in texts]).view(len(of), 2, -1)
    cosines = torch.einsum("pkd,pd->pk", vectors, images[of])
    assert share((cosines[:, 0] > cosines[:, 1]).tolist()) > scores("glance")[kind] - 0.06
