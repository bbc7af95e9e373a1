"""The commands that make the models in the package: whole, at a tiny size, and stopped in the middle."""

import dataclasses
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

MODELS = Path(__file__).parents[3] / "models"


@pytest.fixture
def recipe(monkeypatch):
    """The modules of the recipe, by name; they go by their bare names only in here."""
    monkeypatch.syspath_prepend(str(MODELS))
    before = set(sys.modules)
    yield importlib.import_module
    for name in {path.stem for path in MODELS.glob("*.py")} - before:
        sys.modules.pop(name, None)


def test_a_stage_that_was_stopped_ends_as_one_that_was_not(recipe, tmp_path, monkeypatch):
    import torch

    stages, sizes = recipe("stages"), recipe("sizes")
    monkeypatch.setattr(stages, "SAVE_EVERY", 0.0)
    stage = sizes.Stage(6, 2, 1e-2)
    points = torch.randn(6, 2, 4, generator=torch.Generator().manual_seed(0))

    def trained(cache, *, fails_at=None):
        cache.mkdir(exist_ok=True)
        torch.manual_seed(0)
        model = torch.nn.ModuleDict({"layers": torch.nn.Linear(4, 4), "head": torch.nn.Linear(4, 1)})

        def batch(step):
            if step == fails_at:
                raise KeyboardInterrupt
            return points[step]

        def loss(given):
            return model["head"](model["layers"](given).tanh()).square().mean(), {}

        logged = stages.train(model, stage, batch, loss, cache, "stage")
        return {name: value.clone() for name, value in model.state_dict().items()}, logged

    whole, logged = trained(tmp_path / "whole")
    assert logged["step"] == 6
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "stopped", fails_at=4)
    went_on, _ = trained(tmp_path / "stopped")
    assert whole.keys() == went_on.keys()
    assert all(torch.equal(whole[name], went_on[name]) for name in whole)
    again, _ = trained(tmp_path / "stopped", fails_at=0)  # it is done: no batch is asked for
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_turns_of_a_row_do_not_see_each_other(recipe):
    """Each turn's loss in a row with others is that of the turn alone."""
    import torch

    sprite, sizes, words = recipe("sprite"), recipe("sizes"), recipe("words")
    from toolroll.world.draws import Draws
    from toolroll.world.place import drawn_scene

    scenes = [drawn_scene(Draws(seed), 3, 96, 72) for seed in range(3)]
    learned = words.learned(scenes)
    torch.manual_seed(0)
    model = sprite.built(sizes.TINY, learned).eval()
    user = learned.token_to_id(words.USER)
    seen = torch.randn(1, sprite.SEEN, sizes.TINY.width)
    row = sprite.told(scenes[:1], [5], 6, learned)
    together, alone = [], []
    for turn in range(int(row.turn.max()) + 1):
        others = row.turn != turn
        one = dataclasses.replace(row, wanted=row.wanted.masked_fill(others, -1))
        together.append(float(sprite.loss_of(model, seen, one, user)[0].detach()))
        kept = ~others[0]
        cut = sprite.Told(**{field.name: getattr(row, field.name)[:, kept] for field in dataclasses.fields(row)})
        alone.append(float(sprite.loss_of(model, seen, cut, user)[0].detach()))
    assert len(together) > 3
    assert together == pytest.approx(alone, abs=1e-5)


def test_a_row_is_what_the_processor_makes_of_the_chat(recipe):
    sprite, words = recipe("sprite"), recipe("words")
    from PIL import Image
    from turns import turns_of

    from toolroll.models.vision import chat_text, processed
    from toolroll.world.draws import Draws
    from toolroll.world.place import drawn_scene

    scenes = [drawn_scene(Draws(seed), 3, 96, 72) for seed in range(3)]
    learned = words.learned(scenes)
    row = sprite.told(scenes[:1], [5], 6, learned)
    asked = turns_of(scenes[0], Draws(5), 6)[0]
    content = [{"type": "image"}, {"type": "text", "text": asked.question}]
    processor = sprite.processor(learned)
    ids, _ = processed(
        processor, chat_text(processor, [{"role": "user", "content": content}]), [Image.new("RGB", (64, 48))]
    )
    first = row.turn[0] == 0
    count = len(ids) - 1 - sprite.SEEN
    assert ids == [learned.token_to_id(words.USER), *[learned.token_to_id(words.IMAGE)] * sprite.SEEN, *ids[-count:]]
    assert row.ids[0][first].tolist()[:count] == ids[-count:]
    assert learned.decode(row.ids[0][first].tolist()[count:-1]) == asked.answer


def test_a_name_points_to_the_objects_that_have_it(recipe):
    sprite, words = recipe("sprite"), recipe("words")
    from toolroll.world.draws import Draws
    from toolroll.world.place import drawn_scene

    scene = drawn_scene(Draws(1), 3, 96, 72)
    looks = [{"color": "red", "shape": "cube"}, {"color": "red", "shape": "sphere"}, {"color": "blue", "shape": "cube"}]
    scene = scene.with_solids([solid.but(**one) for solid, one in zip(scene.solids, looks, strict=True)])
    learned = words.learned([scene])
    text = "Is there a red cube? Two red objects and a cube, no green sphere."
    found = list(sprite.pointed(scene, text, learned))
    ends = [text[: learned.encode(text).offsets[place][1]].split()[-1] for place, _ in found]
    assert ends == ["cube", "objects", "cube", "sphere"]
    assert [fits[:3] for _, fits in found] == [[1, 0, 0], [1, 1, 0], [1, 0, 1], [0, 0, 0]]


def test_what_patches_show(recipe):
    import numpy as np

    data, sizes = recipe("data"), recipe("sizes")
    image, looks, places, owners, anchors, charts, scene = data.scene_parts(3, (128, 96), 4)
    assert image.shape == (sizes.SIDE, sizes.SIDE, 3)
    assert (charts == -1).all()
    assert (looks[:4] >= 0).all()
    assert (looks[4:] == -1).all()
    assert list(places[:4, 0]) == sorted(places[:4, 0])  # numbered from the left
    for number, solid in enumerate(scene.solids):
        assert data.LOOKS[1][looks[number, 1]] == solid.color
        row, column = divmod(int(anchors[number]), sizes.GRID)
        assert owners[anchors[number]] == number
        assert (
            np.hypot((column + 0.5) / sizes.GRID - places[number, 0], (row + 0.5) / sizes.GRID - places[number, 1])
            < 0.2
        )


def test_sentences_fit_as_their_words_say(recipe):
    import numpy as np

    data, sentences = recipe("data"), recipe("sentences")
    from toolroll.world.draws import Draws
    from toolroll.world.game import fits

    rows = [data.scene_parts(seed, (96, 72), 4) for seed in range(6)]
    scenes, looks = [row[6] for row in rows], np.stack([row[1] for row in rows])
    texts = [text for seed, scene in enumerate(scenes) for both in sentences.pairs(scene, Draws(seed)) for text in both]
    found = sentences.fitting(np.stack([sentences.codes(text) for text in texts]), looks)
    assert found.tolist() == [[fits(text, scene) for text in texts] for scene in scenes]
    for seed, scene in enumerate(scenes):
        for good, bad in sentences.pairs(scene, Draws(seed)):
            assert (fits(good, scene), fits(bad, scene)) == (True, False)


def test_the_whole_recipe_at_a_tiny_size(tmp_path):
    from transformers import AutoModel, AutoModelForImageTextToText, AutoProcessor

    argv = [
        sys.executable,
        MODELS / "make.py",
        "--size",
        "tiny",
        "--cache",
        tmp_path / "cache",
        "--out",
        tmp_path / "out",
    ]
    subprocess.run([*map(str, argv), "--threads", "1", "--until", "tower"], check=True, capture_output=True)
    subprocess.run([*map(str, argv), "--threads", "1"], check=True, capture_output=True)
    for name, kind in (("sprite", AutoModelForImageTextToText), ("glance", AutoModel)):
        folder = tmp_path / "out" / name
        assert kind.from_pretrained(folder).num_parameters() > 10_000
        AutoProcessor.from_pretrained(folder)
        record = json.loads((folder / "training.json").read_text())
        assert record["training"][name]["step"] == 4
        assert "python models/make.py" in (folder / "README.md").read_text()
