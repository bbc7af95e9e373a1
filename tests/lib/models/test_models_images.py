"""Images in files of every kind, whole and damaged, as what is to be looked at."""

from __future__ import annotations

import base64
import io
import os
import struct
import warnings
import zlib
from pathlib import Path

import frame
import pytest

pytest.importorskip("PIL", reason="images are read by pillow")

import numpy as np
from msgspec.structs import fields
from PIL import Image

from toolroll.errors import RowError
from toolroll.models.images import (
    MOST_BYTES,
    MOST_PIXELS,
    Names,
    data_url,
    folder_of,
    image_names,
    open_image,
    with_places,
)
from toolroll.records import IMAGE_FIELDS
from toolroll.world.images import read_photo

RED, WHITE = (255, 0, 0), (255, 255, 255)


def stored(folder, image, name="a.png", **settings):
    image.save(folder / name, **settings)
    return folder / name


def seen(path):
    image = open_image(path)
    assert image.mode == "RGB"
    return image


def row(image):
    """The pixels of an image one pixel high."""
    return [tuple(pixel) for pixel in np.asarray(image)[0].tolist()]


def test_a_palette_becomes_its_colours(tmp_path):
    image = Image.new("P", (4, 2), 1)
    image.putpalette([0, 0, 0, *RED])
    assert seen(stored(tmp_path, image)).getcolors() == [(8, RED)]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_white_shows_through_what_is_transparent(tmp_path, mode):
    """The colour of a pixel that nobody sees, often black, does not come to light."""
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    assert row(seen(stored(tmp_path, image.convert(mode)))) == [WHITE, (0, 0, 0)]


def test_a_palette_with_a_transparent_colour_and_half_transparency(tmp_path):
    image = Image.new("P", (2, 1), 0)
    image.putpalette([0, 0, 0, *RED])
    image.putpixel((1, 0), 1)
    assert row(seen(stored(tmp_path, image, transparency=0))) == [WHITE, RED]
    half = Image.new("RGBA", (1, 1), (255, 0, 0, 128))
    assert row(seen(stored(tmp_path, half))) == [(255, 127, 127)]


def test_sixteen_bits_of_grey_keep_their_brightness(tmp_path):
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    path = stored(tmp_path, Image.fromarray(values))
    with Image.open(path) as image:
        assert image.mode == "I;16"
    assert [pixel[0] for pixel in row(seen(path))] == [0, 1, 128, 255]


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr", "LAB"])
def test_other_modes_are_converted(tmp_path, mode):
    image = Image.new("RGB", (3, 2), WHITE)
    image = image.convert("L").convert(mode) if mode in ("1", "L") else image
    if mode in ("CMYK", "YCbCr"):
        image = image.convert(mode)
    if mode == "LAB":
        image = Image.new("LAB", (3, 2), (255, 128, 128))
    name = "a.png" if mode in ("1", "L") else "a.tiff"
    assert np.asarray(seen(stored(tmp_path, image, name))).min() >= 254


def test_cmyk_in_jpeg(tmp_path):
    path = stored(tmp_path, Image.new("RGB", (8, 8), RED).convert("CMYK"), "a.jpg", quality=95)
    red, green, blue = seen(path).getpixel((4, 4))
    assert red > 240
    assert green < 15
    assert blue < 15


@pytest.mark.parametrize(("orientation", "first"), [(1, "tl"), (3, "br"), (6, "bl"), (8, "tr"), (2, "tr")])
def test_photographs_are_turned_upright(tmp_path, orientation, first):
    image = Image.new("RGB", (32, 16), WHITE)
    corners = {"tl": (0, 0), "tr": (24, 0), "bl": (0, 8), "br": (24, 8)}
    image.paste(RED, (*corners[first], corners[first][0] + 8, corners[first][1] + 8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = seen(stored(tmp_path, image, "a.jpg", quality=95, exif=exif))
    assert found.size == ((16, 32) if orientation in (6, 8) else (32, 16))
    assert found.getpixel((3, 3))[1] < 60


def test_an_animation_is_its_first_picture(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    path = stored(tmp_path, frames[0], "a.gif", save_all=True, append_images=frames[1:])
    assert seen(path).getpixel((0, 0)) == RED


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, data=b"\0"):
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("empty.png", b"", "the file is empty"),
        ("text.png", b"not an image", "not an image"),
        ("bomb.png", png(60_000, 60_000), "more than 89478485 pixels"),
        ("large.png", png(12_000, 12_000), "12000 x 12000 pixels, more than 89478485"),
        ("cut.png", png(100, 100)[:-20], r"truncated|damaged|broken"),
        ("short.png", png(100, 100), r"truncated|damaged|broken"),
        ("noise.png", png(4, 4)[:33] + b"\xff" * 60, "not an image"),
    ],
)
def test_damaged_files_are_told_in_one_line(tmp_path, capfd, name, content, why):
    (tmp_path / name).write_bytes(content)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(RowError, match=rf"{name}: .*({why})") as caught:
            open_image(tmp_path / name)
    assert warned == []
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_a_cut_jpeg_a_folder_and_nothing(tmp_path):
    whole = io.BytesIO()
    Image.effect_noise((64, 64), 90).convert("RGB").save(whole, "JPEG")
    (tmp_path / "cut.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    with pytest.raises(RowError, match=r"cut\.jpg: image file is truncated"):
        open_image(tmp_path / "cut.jpg")
    with pytest.raises(RowError, match="Is a directory"):
        open_image(tmp_path)
    with pytest.raises(RowError, match=r"none\.png: No such file"):
        open_image(tmp_path / "none.png")


def test_sixteen_bits_in_another_format_and_turned(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 2 1 65535\n" + bytes([128, 128, 255, 255]))
    assert [pixel[0] for pixel in row(seen(tmp_path / "a.pgm"))] == [128, 255]
    exif = Image.Exif()
    exif[0x0112] = 3
    path = stored(tmp_path, Image.fromarray(np.array([[0, 65535]], dtype=np.uint16)), exif=exif)
    assert [pixel[0] for pixel in row(seen(path))] == [255, 0]


@pytest.mark.parametrize("mode", ["F", "I"])
def test_grey_of_unknown_range_is_refused(tmp_path, mode):
    path = stored(tmp_path, Image.new(mode, (2, 2), 1), "a.tiff")
    with pytest.raises(RowError, match="range is not known"):
        open_image(path)


def test_the_limit_is_pillows():
    assert MOST_PIXELS == Image.MAX_IMAGE_PIXELS


def test_a_file_larger_than_any_image_is_not_read(tmp_path):
    """A reader of Pillow may take it into memory before it looks."""
    with open(tmp_path / "a.webp", "wb") as file:
        file.write(b"RIFF\xff\xff\xff\x7fWEBPVP8 ")
        file.truncate(MOST_BYTES + 1)
    for read in (open_image, lambda path: read_photo(str(path), 512)):
        with pytest.raises(RowError, match=rf"a\.webp: {MOST_BYTES + 1} bytes, more than {MOST_BYTES}"):
            read(tmp_path / "a.webp")


QUIET = """
import logging, pathlib, sys
from toolroll.models.images import open_image
from toolroll.world.images import read_photo
print(open_image(pathlib.Path(sys.argv[1])).size, read_photo(sys.argv[1], 512).shape)
logging.getLogger("PIL.TiffImagePlugin").error("More samples per pixel than can be decoded")
"""


def test_what_pillow_warns_of_or_logs_is_no_line_of_ours(tmp_path):
    path = stored(tmp_path, Image.new("RGB", (2, 3), RED))
    whole = path.read_bytes()
    frames = b"acTL" + bytes(8)  # an animation of no frames
    path.write_bytes(whole[:33] + struct.pack(">I", 8) + frames + struct.pack(">I", zlib.crc32(frames)) + whole[33:])
    with pytest.warns(UserWarning, match="Invalid APNG"), Image.open(path) as image:
        image.load()
    result = frame.run([frame.sys.executable, "-c", QUIET, str(path)], cwd=tmp_path)
    assert (result.out, result.err) == (b"(2, 3) (3, 2, 3)\n", "")


def test_servers_get_the_file_where_it_needs_no_conversion(tmp_path):
    def sent(path):
        kind, _, content = data_url(path).partition(";base64,")
        return kind, base64.b64decode(content)

    plain = stored(tmp_path, Image.new("RGB", (4, 4), RED), "a.jpg")
    assert sent(plain) == ("data:image/jpeg", plain.read_bytes())
    plain = stored(tmp_path, Image.new("RGB", (4, 4), RED), "b.png")
    assert sent(plain) == ("data:image/png", plain.read_bytes())
    for path in (
        stored(tmp_path, Image.new("RGBA", (4, 4), (0, 0, 0, 0)), "c.png"),
        stored(tmp_path, Image.new("RGB", (4, 4), WHITE), "d.webp", lossless=True),
    ):
        kind, content = sent(path)
        assert kind == "data:image/png"
        assert Image.open(io.BytesIO(content)).getcolors() == [(16, WHITE)]
    exif = Image.Exif()
    exif[0x0112] = 6
    kind, content = sent(stored(tmp_path, Image.new("RGB", (8, 4), RED), "e.jpg", exif=exif))
    assert (kind, Image.open(io.BytesIO(content)).size) == ("data:image/png", (4, 8))


def test_paths_in_rows_from_a_pipe_are_relative_to_the_current_folder(tmp_path):
    """As those from stdin: a pipe has no folder, wherever its name is."""
    (tmp_path / "rows.jsonl").touch()
    os.mkfifo(tmp_path / "fifo")
    assert folder_of(f"{tmp_path}/rows.jsonl:1") == folder_of(f"{tmp_path}/gone.jsonl:1") == tmp_path
    read, write = os.pipe()
    try:
        for name in (f"{tmp_path}/fifo", f"/dev/fd/{read}", f"/proc/self/fd/{read}", "/dev/stdin", "stdin"):
            assert folder_of(f"{name}:7") == Path()
    finally:
        os.close(read)
        os.close(write)
    assert folder_of("/dev/shm/rows.jsonl:1") == Path("/dev/shm")


def test_places_are_counted():
    message = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a"}]}
    assert with_places([message], 1) == [message]
    with pytest.raises(RowError, match="2 images, and places for 1"):
        with_places([message], 2)


@pytest.mark.parametrize(
    "fields",
    [
        {"images": ["a.png"]},
        {"images": ["a.png"], "image": "b.png"},
        {"images": [], "image": "a.png"},
        {"image": {"path": "a.png", "bytes": None}},
        {"image": None, "image_path": "a.png"},
    ],
)
def test_a_row_names_its_images_in_several_ways(fields):
    assert image_names(Names(fields)) == ["a.png"]
    assert image_names(Names(dict.fromkeys(fields))) == []


@pytest.mark.parametrize("image", ["", 3, {"bytes": "iVBORw0KGgo="}, ["a.png", None]])
def test_an_image_that_has_no_path_is_refused(image):
    with pytest.raises(RowError, match="neither a path nor an object with its `path`"):
        image_names(Names({"image": image}))


def test_no_command_reads_images_by_one_name_only():
    tools = [frame._load(*command).tool for command in frame.entry_points().items()]
    read = [{field.name for field in fields(tool.contract.reads)} for tool in tools if tool.contract.reads is not None]
    seeing = [names for names in read if "images" in names]
    assert len(seeing) > 9
    assert all(names.issuperset(IMAGE_FIELDS) for names in seeing)
