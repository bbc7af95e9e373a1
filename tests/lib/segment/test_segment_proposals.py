"""Proposals read as segments, and pictures of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from toolroll.segment.overlay import colours, drawn, label_image
from toolroll.segment.predicting import Naming, crop
from toolroll.segment.proposals import Said, label_map, segments_of, selected

NONE = -30.0


def left_and_right(chances=((0.9, 0.05), (0.1, 0.8), (0.02, 0.03))):
    """Three queries: the left half, the right half, nothing; two classes."""
    classes = torch.tensor([[*row, 1 - sum(row)] for row in chances])
    masks = torch.full((3, 4, 4), NONE)
    masks[0, :, :2] = masks[1, :, 2:] = -NONE
    return Said(classes, masks, 16, 16)


@pytest.mark.parametrize("mode", ["semantic", "instance", "panoptic"])
def test_each_mode_finds_both_halves(mode):
    found = segments_of(left_and_right(), mode, 0.1, 0)
    assert [one.number for one in found] == [0, 1]
    assert found[0].score == pytest.approx(0.9, abs=0.06)
    assert found[0].mask[:, :8].all()
    assert not found[0].mask[:, 8:].any()
    assert (found[0].mask ^ found[1].mask).all()


def test_thresholds_and_limits():
    said = left_and_right()
    assert len(segments_of(said, "instance", 0.85, 0)) == 1
    assert len(segments_of(said, "instance", 0.0, 1)) == 1
    assert segments_of(said, "panoptic", 0.95, 0) == []


def test_pixels_of_no_class():
    said = left_and_right(((0.9, 0.05), (0.1, 0.3), (0.02, 0.03)))
    assert (label_map(said, 0.5)[0][:, 9:] == -1).all()
    assert len(segments_of(said, "semantic", 0.0, 0, background=0.5)) == 1


def test_one_pixel():
    said = left_and_right()
    tiny = Said(said.classes, said.masks, 1, 1)
    for mode in ("semantic", "instance", "panoptic"):
        assert all(one.mask.shape == (1, 1) for one in segments_of(tiny, mode, 0.0, 0))


def test_the_mask_of_a_prompt():
    assert selected(left_and_right()) == [0, 1]


def test_labels_and_a_legend():
    said = left_and_right()
    found = segments_of(said, "semantic", 0.0, 0)
    labels = label_image(found, 16, 16)
    assert labels[0, 0] == 1
    assert labels[0, 15] == 2
    image = Image.new("RGB", (16, 16), "white")
    page = drawn(image, found, ["sky", "road \u2014 a long name"])
    bare = drawn(image, [], ["sky", "road"])
    assert page.shape[0] > bare.shape[0] > 16
    swatches = {tuple(one) for one in page[16:, 6:18].reshape(-1, 3).tolist()}
    assert set(colours(2)) <= swatches


class Colours:
    """An encoder that knows red and blue by sight."""

    limit = 9

    def encode(self, text):
        return [ord(letter) for letter in text]

    def texts(self, windows):
        words = ["".join(map(chr, ids)) for ids in windows]
        return torch.tensor([[1.0, 0.0] if "red" in word else [0.0, 1.0] for word in words])

    def images(self, images):
        vectors = []
        for image in images:
            red, _, blue = np.asarray(image).reshape(-1, 3).mean(0)
            vectors.append([1.0, 0.0] if red > blue else [0.0, 1.0])
        return torch.tensor(vectors)


def test_an_encoder_names_masks_again():
    image = Image.new("RGB", (16, 16), "red")
    image.paste("blue", (8, 0, 16, 16))
    said = left_and_right(((0.5, 0.4), (0.5, 0.4), (0.02, 0.03)))
    prompts = (("red",), ("blue",))
    naming = Naming(Colours(), ("a {}",), ("red",), 0.8, 0.4)
    guessed = naming.guess(image, said.masks.sigmoid(), prompts)
    assert guessed[:2].argmax(1).tolist() == [0, 1]
    joined = naming.joined(said.classes, guessed, prompts)
    assert joined[:2, :2].argmax(1).tolist() == [0, 1]
    assert torch.allclose(joined.sum(1), torch.ones(3))
    assert torch.allclose(joined[:, -1], said.classes[:, -1])


def test_a_crop_shows_the_mean_around_its_mask():
    image = Image.new("RGB", (16, 16), "red")
    mask = torch.zeros(4, 4)
    assert np.asarray(crop(image, mask)).mean(axis=(0, 1)).tolist() == [255, 0, 0]
    mask[1, 1] = 1.0
    assert max(crop(image, mask).size) < 16
