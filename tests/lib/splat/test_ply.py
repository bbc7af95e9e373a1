"""PLY and `.splat`: the layout to the byte, what is read in whatever shape it comes, and what is refused."""

from __future__ import annotations

import base64
import itertools
import math
import struct

import numpy as np
import pytest
import torch

from toolroll.errors import ToolrollError
from toolroll.splat.gaussians import SH0, Gaussians
from toolroll.splat.ply import (
    is_antialiased,
    mode_comment,
    open_ply,
    property_names,
    read_ply,
    read_splat,
    write_ply,
    write_splat,
)

PARTS = ("means", "quats", "scales", "logits", "sh")
ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}
CODES = {"char": "b", "uchar": "B", "short": "h", "ushort": "H", "int": "i", "uint": "I", "float": "f", "double": "d"}


def made(n=5, bases=4, seed=0):
    draws = torch.Generator().manual_seed(seed)
    shapes = ((n, 3), (n, 4), (n, 3), (n,), (n, bases, 3))
    return Gaussians(*(torch.randn(shape, generator=draws) for shape in shapes))


def same(one, other):
    for part in PARTS:
        assert torch.equal(getattr(one, part), getattr(other, part)), part


def ply(columns, *, form="binary_little_endian", kinds=None, before=(), after=(), comments=()):
    """A PLY of vertices with these columns, name to values; `kinds` are their types, float if not given.

    `before` and `after` are elements besides: a name, properties as (type, name), and rows.
    """
    kinds = kinds or {}
    vertex = (
        "vertex",
        [(kinds.get(name, "float"), name) for name in columns],
        list(zip(*columns.values(), strict=True)),
    )
    elements = [*before, vertex, *after]
    head = ["ply", f"format {form} 1.0", *(f"comment {comment}" for comment in comments)]
    body = b""
    for name, properties, rows in elements:
        head += [f"element {name} {len(rows)}", *(f"property {kind} {which}" for kind, which in properties)]
        for row in rows:
            if form == "ascii":
                body += " ".join(map(repr, row)).encode() + b"\n"
            else:
                body += struct.pack(ORDERS[form] + "".join(CODES[kind] for kind, _ in properties), *row)
    return "\n".join([*head, "end_header\n"]).encode() + body


def columns_of(gaussians):
    """What the properties of a PLY are, spelled out."""
    found = {name: gaussians.means[:, i].tolist() for i, name in enumerate("xyz")}
    found |= {f"f_dc_{c}": gaussians.sh[:, 0, c].tolist() for c in range(3)}
    rest = gaussians.sh.shape[1] - 1
    found |= {f"f_rest_{c * rest + k}": gaussians.sh[:, 1 + k, c].tolist() for c in range(3) for k in range(rest)}
    found["opacity"] = gaussians.logits.tolist()
    found |= {f"scale_{i}": gaussians.scales[:, i].tolist() for i in range(3)}
    return found | {f"rot_{i}": gaussians.quats[:, i].tolist() for i in range(4)}


@pytest.fixture
def at(tmp_path):
    """Writes bytes to a file of its own."""
    numbers = itertools.count()

    def put(data):
        path = tmp_path / f"a file {next(numbers)}.ply"
        path.write_bytes(data)
        return path

    return put


@pytest.mark.parametrize("bases", [1, 4, 9, 16])
def test_what_is_written_is_read(tmp_path, bases):
    one = made(bases=bases)
    assert write_ply(tmp_path / "a.ply", one) == 0
    again = read_ply(tmp_path / "a.ply")
    same(one, again)
    assert again.degree == math.isqrt(bases) - 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.ply"]


@pytest.mark.parametrize("bases", [1, 4, 16])
def test_the_layout_to_the_byte(tmp_path, bases):
    one = made(bases=bases)
    write_ply(tmp_path / "a.ply", one, comments=["made by hand"])
    assert (tmp_path / "a.ply").read_bytes() == ply(columns_of(one), comments=["made by hand"])
    assert list(columns_of(one)) == property_names(bases)


def test_no_gaussians_at_all(tmp_path):
    none = made(n=0, bases=4)
    write_ply(tmp_path / "a.ply", none)
    same(none, read_ply(tmp_path / "a.ply"))
    write_splat(tmp_path / "a.splat", none)
    assert (tmp_path / "a.splat").read_bytes() == b""
    assert len(read_splat(tmp_path / "a.splat")) == 0


@pytest.mark.parametrize("form", [*ORDERS, "ascii"])
@pytest.mark.parametrize("kind", ["float", "double"])
def test_any_order_of_bytes_and_properties(at, form, kind):
    one = made(bases=9)
    columns = columns_of(one)
    mixed = dict(sorted(columns.items(), key=lambda item: item[0][::-1]))
    normals = {name: [0.0] * len(one) for name in ("nx", "ny", "nz")}
    other = {"label": list(range(len(one))), "red": [200] * len(one)}
    kinds = {**dict.fromkeys(columns, kind), "label": "ushort", "red": "uchar"}
    data = ply({**normals, **mixed, **other}, form=form, kinds=kinds)
    same(one, read_ply(at(data)))
    same(one, read_ply(at(data.replace(b"property double", b"property float64").replace(b"uchar", b"uint8"))))


@pytest.mark.parametrize("form", [*ORDERS, "ascii"])
def test_other_elements_are_passed_over(at, form):
    one = made(bases=1)
    before = [("camera", [("uchar", "kind"), ("double", "focal")], [(1, 2.5), (2, 3.5)]), ("empty", [("int", "i")], [])]
    after = [("face", [("int", "a")], [(1,), (2,)])]
    same(one, read_ply(at(ply(columns_of(one), form=form, before=before, after=after))))
    listed = ply(columns_of(one), form=form).replace(
        b"end_header", b"element face 0\nproperty list uchar int v\nend_header"
    )
    same(one, read_ply(at(listed)))


def test_headers_with_carriage_returns(at):
    one = made(bases=1)
    head, end, body = ply(columns_of(one), comments=["two  words"]).partition(b"end_header\n")
    path = at((head + end).replace(b"\n", b"\r\n") + body)
    same(one, read_ply(path))
    assert open_ply(path)[1] == ("two  words",)


def test_numbers_that_float32_has_not(at):
    columns = columns_of(made(bases=1)) | {"x": [1e300, -1e300, 0.1, 1e-300, 0.0]}
    assert read_ply(at(ply(columns, kinds={"x": "double"}))).means[:, 0].tolist() == pytest.approx(
        [math.inf, -math.inf, 0.1, 0, 0]
    )
    assert read_ply(at(ply(columns, form="ascii", kinds={"x": "double"}))).means[0, 0] == math.inf


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_only_what_is_not_finite_is_dropped(tmp_path, part, bad):
    one = made()
    getattr(one, part).view(len(one), -1)[2, -1] = bad
    assert write_ply(tmp_path / "a.ply", one) == 1
    same(one.chosen(torch.tensor([0, 1, 3, 4])), read_ply(tmp_path / "a.ply"))
    if not (part == "sh" or math.isinf(bad)):
        assert write_splat(tmp_path / "a.splat", one) == 1
        assert len(read_splat(tmp_path / "a.splat")) == 4


def test_reading_keeps_what_is_not_finite(at):
    one = made(bases=1)
    one.logits[3] = math.nan
    assert read_ply(at(ply(columns_of(one)))).finite().tolist() == [True, True, True, False, True]


def test_comments(tmp_path):
    comments = ["made of 3 photos", "two\nlines", "ünï", mode_comment(True)]
    write_ply(tmp_path / "a.ply", made(), comments=comments)
    assert open_ply(tmp_path / "a.ply")[1] == ("made of 3 photos", "two", "lines", "ünï", "SplatRenderMode: mip")
    assert len(read_ply(tmp_path / "a.ply")) == 5


@pytest.mark.parametrize(
    ("comments", "expected"),
    [
        ([], False),
        ([mode_comment(True)], True),
        ([mode_comment(False)], False),
        (["antialiased 1"], True),
        (["antialiased 0"], False),
        (["SplatRenderMode: mip", "antialiased 0"], False),
        (["antialiased 0", "words", "SplatRenderMode: mip"], True),
        (["not antialiased 1"], False),
    ],
)
def test_how_it_is_to_be_drawn(comments, expected):
    assert is_antialiased(comments) is expected


def without(name):
    return ply({key: values for key, values in columns_of(made(bases=4)).items() if key != name})


PACKED = (  #: four Gaussians with harmonics of degree 1, in the words that gsplat 1.5.3's export_splats makes of them
    b"ply\nformat binary_little_endian 1.0\nelement chunk 1\n"
    + b"".join(
        b"property float %s_%s\n" % (end, axis)
        for part in (b"xyz", [b"scale_x", b"scale_y", b"scale_z"], b"rgb")
        for end in (b"min", b"max")
        for axis in (part if isinstance(part, list) else [bytes([one]) for one in part])
    )
    + b"element vertex 4\n"
    + b"".join(b"property uint packed_%s\n" % one for one in (b"position", b"rotation", b"scale", b"color"))
    + b"element sh 4\n"
    + b"".join(b"property uchar f_rest_%d\n" % one for one in range(9))
    + b"end_header\n"
    + base64.b64decode(
        "oBwdv88pPT31s7e/+Dh6Pz9sgT8OdJ4/NeSBwCuESsC8Y2vA004gwK+1BMDwywvAtFRPPriccD5YsPK9MIw6P+ZxST/IQ9E+MwAAAEHCQlX/"
        "/1+hgP8Arf/P7//DP5XO6bwaAM+cEv8A+B+ZCvVNjgAA4P/K4+YAj0Tk49IlBlfgnQ0gnAD/zJmNi2uUbHF5iJCDf35tlox9gYl/mnB3dHNm"
        "fXh2eHuGjnuAeg=="
    )
)
GOOD = ply(columns_of(made(bases=4)))
TEXT = ply(columns_of(made(bases=4)), form="ascii")
CLOUD = {"x": [0.0], "y": [0.0], "z": [0.0], "red": [255]}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not a PLY file"),
        (b"\x80\x04pickle", "not a PLY file"),
        (b"ply\n", "does not end"),
        (GOOD.partition(b"end_header")[0], "does not end"),
        (b"ply\n" + b"comment x\n" * 5000 + GOOD[4:], "does not end"),
        (b"ply\ncomment " + b"x" * 5000 + b"\n" + GOOD[4:], "does not end"),
        (GOOD.replace(b"format binary_little_endian 1.0\n", b""), "has no format"),
        (
            GOOD.replace(b"binary_little_endian", b"binary_middle_endian"),
            "a line that cannot be: 'format binary_middle",
        ),
        (GOOD.replace(b"vertex 5", b"vertex -5"), "'element vertex -5'"),
        (GOOD.replace(b"vertex 5", b"vertex 5e3"), "'element vertex 5e3'"),
        (GOOD.replace(b"vertex 5", "vertex ٥".encode()), "a line that cannot be"),
        (GOOD.replace(b"vertex 5", b"vertex " + b"9" * 400), "a line that cannot be"),
        (GOOD.replace(b"vertex 5", b"vertex 6"), "cut short: no room for 6 vertices"),
        (GOOD.replace(b"vertex 5", b"vertex 999999999999999999"), "cut short: no room for 999999999999999999"),
        (TEXT.replace(b"vertex 5", b"vertex 999999999999999999"), "cut short: no room for 999999999999999999"),
        (TEXT.replace(b"vertex 5", b"vertex 6"), "cut short: no room for 6 vertices"),
        (GOOD[:-1], "cut short"),
        (TEXT[:-30], "cut short"),
        (TEXT.rstrip() + b"x\n", "not numbers"),
        (GOOD.replace(b"element vertex", b"element corner"), "no vertices"),
        (GOOD.replace(b"float x\n", b"quad x\n"), "'property quad x'"),
        (GOOD.replace(b"float y\n", b"float x\n"), "'property float x'"),
        (GOOD.replace(b"property float x\n", b"property list uchar float x\n"), "has lists"),
        (b"ply\nformat ascii 1.0\nproperty float x\nend_header\n", "'property float x'"),
        (b"ply\nformat ascii 1.0\nelement vertex 3\nend_header\n", "no properties"),
        (b"ply\nformat ascii 1.0\nelement vertex 1\nproperty uint packed_position\nend_header\n1\n", "packed_rotation"),
        (PACKED.replace(b"uint packed_scale", b"float packed_scale"), "packed_scale is no uint"),
        (PACKED.replace(b"chunk 1", b"chunk 0"), "a compressed PLY without bounds for its 4 vertices"),
        (PACKED.replace(b"max_scale_y", b"most_scale_y"), "a compressed PLY without bounds of scale_y"),
        (PACKED.replace(b"sh 4", b"sh 3"), "a compressed PLY with harmonics of other than its 4 vertices"),
        (PACKED[:-1], "cut short: no room for 4 elements sh"),
        (GOOD.replace(b"element vertex 5\n", b"element vertex 5\nelement vertex 5\n"), "'element vertex 5'"),
        (GOOD.replace(b"float x\n", b"list float float x\n"), "'property list float float x'"),
        (ply(CLOUD, kinds={"red": "uchar"}), "not 3D Gaussians: points without f_dc_0"),
        (without("scale_2"), "not 3D Gaussians: no scale_2"),
        (without("opacity"), "not 3D Gaussians: no opacity"),
        (without("rot_0"), "not 3D Gaussians: no rot_0"),
        (without("f_rest_8"), "8 properties f_rest"),
        (GOOD.replace(b"f_rest_3\n", b"f_rest_9\n"), "9 properties f_rest"),
    ],
)
def test_what_is_refused_in_one_line(at, data, why):
    path = at(data)
    with pytest.raises(ToolrollError) as caught:
        read_ply(path)
    assert why in caught.value.why
    assert caught.value.place == str(path)
    assert "\n" not in str(caught.value)


def test_a_compressed_ply(at):
    one = read_ply(at(PACKED))
    assert one.sh.shape == (4, 4, 3)
    means = [[-0.61372, 0.04618, -1.36826], [0.97743, 0.52205, 1.23792], [0.3375, 1.01112, -1.43518]]
    assert one.means[:3].numpy() == pytest.approx(np.array(means), abs=1e-3)
    assert one.scales[0].tolist() == pytest.approx([-3.07985, -2.07359, -2.18432], abs=2e-3)
    quats = [[0.23664, -0.84926, 0.46317, -0.09068], [-0.38562, -0.24392, 0.62381, 0.63455]]
    quats += [[0.39156, -0.52698, -0.67387, 0.33893], [-0.19848, 0.9642, -0.1643, -0.06262]]
    turns = torch.nn.functional.normalize(one.quats, dim=1) * torch.tensor(quats)
    assert turns.sum(1).abs().tolist() == pytest.approx([1] * 4, abs=1e-5)
    opacities = [1 / (1 + math.exp(-logit)) for logit in (0.01209, 1.462, 1.34204, 0.4535)]
    assert one.logits.sigmoid().tolist() == pytest.approx(opacities, abs=2e-3)
    assert one.sh[2, 0].tolist() == pytest.approx([-1.05471, 0.82377, -0.52705], abs=5e-3)
    red_first = [0.81082, 0.4297, 0.34978]  # f_rest_0 to 2 are those of red
    assert one.sh[0, 1:, 0].tolist() == pytest.approx(red_first, abs=0.02)


def test_a_compressed_ply_without_bounds_of_colours(at):
    """As PlayCanvas wrote it first: the bytes of colours are shares of 1."""
    bounded = [f"property float {end}_{one}\n".encode() for end in ("min", "max") for one in "rgb"]
    head, end, body = PACKED.partition(b"end_header\n")
    for line in bounded:
        head = head.replace(line, b"")
    one = read_ply(at(head + end + body[: 4 * 12] + body[4 * 18 :]))
    word = int.from_bytes(body[4 * 18 + 12 : 4 * 18 + 16], "little")
    assert (0.5 + SH0 * one.sh[0, 0]).tolist() == pytest.approx([(word >> at & 255) / 255 for at in (24, 16, 8)])


def test_colours_of_bytes_stand_for_harmonics(at):
    """As nerfstudio exports splatfacto's models with --ply-color-mode rgb."""
    columns = {name: values for name, values in columns_of(made(bases=1)).items() if not name.startswith("f_dc")}
    columns |= {name: [0, 51, 102, 153, 255] for name in ("red", "green", "blue")}
    one = read_ply(at(ply(columns, kinds=dict.fromkeys(("red", "green", "blue"), "uchar"))))
    assert (0.5 + SH0 * one.sh[:, 0, 1]).tolist() == pytest.approx([0, 0.2, 0.4, 0.6, 1], abs=1e-6)


def test_a_file_that_can_be_read_once(tmp_path):
    import os
    import threading

    pipe, one = tmp_path / "pipe", made()
    os.mkfifo(pipe)
    write_ply(tmp_path / "a.ply", one, comments=["once"])
    writer = threading.Thread(target=lambda: pipe.write_bytes((tmp_path / "a.ply").read_bytes()))
    writer.start()
    read, comments = open_ply(pipe)
    writer.join()
    same(one, read)
    assert comments == ("once",)


@pytest.mark.parametrize("form", [*ORDERS, "ascii"])
def test_lists_before_the_vertices_are_passed_over(at, form):
    one = made(bases=1)
    head, end, body = ply(columns_of(one), form=form).partition(b"end_header\n")
    head = head.replace(b"element vertex", b"element face 2\nproperty list uchar short v\nelement vertex")
    order = "big" if "big" in form else "little"
    faces = b"".join(bytes([n]) + b"".join((7).to_bytes(2, order) for _ in range(n)) for n in (2, 0))
    same(one, read_ply(at(head + end + (b"2 7 7\n0\n" if form == "ascii" else faces) + body)))


def test_the_record_of_a_splat_file(tmp_path):
    one = Gaussians(
        means=torch.tensor([[1.0, -2.0, 0.5]]),
        quats=torch.tensor([[2.0, 0.0, -2.0, 0.0]]),
        scales=torch.tensor([[0.5, 1.0, 2.0]]).log(),
        logits=torch.tensor([0.0]),
        sh=torch.tensor([[[0.5 / SH0, 0.0, -2.0 / SH0], [9.0, 9.0, 9.0], [9.0, 9.0, 9.0], [9.0, 9.0, 9.0]]]),
    )
    assert write_splat(tmp_path / "a.splat", one) == 0
    # half of 255 goes to the even 128; q = (1, 0, -1, 0) / sqrt(2), and 128 sqrt(.5) = 90.5
    expected = struct.pack("<6f8B", 1, -2, 0.5, 0.5, 1, 2, 255, 128, 0, 128, 219, 128, 37, 128)
    assert (tmp_path / "a.splat").read_bytes() == expected


def test_a_splat_file_again(tmp_path):
    draws = np.random.default_rng(0)
    data = b"".join(
        struct.pack("<6f8B", *draws.normal(size=3), *draws.uniform(0.1, 2, 3), *draws.integers(0, 256, 4), *quat)
        for quat in ([128, 255, 128, 128], [219, 128, 37, 128], [64, 64, 64, 64], [128, 128, 0, 128])
    )
    (tmp_path / "a.splat").write_bytes(data)
    one = read_splat(tmp_path / "a.splat")
    assert one.degree == 0
    assert bool(one.finite().all())
    assert one.quats[1].tolist() == pytest.approx([0.7109375, 0, -0.7109375, 0])
    write_splat(tmp_path / "b.splat", one)
    records = [
        np.frombuffer((tmp_path / name).read_bytes(), np.uint8).reshape(-1, 32) for name in ("a.splat", "b.splat")
    ]
    floats = [record[:, :24].copy().view("<f4") for record in records]
    assert floats[1] == pytest.approx(floats[0], rel=1e-6)
    assert (records[0][:, 24:28] == records[1][:, 24:28]).all()
    assert np.abs(records[0][:, 28:].astype(int) - records[1][:, 28:]).max() <= 1  # lengths become 1


def test_splat_files_that_are_odd(tmp_path):
    flat = struct.pack("<6f8B", 0, 0, 0, 0, 1, -1, 0, 0, 0, 255, 255, 128, 128, 128)
    (tmp_path / "a.splat").write_bytes(flat)
    one = read_splat(tmp_path / "a.splat")
    assert one.scales[0, 0] == pytest.approx(math.log(np.finfo(np.float32).tiny))  # of no thickness
    assert one.finite().tolist() == [False]  # a scale below 0
    (tmp_path / "b.splat").write_bytes(flat[:-1])
    with pytest.raises(ToolrollError, match="31 bytes are no multiple of 32"):
        read_splat(tmp_path / "b.splat")


def test_scales_too_large_for_a_splat_file(tmp_path):
    one = made()
    one.scales[1, 0] = 100.0
    assert write_splat(tmp_path / "a.splat", one) == 1
