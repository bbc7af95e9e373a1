"""Photos: as their pixels lie in the file, of all kinds; masks; and a cache that keeps to its limit."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from toolroll.errors import ToolrollError
from toolroll.splat.drawn import write_scene
from toolroll.splat.lenses import straighten, straightened
from toolroll.splat.photos import Photos, load_mask, load_photo, mask_size, photo_size
from toolroll.splat.scene import Lens, Shot

PIXELS = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3


def save(path, pixels, **settings):
    Image.fromarray(np.asarray(pixels)).save(path, **settings)
    return path


def shot(path, width, height, **more):
    return Shot(path.name, path, np.eye(4), Lens("PINHOLE", width, height, 5, 5, width / 2, height / 2), **more)


def test_an_orientation_is_not_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    path = save(tmp_path / "p.png", PIXELS, exif=exif)
    assert photo_size(path) == (6, 4)
    pixels, alpha = load_photo(path)
    assert alpha is None
    assert pixels.dtype == np.float32
    assert np.array_equal(np.rint(pixels * 255), PIXELS)


def test_portrait(tmp_path):
    path = save(tmp_path / "p.png", PIXELS.transpose(1, 0, 2))
    assert photo_size(path) == (4, 6)
    assert load_photo(path)[0].shape == (6, 4, 3)


def test_alpha_is_given_or_blended(tmp_path):
    alpha = np.full((4, 6, 1), 255, np.uint8)
    alpha[0, 0], alpha[0, 1] = 0, 51
    path = save(tmp_path / "p.png", np.concatenate([PIXELS, alpha], -1))
    pixels, found = load_photo(path)
    assert found[0, :3] == pytest.approx([0, 0.2, 1])
    assert np.array_equal(np.rint(pixels * 255), PIXELS)
    blended, none = load_photo(path, background=(1.0, 0.5, 0.0))
    assert none is None
    assert blended[0, 0] == pytest.approx([1, 0.5, 0])
    assert blended[0, 1] == pytest.approx(0.2 * PIXELS[0, 1] / 255 + 0.8 * np.array([1, 0.5, 0]))


def test_sixteen_bits(tmp_path):
    values = np.array([[0, 1000, 65535]], np.uint16)
    pixels, _ = load_photo(save(tmp_path / "p.png", values))
    assert pixels.shape == (1, 3, 3)
    assert pixels[0, :, 1] == pytest.approx([0, 1000 / 65535, 1])
    photos = Photos([shot(tmp_path / "p.png", 3, 1)])
    assert photos[0].pixels[0, :, 0] == pytest.approx([0, 4 / 255, 1])  # eight bits, in memory or not


def test_grey_palettes_and_others(tmp_path):
    grey = np.array([[0, 128, 255]], np.uint8)
    assert load_photo(save(tmp_path / "g.png", grey))[0][0, :, 2] == pytest.approx([0, 128 / 255, 1])
    assert load_photo(save(tmp_path / "one.png", grey > 100))[0][0, :, 0].tolist() == [0, 1, 1]
    bands = [Image.fromarray(grey), Image.fromarray(np.array([[255, 0, 255]], np.uint8))]
    Image.merge("LA", bands).save(tmp_path / "la.png")
    assert load_photo(tmp_path / "la.png")[1].tolist() == [[1, 0, 1]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "p.png")
    assert np.rint(load_photo(tmp_path / "p.png")[0] * 255).tolist() == [[[10, 20, 30], [40, 50, 60]]]
    palette.save(tmp_path / "t.png", transparency=0)
    assert load_photo(tmp_path / "t.png")[1].tolist() == [[0, 1]]
    Image.new("CMYK", (2, 1), (0, 255, 255, 0)).save(tmp_path / "c.jpg")
    assert load_photo(tmp_path / "c.jpg")[0][0, 0] == pytest.approx([1, 0, 0], abs=0.03)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "the file is empty"),
        (b"\x80\x04pickle", "not an image"),
        ("cut.png", "image file is truncated"),
        ("cut.jpg", "image file is truncated"),
        ("folder", "Is a directory"),
    ],
)
def test_photos_that_are_none(data, why, tmp_path):
    path = tmp_path / "p.png"
    if data in ("cut.png", "cut.jpg"):
        noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
        whole = save(tmp_path / data, noise).read_bytes()
        path.write_bytes(whole + bytes(5000))  # what is behind the end says nothing
        assert photo_size(path) == mask_size(path) == (40, 40)
        path.write_bytes(whole[:1200])
    elif data == "folder":
        path.mkdir()
    else:
        path.write_bytes(data)
    for read in (load_photo, photo_size, mask_size):
        with pytest.raises(ToolrollError) as error:
            read(path)
        assert str(error.value).startswith(f"{path}: {why}")
        assert "\n" not in str(error.value)


def test_floats_are_refused(tmp_path):
    Image.fromarray(np.ones((2, 2), np.float32)).save(tmp_path / "f.tif")
    for read in (load_photo, photo_size):
        with pytest.raises(ToolrollError, match="whose range is not known"):
            read(tmp_path / "f.tif")
    assert load_mask(tmp_path / "f.tif", 2, 2).all()


def test_masks(tmp_path):
    grey = save(tmp_path / "m.png", np.array([[0, 1], [255, 0]], np.uint8))
    assert load_mask(grey, 2, 2).tolist() == [[False, True], [True, False]]
    assert load_mask(grey, 4, 2).tolist() == [[False, False, True, True], [True, True, False, False]]
    assert load_mask(save(tmp_path / "b.png", np.array([[False, True]])), 2, 1).tolist() == [[False, True]]
    assert load_mask(save(tmp_path / "w.png", np.array([[0, 300]], np.uint16)), 2, 1).tolist() == [[False, True]]
    colour = np.array([[[0, 0, 0], [0, 0, 9]]], np.uint8)
    assert load_mask(save(tmp_path / "c.png", colour), 2, 1).tolist() == [[False, True]]
    assert load_mask(save(tmp_path / "d.png", np.minimum(colour, 1)), 2, 1).tolist() == [[False, True]]
    Image.fromarray(colour).convert("LAB").save(tmp_path / "lab.tif")
    assert load_mask(tmp_path / "lab.tif", 2, 1).shape == (1, 2)
    cut = np.array([[[9, 9, 9, 0], [9, 9, 9, 255]]], np.uint8)
    assert load_mask(save(tmp_path / "a.png", cut), 2, 1).tolist() == [[False, True]]


def test_a_mask_and_alpha_count_together(tmp_path):
    alpha = np.array([[255, 255, 0], [127, 128, 255]], np.uint8)
    pixels = np.concatenate([np.full((2, 3, 3), 50, np.uint8), alpha[..., None]], -1)
    path = save(tmp_path / "p.png", pixels)
    mask = save(tmp_path / "m.png", np.array([[0, 9, 9], [9, 9, 9]], np.uint8))
    assert Photos([shot(path, 3, 2)])[0].mask.tolist() == [[True, True, False], [False, True, True]]
    assert Photos([shot(path, 3, 2, mask=mask)])[0].mask.tolist() == [[False, True, False], [False, True, True]]
    assert Photos([shot(path, 3, 2)], background=(0, 0, 0))[0].mask is None
    pixels[..., 3] = 255
    assert Photos([shot(save(path, pixels), 3, 2)])[0].mask is None


def test_a_photo_of_another_size_than_its_lens(tmp_path):
    path = save(tmp_path / "p.png", PIXELS)
    with pytest.raises(ToolrollError, match=r"p\.png: 6 x 4 pixels, not 4 x 6"):
        Photos([shot(path, 4, 6)])[0]


def test_the_cache_keeps_to_its_limit_and_changes_nothing(tmp_path, monkeypatch):
    scene = write_scene(tmp_path, shots=4, size=(24, 16))
    one = 24 * 16 * 3
    small, large = Photos(scene.shots, 2 * one + 5), Photos(scene.shots)
    reads = []
    read = Photos._read
    monkeypatch.setattr(Photos, "_read", lambda self, shot: reads.append(shot.name) or read(self, shot))
    for _ in range(2):
        for number in range(4):
            assert np.array_equal(small[number].pixels, large[number].pixels)
    assert (small.kept, large.kept) == (2, 4)
    assert len(reads) == 4 + 4 + 2  # the small one reads two of them twice
    assert small[0].pixels.dtype == np.float32
    assert small[0].pixels.max() <= 1


def test_photos_are_straightened(tmp_path):
    scene = write_scene(tmp_path, shots=2, size=(48, 32), lens="OPENCV")
    photos = Photos(scene.shots)
    assert photos.lenses == [straightened(scene.shots[0].lens)] * 2
    with Image.open(scene.shots[1].path) as image:
        raw = np.asarray(image)
    assert np.array_equal(np.rint(photos[1].pixels * 255), straighten(raw, scene.shots[1].lens))
    assert not np.array_equal(np.rint(photos[1].pixels * 255), raw)
