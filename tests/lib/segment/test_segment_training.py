"""Prompts drawn for training, the loss, and a training that goes on after a stop."""

from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
import torch

from toolroll.errors import UsageError
from toolroll.segment.decoder import Outputs
from toolroll.segment.losses import Targets, Weights, Whole, loss_of
from toolroll.segment.sampling import Asking, Drawer, batch_of, choose, read_asking
from toolroll.segment.scenes import Settings, open_scenes

EACH = {"report_every": 1, "save_every": 2}
CLASSES = (("sky",), ("road", "street"), ("car",), ("tree",), ("dog",), ("cat",))


def test_prompts_vary():
    draws = np.random.default_rng(0)
    asked = [choose(CLASSES, ["sky", "road", "car"], Asking(2, 4, 0.3), draws) for _ in range(300)]
    assert {len(one) for one in asked} == {2, 3, 4}
    names = [{words[0] for words in one} for one in asked]
    assert all(one & {"sky", "road", "street", "car"} for one in names)  # something that is there
    assert {"street", "road", "tree"} <= set().union(*names)
    assert 0.2 < sum("sky" not in one for one in names) / 300 < 0.6
    assert all(len(one) == len(words) for one, words in zip(names, asked, strict=True))


def test_all_is_the_list_in_its_order():
    draws = np.random.default_rng(0)
    assert choose(CLASSES, ["sky"], read_asking("all", 0.3), draws) == CLASSES
    assert choose(CLASSES, [], Asking(2, 2, 0.3), draws)  # of an image without any, absent ones


@pytest.mark.parametrize("text", ["", "0", "4-2", "some", "-3"])
def test_numbers_of_prompts_that_cannot_be(text):
    with pytest.raises(UsageError):
        read_asking(text, 0.3)


def test_what_was_left_out_is_not_to_be_found():
    scenes = open_scenes("shapes:1", Settings())
    drawer = Drawer([scenes], Asking(1, 6, 0.5), (64, 64), 0)
    examples = drawer.draw(1, range(12))
    assert [one.prompts for one in examples] == [one.prompts for one in drawer.draw(1, range(12))]
    assert [one.prompts for one in examples] != [one.prompts for one in drawer.draw(2, range(12))]
    images, prompts, targets = batch_of(examples)
    assert images.shape == (12, 3, 64, 64)
    assert targets.masks.shape[2:] == (16, 16)
    for one, number, words in zip(examples, targets.numbers, prompts, strict=True):
        assert len(one.labels) == number <= len(words)
        assert len(set(one.labels)) == number
        assert float(one.masks.amax()) > 0.5


def perfect(targets, layers=2, queries=4, void=3):
    batch = len(targets.labels)
    masks = torch.full((layers, batch, queries, *targets.masks.shape[2:]), -12.0)
    classes = torch.zeros(layers, batch, queries, void + 1)
    classes[..., void] = 24.0
    for picture, number in enumerate(targets.numbers):
        for segment in range(number):
            masks[:, picture, queries - 1 - segment] = targets.masks[picture, segment] * 24 - 12
            classes[:, picture, queries - 1 - segment] = 0
            classes[:, picture, queries - 1 - segment, targets.labels[picture, segment]] = 24.0
    return Outputs(classes, masks)


def some_targets():
    masks = torch.zeros(2, 2, 8, 8)
    masks[0, 0, :4] = masks[0, 1, 4:] = masks[1, 0, :, :4] = 1
    return Targets(torch.tensor([[0, 2], [1, 0]]), masks, [2, 1], torch.ones(2, 8, 8))


def test_the_loss_of_what_is_right_is_nothing():
    targets = some_targets()
    outputs = perfect(targets)
    loss, parts = loss_of(outputs, targets, Weights(), torch.Generator())
    assert float(loss) < 1e-2
    assert parts["dice_loss"] < 1e-3
    wrong = Outputs(outputs.classes, -outputs.masks)
    assert float(loss_of(wrong, targets, Weights(), torch.Generator())[0]) > 50


def test_parts_add_up_to_the_whole():
    targets = some_targets()
    torch.manual_seed(0)
    outputs = Outputs(torch.randn(2, 2, 4, 4), torch.randn(2, 2, 4, 8, 8))
    both, _ = loss_of(outputs, targets, Weights(), torch.Generator())
    parts = []
    for one in range(2):
        own = slice(one, one + 1)
        part = Targets(targets.labels[own], targets.masks[own], targets.numbers[own], targets.counted[own])
        said = Outputs(outputs.classes[:, own], outputs.masks[:, own])
        parts.append(loss_of(said, part, Weights(), torch.Generator(), Whole(2, 3))[0])
    assert float(sum(parts)) == pytest.approx(float(both), rel=1e-6)


def test_points_are_near_all_pixels():
    targets = some_targets()
    torch.manual_seed(0)
    outputs = Outputs(torch.randn(2, 2, 4, 4), torch.randn(2, 2, 4, 8, 8))
    full, _ = loss_of(outputs, targets, Weights(), torch.Generator())
    some, _ = loss_of(outputs, targets, Weights(points=60), torch.Generator().manual_seed(0))
    assert float(some) == pytest.approx(float(full), rel=0.3)
    assert float(loss_of(outputs, targets, Weights(focal=True), torch.Generator())[0]) != float(full)


def test_a_batch_without_segments_teaches_nothing_about_masks():
    targets = Targets(torch.zeros(1, 1, dtype=torch.long), torch.zeros(1, 1, 8, 8), [0], torch.ones(1, 8, 8))
    outputs = Outputs(torch.randn(2, 1, 4, 4, requires_grad=True), torch.randn(2, 1, 4, 8, 8, requires_grad=True))
    loss, parts = loss_of(outputs, targets, Weights(), torch.Generator())
    loss.backward()
    assert parts["mask_loss"] == 0
    assert float(outputs.masks.grad.abs().max()) == 0
    assert float(outputs.classes.grad.abs().max()) > 0


def test_more_segments_than_queries():
    targets = some_targets()
    outputs = Outputs(torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 1, 8, 8))
    loss, _ = loss_of(outputs, targets, Weights(), torch.Generator())
    assert torch.isfinite(loss)


def test_pixels_that_are_not_known_change_nothing():
    targets = some_targets()
    torch.manual_seed(0)
    outputs = Outputs(torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 8, 8))
    counted = torch.ones(2, 8, 8)
    counted[:, 3:5] = 0
    known = Targets(targets.labels, targets.masks, targets.numbers, counted)
    other = Outputs(outputs.classes, outputs.masks.clone())
    other.masks[..., 3:5, :] = 30.0
    one, two = (loss_of(said, known, Weights(), torch.Generator())[0] for said in (outputs, other))
    assert torch.allclose(one, two)


class TestTraining:
    def training(self, folder, steps=4):
        from toolroll.segment.model import About, Segmenter, Shape
        from toolroll.segment.text import Reader, open_text
        from toolroll.segment.training import Plan, Training
        from toolroll.train.team import Team

        torch.manual_seed(0)
        shape = Shape(width=32, queries=3, layers=1, heads=2, inner=32, stages=(8, 8, 8, 8))
        drawer = Drawer([open_scenes("shapes:1", Settings(width=32, height=32))], Asking(1, 3), (32, 32), 0)
        plan = Plan(steps=steps, batch=2)
        about = About(shape=shape)
        made = Training(Segmenter(shape), about, plan, drawer, Reader(open_text("lexicon")), Team("cpu"), folder)
        made.resume({"steps": steps, "lr": 1}, frozenset({"steps"}), lambda _: None)
        return made

    def test_it_goes_on_as_if_it_had_not_been_stopped(self, tmp_path):
        straight = self.training(tmp_path / "a")
        rows = list(straight.rows(lambda: False, **EACH))
        assert [row["step"] for row in rows] == [1, 2, 3, 4]
        assert rows[-1]["lr"] < rows[1]["lr"]
        first = self.training(tmp_path / "b")
        assert list(islice(first.rows(lambda: False, **EACH), 3)) == rows[:3]  # killed behind 3, saved at 2
        second = self.training(tmp_path / "b")
        assert second.step == 2
        stop = []
        for row in second.rows(lambda: bool(stop), **EACH):
            assert row == rows[2]
            stop.append("a signal")
        second = self.training(tmp_path / "b")
        assert second.step == 3
        assert list(second.rows(lambda: False, **EACH)) == rows[3:]
        one, other = straight.fit.model.state_dict(), second.fit.model.state_dict()
        assert all(torch.equal(one[name], other[name]) for name in one)

    def test_a_folder_without_a_state(self, tmp_path):
        from toolroll.errors import ToolrollError

        list(self.training(tmp_path, steps=2).rows(lambda: False, **EACH))
        (tmp_path / "state/current").unlink()
        with pytest.raises(ToolrollError, match="no state to go on from"):
            self.training(tmp_path, steps=2)

    def test_a_kill_between_the_checkpoint_and_the_model(self, tmp_path):
        """At the last update nothing is saved again, so that the model has to be made up for."""
        model = tmp_path / "model.safetensors"
        list(islice(self.training(tmp_path).rows(lambda: False, **EACH), 2))
        early = model.read_bytes()
        list(self.training(tmp_path).rows(lambda: False, **EACH))
        whole = model.read_bytes()
        model.write_bytes(early)
        assert list(self.training(tmp_path).rows(lambda: False, **EACH)) == []
        assert model.read_bytes() == whole != early

    def test_it_learns(self, tmp_path):
        rows = list(self.training(tmp_path, steps=60).rows(lambda: False, report_every=20, save_every=60))
        assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
