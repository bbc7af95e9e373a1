"""Points in PLY files: every order of bytes, by the names of properties, and files that are not sound."""

from __future__ import annotations

import numpy as np
import pytest

from toolroll.errors import ToolrollError
from toolroll.splat.elements import read_ply_elements
from toolroll.splat.points import SH0, points_of, read_points, somewhere, write_points
from toolroll.splat.scene import Points

TYPES = {"blue": "u1", "z": "f8", "x": "f4", "extra": "i2", "y": "f4", "green": "u1", "red": "u1"}
NAMES = {"u1": "uchar", "f8": "double", "f4": "float", "i2": "int16"}
PROPERTIES = "".join(f"property {NAMES[kind]} {name}\n" for name, kind in TYPES.items())
ROWS = [(7, 3.0, 1.0, -5, 2.0, 8, 9), (70, -3.5, -1.25, 500, 0.0, 80, 90)]


def ply(kind, body, properties=PROPERTIES, count=2, before="", after="", end="\n"):
    head = (
        f"ply\nformat {kind} 1.0\ncomment made by hand\n{before}element vertex {count}\n{properties}{after}end_header\n"
    )
    return head.replace("\n", end).encode() + body


def body(order):
    return np.array(ROWS, [(name, order + kind) for name, kind in TYPES.items()]).tobytes()


def text():
    return "".join(" ".join(map(str, row)) + "\n" for row in ROWS).encode()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize(
    ("kind", "data"),
    [("ascii", text()), ("binary_little_endian", body("<")), ("binary_big_endian", body(">"))],
    ids=["ascii", "little", "big"],
)
def test_properties_are_found_by_name(kind, data, end, tmp_path):
    (tmp_path / "p.ply").write_bytes(ply(kind, data, end=end))
    points = read_points(tmp_path / "p.ply")
    assert points.places.tolist() == [[1, 2, 3], [-1.25, 0, -3.5]]
    assert points.colours.tolist() == [[9, 8, 7], [90, 80, 70]]
    assert read_ply_elements(tmp_path / "p.ply").elements["vertex"]["extra"].tolist() == [-5, 500]


def test_other_elements_are_passed_over(tmp_path):
    before = "element camera 1\nproperty float a\nelement face 2\nproperty list uchar int ids\nproperty uchar flag\n"
    after = "element edge 1\nproperty int a\n"
    faces = b"\x00\x00\x80\x3f" + b"\x02" + bytes(8) + b"\x01" + b"\x00" + b"\x05"
    (tmp_path / "p.ply").write_bytes(
        ply("binary_little_endian", faces + body("<") + bytes(4), before=before, after=after)
    )
    assert read_points(tmp_path / "p.ply").places[0].tolist() == [1, 2, 3]
    (tmp_path / "t.ply").write_bytes(ply("ascii", b"1.0\n2 1 2 1\n0 5\n" + text() + b"4\n", before=before, after=after))
    assert read_points(tmp_path / "t.ply").places[0].tolist() == [1, 2, 3]


def simple(tmp_path, properties, rows):
    lines = "".join(f"property {one}\n" for one in ("float x", "float y", "float z", *properties))
    data = "".join(" ".join(map(str, row)) + "\n" for row in rows).encode()
    (tmp_path / "p.ply").write_bytes(ply("ascii", data, properties=lines, count=len(rows)))
    return read_points(tmp_path / "p.ply")


def test_colours_of_all_kinds(tmp_path):
    assert simple(tmp_path, [], [(0, 0, 0)]).colours.tolist() == [[128, 128, 128]]
    floats = ["float red", "float green", "float blue"]
    assert simple(tmp_path, floats, [(0, 0, 0, 0, 0.5, 2)]).colours.tolist() == [[0, 128, 255]]
    shorts = ["ushort red", "ushort green", "ushort blue"]
    assert simple(tmp_path, shorts, [(0, 0, 0, 0, 257, 65535)]).colours.tolist() == [[0, 1, 255]]
    harmonics = ["float f_dc_0", "float f_dc_1", "float f_dc_2"]
    found = simple(tmp_path, harmonics, [(0, 0, 0, -0.5 / SH0, 0.0, 0.5 / SH0)])
    assert found.colours.tolist() == [[0, 128, 255]]


def test_points_that_are_nowhere(tmp_path):
    points = simple(tmp_path, [], [(0, 0, 0), ("nan", 0, 0), (1, "inf", 0), (1, 2, 3), (0, 0, "-2e30")])
    assert len(points) == 5
    found, lost = somewhere(points)
    assert (found.places.tolist(), lost) == ([[0, 0, 0], [1, 2, 3]], 3)
    assert np.array_equal(points_of(read_ply_elements(tmp_path / "p.ply").elements).places, found.places)
    doubles = simple(tmp_path, ["double red", "double green", "double blue"], [(0, 0, 0, "nan", 1e308, -1e308)])
    assert doubles.colours.tolist() == [[0, 255, 0]]
    header = ply("binary_little_endian", b"", properties="".join(f"property float {axis}\n" for axis in "xyz"), count=1)
    (tmp_path / "p.ply").write_bytes(header + b"\x01\x00\xa0\x7f" * 3)  # signalling NaNs
    assert somewhere(read_points(tmp_path / "p.ply"))[1] == 1


@pytest.mark.parametrize("count", [0, 1, 100])
def test_round_trip(count, tmp_path):
    draws = np.random.default_rng(0)
    points = Points(draws.normal(size=(count, 3)), draws.integers(0, 256, (count, 3)).astype(np.uint8))
    write_points(tmp_path / "p.ply", points)
    found = read_points(tmp_path / "p.ply")
    assert np.abs(found.places - points.places).max(initial=0) < 1e-6
    assert np.array_equal(found.colours, points.colours)


def test_a_scene_far_from_its_origin_keeps_its_digits(tmp_path):
    places = np.array([[4_500_000.125, 0, 0], [4_500_000.25, 1, 1]])
    write_points(tmp_path / "p.ply", Points(places, np.zeros((2, 3), np.uint8)))
    assert np.array_equal(read_points(tmp_path / "p.ply").places, places)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not a PLY file"),
        (b"\x80\x04\x95pickle", "not a PLY file"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\n", "its header does not end"),
        (ply("ascii", b"1 2 3 4 5 6\n"), "cut short: no room for 2 vertices"),
        (ply("ascii", text()[:-8]), "cut short"),
        (ply("ascii", text().replace(b"500", b"many")), "has vertices that are not numbers"),
        (ply("binary_little_endian", body("<")[:-1]), "cut short: no room for 2 vertices"),
        (ply("binary_little_endian", body("<"), count=10**15), "cut short: no room for 1000000000000000 vertices"),
        (ply("ascii", text(), count=10**15), "cut short: no room for 1000000000000000 vertices"),
        (ply("binary_middle_endian", b""), "a line that cannot be: 'format binary_middle_endian 1.0'"),
        (ply("ascii", b"", properties="property quad x\n"), "cannot be: 'property quad x'"),
        (ply("ascii", text(), properties=PROPERTIES.replace("float y", "float w")), "no property y of a vertex"),
        (ply("ascii", b"", properties="property list uchar int x\n"), "has lists in its vertices"),
        (ply("ascii", b"").replace(b"element vertex 2", b"element corner 2"), "no vertices"),
        (ply("ascii", b"").replace(b"format ascii 1.0\n", b""), "has no format"),
        (
            ply("binary_little_endian", b"\x02" + bytes(3), before="element f 9\nproperty list uchar int ids\n"),
            "cut short: no room for 9 elements f",
        ),
    ],
)
def test_files_that_are_not_sound(data, why, tmp_path):
    (tmp_path / "p.ply").write_bytes(data)
    with pytest.raises(ToolrollError) as error:
        read_points(tmp_path / "p.ply")
    assert why in str(error.value)
    assert str(error.value).startswith(str(tmp_path / "p.ply"))
