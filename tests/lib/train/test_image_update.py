"""Updates of a policy that sees images: the rows that image-text engines leave, and the loss on them."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import tiny_pairs
import training

from toolroll.errors import RowError
from toolroll.models.base import Sampling
from toolroll.models.device import Device
from toolroll.models.pictures import Request
from toolroll.models.pictures_hf import HFPictures
from toolroll.models.vision import load_image_text
from toolroll.train.objective import Objective
from toolroll.train.options import TrainOptions
from toolroll.train.sample import Demands
from toolroll.train.setup import open_trainer
from toolroll.train.update import PolicyUpdate

torch = training.torch
OPTIONS = TrainOptions(lr=1e-2, device="cpu", weight_decay=0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_pairs.write_image_model(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    made = tmp_path_factory.mktemp("pictures")
    return {colour: tiny_pairs.picture(made / f"{colour}.png", colour) for colour in ("red", "blue", "green")}


@pytest.fixture(scope="module")
def rows(folder, pictures):
    """What an engine leaves of five turns: one or two images, or none."""
    engine = HFPictures(load_image_text(str(folder), Device("cpu", "float32", 1, "cpu")))
    asked = [["red"], ["blue", "green"], [], ["blue"], ["green"]]
    requests = [
        Request([{"role": "user", "content": f"what{'!' * i}"}], Sampling(max_tokens=3 + i, seed=i),
                [pictures[colour] for colour in colours])
        for i, colours in enumerate(asked)
    ]  # fmt: skip
    made = []
    for i, (request, said) in enumerate(zip(requests, engine.answer(requests), strict=True)):
        given = {"prompt": said.prompt, "prompt_ids": list(said.prompt_ids), "images": [*map(str, request.images)]}
        wrote = {"response_ids": list(said.ids), "loss_mask": [1] * len(said.ids), "logprobs": list(said.logprobs)}
        worth = {"advantage": 1.0 - 2 * (i % 2), "reward": None, "ref_logprobs": None}
        made.append(SimpleNamespace(id=i, image=None, image_path=None, **given, **wrote, **worth))
    return made


def demands(trainer, objective=None):
    return Demands(objective or Objective(), trainer.vocabulary, processor=trainer.processor)


def test_the_policy_gives_the_log_probabilities_it_was_sampled_with(folder, rows):
    """So the ratio of the first update is 1, whatever shares a group."""
    trainer = open_trainer(OPTIONS, str(folder))
    for micro in (16, 4096):
        objective = Objective(micro_tokens=micro)
        update = PolicyUpdate(trainer, objective)
        samples = [demands(trainer, objective).sample(row) for row in rows]
        with torch.no_grad():
            for group in update.micro([(sample, None) for sample in samples]):
                from toolroll.train.sample import padded

                batch = padded([sample for sample, _ in group], torch.device("cpu"))
                logp, _ = trainer.scorer(batch)
                for (sample, _), found in zip(group, logp, strict=True):
                    assert found[: len(sample.response)].tolist() == pytest.approx(sample.logprobs, abs=1e-4)


def test_an_update_is_that_of_one_sequence_at_a_time(folder, rows):
    """The gradient of the loss by hand, with the model's own forward for each row alone."""
    trainer = open_trainer(OPTIONS, str(folder))
    samples = [demands(trainer).sample(row) for row in rows]
    figures = PolicyUpdate(trainer, Objective(loss_norm="token")).run(samples, 1)
    twin = open_trainer(OPTIONS, str(folder)).model
    total = sum(len(sample.response) for sample in samples)
    loss = 0.0
    for sample in samples:
        ids = torch.tensor([[*sample.prompt, *sample.response]])
        logits = twin(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, **sample.features).logits
        logp = logits.log_softmax(-1)[0, len(sample.prompt) - 1 : -1].gather(-1, torch.tensor(sample.response)[:, None])
        ratio = (logp[:, 0] - torch.tensor(sample.logprobs)).exp()
        loss = loss - (ratio * sample.advantage).sum() / total
    loss.backward()
    norm = math.sqrt(sum(float(p.grad.pow(2).sum()) for p in twin.parameters() if p.grad is not None))
    assert figures["policy_loss"] == pytest.approx(float(loss.detach()), abs=1e-5)
    assert figures["grad_norm"] == pytest.approx(norm, rel=1e-3)
    assert figures["ratio_mean"] == pytest.approx(1.0, abs=1e-3)


def test_the_image_tower_learns_too(folder, rows):
    trainer = open_trainer(OPTIONS, str(folder))
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    PolicyUpdate(trainer, Objective()).run([demands(trainer).sample(row) for row in rows], 1)
    changed = {name for name, value in trainer.model.state_dict().items() if not torch.equal(value, before[name])}
    assert any("vision" in name for name in changed)
    assert any("projector" in name for name in changed)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"images": ["nowhere.png"]}, "nowhere.png: No such file"),
        ({"prompt": "other words <image>"}, "does not give `prompt_ids`"),
        ({"prompt": "no place"}, "the processor does not take the prompt|has no place for its images"),
    ],
)
def test_rows_whose_images_do_not_fit_are_refused(folder, rows, change, why):
    trainer = open_trainer(OPTIONS, str(folder))
    with pytest.raises(RowError, match=why):
        demands(trainer).sample(SimpleNamespace(**{**vars(rows[0]), **change}))


def test_a_text_model_refuses_images(rows):
    with pytest.raises(RowError, match="the model takes none"):
        Demands(Objective(), 300).sample(rows[0])


@pytest.mark.parametrize("names", [{"images": ["red.png"]}, {"images": None, "image": "red.png"}])
def test_images_are_looked_for_in_a_folder(folder, rows, pictures, names):
    trainer = open_trainer(OPTIONS, str(folder))
    named = SimpleNamespace(**{**vars(rows[0]), **names})
    found = demands(trainer).sample(named, pictures["red"].parent)
    assert torch.equal(found.features["pixel_values"], demands(trainer).sample(rows[0]).features["pixel_values"])
