"""Photos: edits within masks, what stands out, and files of every kind."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from toolroll.errors import RowError, ToolrollError
from toolroll.world.draws import Draws
from toolroll.world.edits import CannotEdit
from toolroll.world.images import Folder, png, read_mask, read_photo
from toolroll.world.inpaint import filled, whole_patches
from toolroll.world.photos import EDITS, Photo, blended, photo_of, photo_pair
from toolroll.world.regions import dilated
from toolroll.world.render import box_of
from toolroll.world.segment import find_regions, hull_area, lab_of, region_in

seeds = st.integers(0, 2**40)
BALL = (40, 30, 64, 54)  #: the box of the red ball in the drawn photo


def drawn_photo(seed=0, width=120, height=90):
    """A green, slightly noisy lawn that gets darker to the right, with a red ball and a blue box on it."""
    noise = np.random.default_rng(seed).integers(-9, 10, (height, width, 1))
    lawn = np.array([70, 140, 60]) - np.linspace(0, 30, width)[None, :, None]
    image = Image.fromarray(np.clip(lawn + noise, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse((BALL[0], BALL[1], BALL[2] - 1, BALL[3] - 1), fill=(210, 40, 40))
    draw.rectangle((85, 15, 104, 29), fill=(40, 60, 190))
    return np.array(image)


def ball_mask():
    mask = Image.new("L", (120, 90))
    ImageDraw.Draw(mask).ellipse((BALL[0], BALL[1], BALL[2] - 1, BALL[3] - 1), fill=255)
    return mask


PHOTO = drawn_photo()
MASK = np.array(ball_mask()) > 0


@pytest.fixture
def files(tmp_path):
    """The photo and the ball's mask as files."""
    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    ball_mask().save(tmp_path / "mask.png")
    return tmp_path


# --- edits


@pytest.mark.parametrize("edit", EDITS)
@given(seeds)
@settings(max_examples=5, deadline=None)
def test_outside_the_mask_no_pixel_changes(edit, seed):
    pair = photo_pair(Photo(PHOTO, [MASK], given=True), edit, Draws(seed))
    differs = (pair.original != pair.modified).any(axis=2)
    assert differs.any()
    assert np.array_equal(pair.original, PHOTO)
    (change,) = pair.changes
    assert change["box"] == list(BALL)
    if edit == "recolor":
        assert not (differs & ~MASK).any()
        assert pair.boxes == {"original": [BALL], "modified": [BALL]}
    elif edit == "remove":
        assert not (differs & ~dilated(MASK, 2)).any()
        assert pair.boxes == {"original": [BALL], "modified": []}
    else:
        left, top, right, bottom = change["now"]
        moved = np.zeros_like(MASK)
        moved[top:bottom, left:right] = MASK[BALL[1] : BALL[3], BALL[0] : BALL[2]]
        assert not (differs & ~moved).any()
        assert not (moved & MASK).any()


def test_a_removed_thing_is_gone():
    pair = photo_pair(Photo(PHOTO, [MASK], given=True), "remove", Draws(1))
    there = pair.modified[MASK].astype(int)
    assert (there[:, 1] > there[:, 0]).all()  # nothing is redder than green any more
    assert abs(there.mean(axis=0) - PHOTO[60:, 30:70].reshape(-1, 3).mean(axis=0)).max() < 15


def test_a_recoloured_thing_has_another_hue_and_keeps_its_edge_soft():
    pair = photo_pair(Photo(PHOTO, [MASK], given=True), "recolor", Draws(3))
    inner = pair.modified[36:48, 46:58].reshape(-1, 3).mean(axis=0)
    assert inner.argmax() != 0 or inner[0] < 150
    ones, zeros = np.full((5, 5, 3), 200, np.uint8), np.zeros((5, 5, 3), np.uint8)
    mask = np.zeros((5, 5), bool)
    mask[1:4, 1:4] = True
    mixed = blended(zeros, ones, mask)[..., 0]
    assert (mixed[~mask] == 0).all()
    assert mixed[2, 2] > mixed[1, 1] > 0


def test_edits_that_would_not_be_seen_are_not_made():
    flat = np.full((60, 80, 3), 128, np.uint8)
    mask = np.zeros((60, 80), bool)
    mask[20:40, 30:50] = True
    for edit in ("remove", "insert"):
        with pytest.raises(CannotEdit, match="hardly be seen"):
            photo_pair(Photo(flat, [mask], given=True), edit, Draws(0))


def test_things_that_are_too_large():
    mask = np.ones_like(MASK)
    mask[:, :3] = False
    with pytest.raises(CannotEdit, match="more than half"):
        photo_pair(Photo(PHOTO, [mask], given=True), "remove", Draws(0))
    with pytest.raises(CannotEdit, match="no room"):
        photo_pair(Photo(PHOTO, [mask], given=True), "insert", Draws(0))


def test_a_hole_gets_the_pattern_around_it():
    """Stripes go on through the hole, pixel for pixel."""
    stripes = np.zeros((60, 60, 3), np.uint8)
    stripes[:, (np.arange(60) // 4) % 2 == 1] = (200, 150, 100)
    hole = np.zeros((60, 60), bool)
    hole[22:38, 24:36] = True
    broken = stripes.copy()
    broken[hole] = 255
    assert np.array_equal(filled(broken, hole), stripes)


def test_a_hole_without_patches_around_it_is_filled_smoothly():
    image = np.full((8, 8, 3), 90, np.uint8)
    hole = np.zeros((8, 8), bool)
    hole[2:6, 2:6] = True
    assert not whole_patches(~hole).any()
    image[hole] = 7
    assert (filled(image, hole) == 90).all()
    corner = np.zeros((40, 40), bool)
    corner[:9, :9] = True
    assert filled(drawn_photo(width=40, height=40), corner).shape == (40, 40, 3)


# --- what stands out


def test_the_ball_and_the_box_stand_out():
    found = find_regions(PHOTO, 1)
    boxes = [box_of(region.mask) for region in found]
    for wanted in (BALL, (85, 15, 105, 30)):
        best = min(max(abs(a - b) for a, b in zip(box, wanted, strict=True)) for box in boxes)
        assert best <= 2
    assert [region.score for region in found] == sorted((region.score for region in found), reverse=True)
    again = find_regions(PHOTO, 1)
    assert all(np.array_equal(one.mask, other.mask) for one, other in zip(found, again, strict=True))


def test_the_thing_in_a_box():
    mask = region_in(PHOTO, (34, 24, 70, 60), 0)
    assert (mask & MASK).sum() / (mask | MASK).sum() > 0.85
    plain = region_in(np.full((60, 80, 3), 128, np.uint8), (20, 20, 40, 40), 0)
    assert box_of(plain) == (20, 20, 40, 40)
    assert plain.sum() == 400


def test_hulls():
    disc = (np.indices((21, 21)) - 10.0) ** 2
    assert hull_area(disc.sum(axis=0) <= 100) == pytest.approx(np.pi * 10.5**2, rel=0.05)
    corner = np.zeros((10, 10), bool)
    corner[:, 0] = corner[9] = True
    assert hull_area(corner) == pytest.approx(10 * 10 / 2 + 9.5, abs=1.0)


@pytest.mark.parametrize(
    ("rgb", "lab"), [((255, 0, 0), (53.24, 80.09, 67.2)), ((0, 0, 255), (32.3, 79.19, -107.86)), ((0, 0, 0), (0, 0, 0))]
)
def test_lab(rgb, lab):
    assert lab_of(np.array([[rgb]], np.uint8))[0, 0] == pytest.approx(lab, abs=0.06)


# --- files


def saved(path, image, **how):
    image.save(path, **how)
    return str(path)


def test_photos_of_every_kind_are_read(tmp_path):
    image = Image.fromarray(PHOTO)
    grey = image.convert("L")
    for name, made in {
        "palette.png": image.quantize(64),
        "palette.gif": image.quantize(64),
        "grey.png": grey,
        "cmyk.jpg": image.convert("CMYK"),
        "bits.png": grey.convert("1"),
        "wide.png": Image.fromarray(np.array(grey).astype(np.uint16) * 257),
        "alpha.png": image.convert("RGBA"),
        "photo.webp": image,
    }.items():
        found = read_photo(saved(tmp_path / name, made), 640)
        assert found.shape == PHOTO.shape
        assert found.dtype == np.uint8
        wanted = np.array(made.convert("RGB")) if name != "wide.png" else np.array(grey.convert("RGB"))
        assert np.abs(found.astype(int) - wanted).mean() < (12 if name in ("cmyk.jpg", "photo.webp") else 1), name


def test_transparency_is_laid_on_white(tmp_path):
    clear = Image.new("RGBA", (40, 30), (200, 0, 0, 0))
    assert (read_photo(saved(tmp_path / "clear.png", clear), 640) == 255).all()
    palette = Image.new("P", (40, 30))
    assert (read_photo(saved(tmp_path / "p.png", palette, transparency=0), 640) == 255).all()


def test_a_photo_is_turned_as_its_camera_says_and_made_smaller(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    path = saved(tmp_path / "turned.jpg", Image.fromarray(PHOTO), exif=exif)
    assert read_photo(path, 640).shape == (120, 90, 3)
    assert read_photo(path, 60).shape == (60, 45, 3)


def test_files_that_are_no_photos(tmp_path):
    whole = io.BytesIO()
    Image.fromarray(PHOTO).save(whole, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(whole.getvalue()[:900])
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "empty.png").write_bytes(b"")
    for name, why in (
        ("cut.jpg", "damaged"),
        ("text.png", "not an image"),
        ("empty.png", "not an image"),
        ("no", "No such file"),
    ):
        with pytest.raises(RowError, match=why):
            read_photo(str(tmp_path / name), 640)


def test_a_photo_with_more_pixels_than_is_safe(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(RowError, match="more pixels than are safe"):
        read_photo(saved(tmp_path / "p.png", Image.fromarray(PHOTO)), 640)


def test_masks(files):
    path = str(files / "mask.png")
    assert np.array_equal(read_mask(path, (120, 90), 120, 90), MASK)
    small = read_mask(path, (120, 90), 60, 45)
    assert abs(small.mean() - MASK.mean()) < 0.01
    cut_out = Image.fromarray(np.dstack([PHOTO, MASK * 255]).astype(np.uint8))
    assert np.array_equal(read_mask(saved(files / "cut.png", cut_out), (120, 90), 120, 90), MASK)
    for size in ((60, 45), (121, 90), (240, 180)):
        other = saved(files / "other.png", Image.new("L", size, 255))
        with pytest.raises(RowError, match=f"is {size[0]}x{size[1]}, the photo 120x90"):
            read_mask(other, (120, 90), 120, 90)
    for value, why in ((0, "empty"), (255, "full")):
        with pytest.raises(RowError, match=why):
            read_mask(saved(files / "one.png", Image.new("L", (120, 90), value)), (120, 90), 120, 90)


def test_masks_and_boxes_go_before_what_stands_out(files):
    path = str(files / "photo.png")
    photo = photo_of(path, str(files / "mask.png"), [0, 0, 5, 5], longest=640, seed=0)
    assert photo.given
    assert np.array_equal(photo.masks[0], MASK)
    boxed = photo_of(path, None, [34, 24, 70, 60], longest=640, seed=0)
    assert boxed.given
    assert box_of(boxed.masks[0]) == pytest.approx(BALL, abs=3)
    half = photo_of(path, None, [34, 24, 70, 60], longest=60, seed=0)  # a box is in the file's pixels
    assert box_of(half.masks[0]) == pytest.approx([side / 2 for side in BALL], abs=3)


@pytest.mark.parametrize(
    ("bbox", "why"),
    [
        ([1, 2, 3], "left, top, right, bottom"),
        ([50, 10, 20, 30], "empty"),
        ([10, 10, 200, 30], "not within a photo of 120x90"),
        ([-4, 10, 20, 30], "not within"),
        ([0, 0, 120, 90], "nearly the whole"),
    ],
)
def test_bad_boxes(files, bbox, why):
    with pytest.raises(RowError, match=why):
        photo_of(str(files / "photo.png"), None, bbox, longest=640, seed=0)


def test_photos_in_which_nothing_can_be_edited(tmp_path):
    for size, why in (((10, 10), "too small"), ((90, 60), "nothing in it stands out")):
        path = saved(tmp_path / "flat.png", Image.new("RGB", size, "gray"))
        with pytest.raises(RowError, match=why):
            photo_of(path, None, None, longest=640, seed=0)


def test_a_folder_never_replaces_another_image(tmp_path):
    folder = Folder(str(tmp_path / "a" / "b"))
    path = folder.put("x.png", PHOTO)
    assert np.array_equal(np.array(Image.open(path)), PHOTO)
    assert folder.put("x.png", PHOTO) == path
    with pytest.raises(ToolrollError, match="another row's image has this name"):
        folder.put("x.png", 255 - PHOTO)
    assert np.array_equal(np.array(Image.open(path)), PHOTO)
    Folder(folder.path, overwrite=True).put("x.png", 255 - PHOTO)
    assert np.array_equal(np.array(Image.open(path)), 255 - PHOTO)
    assert sorted(p.name for p in (tmp_path / "a" / "b").iterdir()) == ["x.png"]
    assert png(PHOTO) == png(PHOTO.copy())
    (tmp_path / "file").write_text("")
    with pytest.raises(ToolrollError):
        Folder(str(tmp_path / "file" / "x"))


def test_shares_of_a_run_may_write_the_same_image_at_once(tmp_path):
    """As those of spy-game do with the picture of a spy who sees nothing."""
    start = Barrier(4, timeout=10)

    def put(_):
        paths = []
        for number in range(20):
            start.wait()
            paths.append(Folder(str(tmp_path)).put(f"{number}.png", PHOTO))
        return paths

    with ThreadPoolExecutor(4) as processes:
        paths = list(processes.map(put, range(4)))
    assert paths == [paths[0]] * 4
    assert all(path.read_bytes() == png(PHOTO) for path in tmp_path.iterdir())
    assert len(list(tmp_path.iterdir())) == 20
