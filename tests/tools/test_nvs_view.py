"""nvs-view: what is in the page, what a browser draws of it, and what hands do to that."""

from __future__ import annotations

import base64
import fcntl
import gzip
import hashlib
import io
import json
import math
import os
import re
import select
import subprocess
import time

import browser
import frame
import numpy as np
import pytest
import torch
from PIL import Image

from toolroll.errors import UsageError
from toolroll.splat.gaussians import SH0, Eye, Gaussians, Manner
from toolroll.splat.ply import mode_comment, write_ply, write_splat
from toolroll.splat.rasterizer import draw, open_rasterizer
from toolroll.splat.view import Camera, most_visible, read_direction, up_of, view_of
from toolroll.splat.view import page as page_of

ASSETS = frame.ROOT / "lib/toolroll/data/viewer"
WIDTH, HEIGHT, FOV = 320, 240, 60.0
FOCAL = HEIGHT / 2 / math.tan(math.radians(FOV / 2))


def splats(*rows, sh=None):
    """Gaussians that are balls: (place, colour in 0 to 1, radius, opacity)."""
    means, colours, sizes, opacities = (torch.tensor(column, dtype=torch.float32) for column in zip(*rows, strict=True))
    dc = ((colours - 0.5) / SH0)[:, None]
    return Gaussians(
        means=means,
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(len(rows), 1),
        scales=sizes.log()[:, None].repeat(1, 3),
        logits=torch.logit(opacities, eps=1e-4),
        sh=dc if sh is None else torch.cat([dc, sh], 1),
    )


RED, GREEN, BLUE, WHITE = (0.9, 0.1, 0.1), (0.1, 0.8, 0.1), (0.1, 0.2, 0.9), (1.0, 1.0, 1.0)
CORNERS = splats(  # left above, right above, right below; nothing left below
    ((-1.2, -0.8, 4.0), RED, 0.2, 0.999),
    ((1.2, -0.8, 4.0), GREEN, 0.2, 0.999),
    ((1.2, 0.8, 4.0), BLUE, 0.2, 0.999),
    ((0.0, 0.0, 6.0), BLUE, 0.6, 0.999),  # behind what comes next
    ((0.0, 0.0, 3.0), WHITE, 0.1, 0.999),
)
STRAIGHT = {"pose": np.eye(4).tolist(), "fov": FOV}


def many(n=400, degree=3, seed=1):
    """A cloud of splats of all shapes and turns in front of a camera, coloured otherwise from every side."""
    g = torch.Generator().manual_seed(seed)
    rand, randn = (lambda *s: torch.rand(s, generator=g)), (lambda *s: torch.randn(s, generator=g))
    means = torch.cat([2 * rand(n, 2) - 1, 0 * rand(n, 1)], 1) * torch.tensor([2.4, 1.6, 0]) + torch.tensor([0, 0, 1.0])
    means[:, 2] = 2.5 + 3 * rand(n)
    sh = torch.cat([2 * rand(n, 1, 3) - 1, 0.15 * randn(n, (degree + 1) ** 2 - 1, 3)], 1)
    return Gaussians(means, randn(n, 4), -2.5 + 0.7 * randn(n, 3), 1 + 2 * randn(n), sh)


def turned():
    """A camera that stands and looks aslant, and rolls."""
    x, y, z = np.eye(3)
    pose = np.eye(4)

    def about(axis, angle):
        cross = np.cross(np.eye(3), axis)
        return np.eye(3) + math.sin(angle) * cross.T + (1 - math.cos(angle)) * cross.T @ cross.T

    pose[:3, :3] = about(x, 0.1) @ about(y, -0.25) @ about(z, 0.3)
    pose[:3, 3] = [0.4, -0.2, 0.5]
    return pose


def view(folder, *args, rc=0, **settings):
    result = frame.run(["nvs-view", *map(str, args)], cwd=folder, **settings)
    assert result.rc == rc, result.err
    assert "Traceback" not in result.err
    return result


def made(folder, gaussians, *args, camera=None, comments=()):
    """The page of some splats."""
    write_ply(folder / "scene.ply", gaussians, comments=comments)
    if camera is not None:
        (folder / "camera.json").write_text(json.dumps(camera))
        args = ("--camera", "camera.json", *args)
    view(folder, "scene.ply", "-o", "scene.html", *args)
    return folder / "scene.html"


def told(page):
    """The scene of a page as its script reads it, and its columns, unpacked."""
    text = page if isinstance(page, str) else page.read_text(encoding="utf-8")
    scene = json.loads(re.search(r'id="scene">(.*?)</script>', text)[1])
    data = gzip.decompress(base64.b64decode(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1]))
    planes = np.frombuffer(data, np.uint8).reshape(-1, scene["count"]).astype(np.uint32)
    columns, at = {}, 0
    for column in scene["columns"]:
        bits = sum(planes[at + i] << 8 * i for i in range(column["bytes"])).astype(np.uint32)
        at += column["bytes"]
        columns[column["name"]] = {
            4: lambda bits, _: bits.view(np.float32),
            2: lambda bits, _: bits.astype(np.uint16).view(np.float16).astype(np.float32),
            1: lambda bits, column: column["low"] + column["step"] * bits,
        }[column["bytes"]](bits, column)
    assert at == len(planes)
    return scene, columns


# --- what is in the page


def test_a_page_has_the_numbers_of_the_splats(tmp_path):
    one = many(50, degree=2)
    scene, columns = told(made(tmp_path, one))
    assert scene["count"] == 50
    assert len(columns) == 14 + 24
    assert columns["x"].tolist() == one.means[:, 0].tolist()
    assert columns["scale_1"] == pytest.approx(one.scales[:, 1].numpy(), rel=1e-3, abs=1e-3)
    assert columns["opacity"] == pytest.approx(one.logits.numpy(), rel=1e-3, abs=1e-3)
    assert columns["f_rest_9"] == pytest.approx(one.sh[:, 2, 1].numpy(), rel=1e-3, abs=1e-3)  # green's second
    quats = np.stack([columns[f"rot_{i}"] for i in range(4)], 1)
    assert quats == pytest.approx(torch.nn.functional.normalize(one.quats).numpy(), abs=1e-3)


def test_a_page_of_bytes(tmp_path):
    one = many(50, degree=2)
    scene, columns = told(made(tmp_path, one, "--format", "splat"))
    assert len(columns) == 14
    assert sum(column["bytes"] for column in scene["columns"]) == 26
    colours = np.stack([0.5 + SH0 * columns[f"f_dc_{i}"] for i in range(3)], 1)
    assert colours == pytest.approx((0.5 + SH0 * one.sh[:, 0]).clamp(0, 1).numpy(), abs=0.5 / 255 + 1e-6)
    opacity = 1 / (1 + np.exp(-columns["opacity"]))
    assert opacity == pytest.approx(one.logits.sigmoid().numpy(), abs=0.01)


def test_the_most_visible_are_kept(tmp_path):
    rows = [((float(i), 0.0, 4.0), RED, 0.1, 0.5) for i in range(6)]
    one = splats(*rows)
    one.scales[1] = torch.tensor([0.0, 0.0, -9.0])  # large and flat
    one.scales[2] = torch.tensor([1.0, -9.0, -9.0])  # a needle, longer
    one.logits[4] = 3.0
    one.logits[0] = -3.0
    assert most_visible(one, 2).tolist() == [1, 4]
    assert most_visible(one, 4).tolist() == [1, 3, 4, 5] or most_visible(one, 4).tolist() == [1, 2, 3, 4]
    write_ply(tmp_path / "a.ply", one)
    result = view(tmp_path, "a.ply", "-v", "--max-splats", 2)
    assert told(result.out.decode())[1]["x"].tolist() == [1, 4]
    assert "the 2 most visible of 6 splats" in result.err
    assert told(view(tmp_path, "a.ply", "--max-splats", 600).out.decode())[0]["count"] == 6


def test_what_is_not_finite_is_left_out_and_counted(tmp_path):
    write_ply(tmp_path / "a.ply", CORNERS)
    data = bytearray((tmp_path / "a.ply").read_bytes())
    size = 14 * 4
    data[-5 * size + 6 * 4 : -5 * size + 7 * 4] = np.float32(np.nan).tobytes()  # the first one's opacity
    data[-4:] = data[-8:-4] = data[-12:-8] = data[-16:-12] = bytes(4)  # the last one's rotation
    (tmp_path / "a.ply").write_bytes(data)
    result = view(tmp_path, "a.ply")
    assert result.complaints == ["nvs-view: a.ply: warning: 2 of 5 splats are not finite and left out"]
    assert told(result.out.decode())[0]["count"] == 3


def test_where_scenes_are(tmp_path):
    for count, name in enumerate(["run/point_cloud/iteration_900", "run/point_cloud/iteration_7000", "flat"], 1):
        (tmp_path / name).mkdir(parents=True)
        write_ply(tmp_path / name / "point_cloud.ply", many(count))
    (tmp_path / "run/point_cloud/iteration_x").mkdir()
    write_splat(tmp_path / "a b.splat", many(4))
    for count, name in (2, "run"), (3, "flat/"), (4, "a b.splat"):
        page = view(tmp_path, name).out.decode()
        assert told(page)[0]["count"] == count
        assert f"<title>{name.strip('/').removesuffix('.splat')}</title>" in page
    (tmp_path / "none").mkdir()
    assert view(tmp_path, "none", rc=1).complaints == ["nvs-view: none: has no point_cloud.ply"]


def test_the_page_is_the_same_every_time_and_appears_when_it_is_complete(tmp_path):
    write_ply(tmp_path / "a.ply", CORNERS)
    out = view(tmp_path, "a.ply").out
    view(tmp_path, "a.ply", "-o", "a.html")
    view(tmp_path, "a.ply", "-o", "a.html.gz")
    assert (tmp_path / "a.html").read_bytes() == out == gzip.decompress((tmp_path / "a.html.gz").read_bytes())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "a.html.gz", "a.ply"]
    assert out.startswith(b"<!doctype html>")
    assert out.endswith(b"</html>\n")
    view(tmp_path, "a.ply", "-o", "no/such/a.html", rc=1)
    view(tmp_path, "a.ply", "-o", ".", rc=1)
    assert view(tmp_path, "a.ply", "-o", "/dev/full", rc=1).complaints == [
        "nvs-view: /dev/full: No space left on device"
    ]


def test_nothing_in_the_page_comes_from_elsewhere_or_acts_by_its_name(tmp_path):
    nasty = "</title></script><script>document.title='owned'</script>$engine${data}<!--"
    text = made(tmp_path, CORNERS, "--title", nasty).read_text(encoding="utf-8")
    page = browser.Parsed(re.sub(r"<script>.*?</script>", "<script></script>", text, flags=re.DOTALL))
    assert page.count("script") == 4
    assert not [name for _, attributes in page.tags for name in attributes if name in ("src", "href")]
    assert page.text.count(nasty) == 2
    policy = next(found["content"] for _, found in page.tags if "http-equiv" in found)
    parts = {
        "style": re.search(r"<style>(.*?)</style>", text, re.DOTALL)[1],
        **{f"script{i}": part for i, part in enumerate(re.findall(r"<script>(.*?)</script>", text, re.DOTALL))},
    }
    assert len(parts) == 3
    for part in parts.values():
        assert base64.b64encode(hashlib.sha256(part.encode()).digest()).decode() in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy


def test_the_engine_is_the_one_that_was_built_and_keeps_its_licence(tmp_path):
    engine = gzip.decompress((ASSETS / "playcanvas.js.gz").read_bytes()).decode()
    notes = (ASSETS / "BUILD.md").read_text()
    assert hashlib.sha256(engine.encode()).hexdigest() in notes
    licence = (ASSETS / "LICENSE").read_text().strip()
    assert licence in engine
    assert engine.splitlines()[0].removeprefix("/*! PlayCanvas Engine ").split(",")[0] in notes
    assert licence in made(tmp_path, CORNERS).read_text(encoding="utf-8")
    assert "</script" not in engine
    assert "<!--" not in engine


# --- where it begins


def test_a_camera_of_the_users(tmp_path):
    pose = turned()
    scene, _ = told(made(tmp_path, CORNERS, camera={"pose": pose.tolist(), "fov": 35}))
    out_of = np.array(scene["matrix"]).reshape(4, 4).T
    assert out_of @ np.array([0, 0, -2.0, 1]) == pytest.approx(
        np.linalg.inv(pose) @ [0, 0, 2, 1]
    )  # looks along -z there
    assert out_of @ np.array([1, 1.0, 0, 1]) == pytest.approx(np.linalg.inv(pose) @ [1, -1, 0, 1])
    assert scene["fov"] == 35
    assert scene["given"] is True
    assert scene["up"] == pytest.approx(-pose[1, :3])


def test_what_is_turned_around_is_what_stands_in_the_middle():
    one = splats(((0.0, 0.0, 5.0), RED, 0.1, 0.9), ((0.1, 0.0, 5.2), RED, 0.1, 0.9), ((9.0, 0.0, 1.0), RED, 0.1, 0.9))
    assert view_of(one, camera=Camera(np.eye(4), 60)).distance == pytest.approx(5.0)
    away = np.diag([-1.0, 1, -1, 1])
    assert view_of(one, camera=Camera(away, 60)).distance > 0


@pytest.mark.parametrize("up", ["-y", "z", "1 2 -2"])
def test_the_view_that_nobody_asked_for(up):
    upright = read_direction(up)
    g = np.random.default_rng(0)
    side = np.cross(upright, [0.3, 0.5, 0.8])
    side /= np.linalg.norm(side)
    ahead = np.cross(upright, side)
    axes = np.stack([side, ahead, upright])
    spread = g.normal(size=(600, 3)) * [3, 1, 2] @ axes + [5, 6, 7]
    wall = g.uniform(-1, 1, (30, 3)) * [8, 0.1, 8] @ axes + 6 * ahead + [5, 6, 7]  # of few splats, large ones
    rows = [(place, RED, 0.05, 0.9) for place in spread.tolist()]
    one = splats(*rows, *((place, BLUE, 2.0, 0.9) for place in wall.tolist()))
    found = view_of(one, up=upright)
    seen = (spread @ found.camera.pose[:3, :3].T + found.camera.pose[:3, 3]) / found.radius
    assert (seen[:, 2] > 0).mean() > 0.98
    inside = np.abs(seen[:, :2]).max(1) < seen[:, 2] * math.tan(math.radians(found.camera.fov / 2))
    assert inside.mean() > 0.7
    pose = found.camera.pose
    assert pose[:3, :3] @ pose[:3, :3].T == pytest.approx(np.eye(3), abs=1e-9)
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
    assert pose[0, :3] @ upright == pytest.approx(0, abs=1e-9)  # level
    assert -pose[1, :3] @ upright > 0.9  # upright
    assert pose[2, :3] @ upright == pytest.approx(-math.sin(math.radians(20)))  # from above
    assert pose[2, :3] @ ahead > 0.9  # the wall is behind


def test_a_single_splat_is_in_view():
    found = view_of(splats(((1.0, 2.0, 3.0), RED, 0.5, 0.9)))
    seen = found.camera.pose @ [1, 2, 3, 1]
    assert seen[:2] == pytest.approx([0, 0], abs=1e-9)
    assert 0.5 < seen[2] < 10


@pytest.mark.parametrize(
    ("comments", "expected"),
    [
        ((), None),
        (("Vertical axis: z",), [0, 0, 1]),
        (("x", "Vertical axis: 0 -3 4"), [0, -0.6, 0.8]),
        (("Vertical axis: y",), None),
        (("Vertical axis: up",), None),
    ],
)
def test_what_comments_call_up(comments, expected):
    found = up_of(comments)
    assert (found is None) if expected is None else found.tolist() == pytest.approx(expected)


def test_up_of_a_page(tmp_path):
    comments = ["Vertical axis: z"]
    assert told(made(tmp_path, CORNERS, comments=comments))[0]["up"] == [0, 0, 1]
    assert told(made(tmp_path, CORNERS, "--up", "0,2,0", comments=comments))[0]["up"] == [0, 1, 0]
    assert told(made(tmp_path, CORNERS))[0]["up"] == [0, -1, 0]
    assert told(made(tmp_path, CORNERS, camera=STRAIGHT, comments=comments))[0]["up"] == [0, 0, 1]


@pytest.mark.parametrize("text", ["", "up", "1 2", "0 0 0", "1 2 nan", "1e400 0 0", "--y"])
def test_directions_that_are_none(text):
    with pytest.raises(UsageError, match="is no axis and no three numbers"):
        read_direction(text)


def test_the_mode(tmp_path):
    for comments, args, expected in (
        ([], [], False),
        ([mode_comment(True)], [], True),
        ([mode_comment(True)], ["--mode", "classic"], False),
        ([], ["--mode", "antialiased"], True),
    ):
        assert told(made(tmp_path, CORNERS, *args, comments=comments))[0]["antialiased"] is expected


def test_a_page_is_not_written_over_what_it_shows(tmp_path):
    (tmp_path / "run").mkdir()
    write_ply(tmp_path / "run/point_cloud.ply", CORNERS)
    (tmp_path / "camera.json").write_text(json.dumps(STRAIGHT))
    for name in ("run/point_cloud.ply", "camera.json"):
        before = (tmp_path / name).read_bytes()
        (line,) = view(tmp_path, "run", "--camera", "camera.json", "-o", name, rc=2).complaints
        assert line == f"nvs-view: {name}: input and output are the same file"
        assert (tmp_path / name).read_bytes() == before


@pytest.mark.parametrize("change", [{"logits": -1e30}, {"scales": -1e30}, {"sh": 3e38}, {"means": 1e38}])
def test_numbers_that_are_finite_and_no_more(change):
    one = many(20, degree=0)
    for name, value in change.items():
        getattr(one, name)[:] = value
    for numbers in ("ply", "splat"):
        assert page_of(one, view_of(one), title="x", numbers=numbers)


TILTED = np.eye(4)
TILTED[0, 0] = 1.1
MIRROR = np.diag([-1.0, 1, 1, 1])


@pytest.mark.parametrize(
    ("camera", "why"),
    [
        ("{", "not a camera"),
        ("[" * 100000, "not a camera"),
        ("[1]", "not a camera"),
        ('{"fov": 50}', "not a camera"),
        ('{"pose": "x"}', "not a camera"),
        ('{"pose": [[1], [2, 3]]}', "not a camera"),
        ('{"pose": [[1, 0], [0, 1]]}', "its pose is not 4 x 4 numbers"),
        (json.dumps({"pose": np.eye(3).tolist()}), "its pose is not 4 x 4 numbers"),
        (json.dumps({"pose": (np.eye(4) * np.nan).tolist()}), "its pose is not 4 x 4 numbers"),
        (json.dumps({"pose": TILTED.tolist()}), "not a rotation"),
        (json.dumps({"pose": MIRROR.tolist()}), "not a rotation"),
        (json.dumps({**STRAIGHT, "fov": 180}), "its fov is 180 degrees"),
        (json.dumps({**STRAIGHT, "fov": math.nan}), "its fov is nan degrees"),
        (json.dumps({**STRAIGHT, "fov": "wide"}), "not a camera"),
    ],
)
def test_cameras_that_are_none(tmp_path, camera, why):
    from toolroll.splat.view import read_camera

    (tmp_path / "c.json").write_text(camera)
    with pytest.raises(UsageError, match=r"c\.json: ") as caught:
        read_camera(tmp_path / "c.json")
    assert why in caught.value.why


@pytest.mark.parametrize(
    ("args", "rc", "complaint"),
    [
        (("gone.ply",), 1, "nvs-view: gone.ply: No such file or directory"),
        (("notes.txt",), 1, "nvs-view: notes.txt: not a PLY file"),
        (("bad.splat",), 1, "nvs-view: bad.splat: not a .splat file: 31 bytes are no multiple of 32"),
        (("empty.splat",), 1, "nvs-view: empty.splat: no splats"),
        (("good.ply", "--camera", "gone.json"), 1, "nvs-view: gone.json: No such file or directory"),
        (("good.ply", "--camera", "notes.txt"), 2, 'nvs-view: notes.txt: not a camera: {"pose": 4 x 4 numbers, "fov"'),
        (("good.ply", "--up", "sky"), 2, "nvs-view: --up: 'sky' is no axis and no three numbers"),
        (("good.ply", "--background", "blue"), 2, "nvs-view: --background: 'blue' is no colour #RRGGBB"),
        (("good.ply", "--background", "#ffff"), 2, "nvs-view: --background: '#ffff' is no colour #RRGGBB"),
        (("good.ply", "--max-splats", "0"), 2, "nvs-view: invalid value for '--max-splats'"),
    ],
)
def test_what_cannot_be_shown(tmp_path, args, rc, complaint):
    write_ply(tmp_path / "good.ply", CORNERS)
    (tmp_path / "notes.txt").write_text("words")
    (tmp_path / "bad.splat").write_bytes(b"x" * 31)
    (tmp_path / "empty.splat").touch()
    result = view(tmp_path, *args, "-o", "out.html", rc=rc)
    (line,) = result.complaints
    assert line.startswith(complaint)
    assert not (tmp_path / "out.html").exists()
    assert not (tmp_path / "out.html.part").exists()


# --- what a browser makes of it


class Browser:
    """A headless Chromium with WebGL in software, by its debugging pipe."""

    def __init__(self, folder):
        theirs, self._out = os.pipe()
        self._in, back = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (theirs, back)]
        flags = ("--headless", "--no-sandbox", "--hide-scrollbars", "--remote-debugging-pipe", "--touch-events=enabled")
        software = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader")
        self._process = subprocess.Popen(
            ["bash", "-c", f'exec "$@" 3<&{ends[0]} 4>&{ends[1]}', "-", browser.CHROMIUM, *flags, *software,
             f"--user-data-dir={folder}/user", "about:blank"],
            pass_fds=ends, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env={**os.environ, "HOME": str(folder)},
        )  # fmt: skip
        for end in (theirs, back, *ends):
            os.close(end)
        self._session: dict[str, str] = {}
        self._number, self._pending = 0, b""
        self.events: list[dict] = []
        (target,) = [one for one in self.call("Target.getTargets")["targetInfos"] if one["type"] == "page"]
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self._number += 1
        message = {"id": self._number, "method": method, "params": params, **self._session}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while (reply := self._reply()).get("id") != self._number:
            self.events.append(reply)
        assert "error" not in reply, reply
        return reply["result"]

    def _reply(self):
        end = time.monotonic() + 2 * frame.PATIENCE_S
        while b"\0" not in self._pending:
            assert select.select([self._in], [], [], max(0, end - time.monotonic()))[0], "chromium does not answer"
            piece = os.read(self._in, 1 << 20)
            assert piece, "chromium went away"
            self._pending += piece
        line, _, self._pending = self._pending.partition(b"\0")
        return json.loads(line)

    def evaluate(self, script):
        return self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)["result"].get(
            "value"
        )

    def open(self, page, width=WIDTH, height=HEIGHT):
        """Show a page, and wait until its splats are drawn; without the note in the corner."""
        self.events.clear()
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Page.navigate", url=page.as_uri())
        frame.wait_until(lambda: self.evaluate("!!document.documentElement?.dataset.ready"), "splats are drawn")
        self.evaluate("document.querySelector('details').style.visibility = 'hidden'")
        return self.still()

    def still(self):
        """The picture, when it has come to rest: what was moved is sorted anew beside the page."""
        last = None
        end = time.monotonic() + frame.PATIENCE_S
        while time.monotonic() < end:
            self.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 200)))")
            data = self.call("Page.captureScreenshot", format="png")["data"]
            if data == last:
                with Image.open(io.BytesIO(base64.b64decode(data))) as image:
                    return np.asarray(image.convert("RGB")).astype(np.float32) / 255
            last = data
        raise AssertionError("the picture does not come to rest")

    def drag(self, across, down, *, button="left", modifiers=0, start=(160, 120)):
        """Press, move, let go."""
        for kind, x, y in (
            ("mousePressed", *start),
            ("mouseMoved", start[0] + across, start[1] + down),
            ("mouseReleased", start[0] + across, start[1] + down),
        ):
            held = {"left": 1, "right": 2, "middle": 4}[button] if kind != "mouseReleased" else 0
            about = {"type": kind, "x": x, "y": y, "modifiers": modifiers, "clickCount": 1, "buttons": held}
            self.call("Input.dispatchMouseEvent", button=button, **about)

    def press(self, key, *, modifiers=0):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, modifiers=modifiers)

    def touch(self, *paths):
        """Fingers go along paths of points, all at once."""
        for kind, step in (("touchStart", 0), ("touchMove", 1)):
            points = [{"x": path[step][0], "y": path[step][1], "id": i} for i, path in enumerate(paths)]
            self.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def close(self):
        self._process.kill()
        self._process.wait()
        os.close(self._out)
        os.close(self._in)


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    if browser.CHROMIUM is None:
        pytest.skip("no chromium is installed")
    running = Browser(tmp_path_factory.mktemp("chromium"))
    yield running
    running.close()


def pixel(place, pose=None):
    """Where a camera sees a place: column and row."""
    x, y, z, _ = (np.eye(4) if pose is None else pose) @ [*place, 1]
    return round(WIDTH / 2 + FOCAL * x / z - 0.5), round(HEIGHT / 2 + FOCAL * y / z - 0.5)


def of_colour(picture, colour):
    """Whether pixels have a colour, about."""
    return np.abs(picture - np.array(colour)).max(2) < 0.25


def middle_of(mask):
    """The mean column and row of pixels."""
    rows, columns = np.nonzero(mask)
    return columns.mean(), rows.mean()


def psnr(one, other):
    return -10 * math.log10(((one - other) ** 2).mean())


def test_colours_are_where_they_belong(tmp_path, chromium):
    picture = chromium.open(made(tmp_path, CORNERS, camera=STRAIGHT))
    assert picture.shape == (HEIGHT, WIDTH, 3)
    for place, colour in (
        (CORNERS.means[0], RED),
        (CORNERS.means[1], GREEN),
        (CORNERS.means[2], BLUE),
        (CORNERS.means[4], WHITE),  # what is nearer covers what is behind
    ):
        column, row = pixel(place.tolist())
        assert picture[row, column] == pytest.approx(np.array(colour), abs=0.03), colour
    column, row = pixel((-1.2, 0.8, 4.0))
    assert picture[row, column].max() < 0.02  # nothing left below
    assert np.abs(picture - picture[:, ::-1]).mean() > 0.01
    column, row = pixel((0.0, 0.6, 6.0))  # one deviation from what is behind shows e^-.5 of it
    assert picture[row, column] == pytest.approx(0.606 * np.array(BLUE), abs=0.05)


def rendered(gaussians, pose, *, antialiased=False, ground=(0.0, 0.0, 0.0)):
    """What our own rasterizer makes of splats."""
    eye = Eye(torch.from_numpy(pose), FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2, WIDTH, HEIGHT)
    manner = Manner(degree=gaussians.degree, antialiased=antialiased)
    image = draw(open_rasterizer("torch"), gaussians, eye, manner, torch.tensor(ground)).image
    return image.clamp(0, 1).numpy()


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_the_picture_is_that_of_our_own_rasterizer(tmp_path, chromium, degree):
    """Which cuts splats at 3.3 deviations, not at 2.8, and rounds once, not with every splat."""
    one = many(degree=degree)
    one.means[-3:] = torch.tensor([[2.2, 1.0, 1.5], [-2.2, 0.5, 1.2], [0.2, 2.0, 1.6]])  # beside the view, and large
    one.scales[-3:] = -1.0
    pose = turned()
    picture = chromium.open(made(tmp_path, one, camera={"pose": pose.tolist(), "fov": FOV}))
    expected = rendered(one, pose)
    assert expected.mean() > 0.08
    assert psnr(picture, expected) > 43
    assert abs(float((picture - expected).mean())) < 0.003


def test_splats_narrower_than_pixels(tmp_path, chromium):
    one = many(degree=0)
    one.scales[:] -= 2.5
    expected = [rendered(one, np.eye(4), antialiased=antialiased) for antialiased in (False, True)]
    assert expected[0].sum() > 2 * expected[1].sum()
    for antialiased in (False, True):
        picture = chromium.open(made(tmp_path, one, camera=STRAIGHT, comments=[mode_comment(antialiased)]))
        assert picture.sum() == pytest.approx(expected[antialiased].sum(), rel=0.03)
        assert psnr(picture, expected[antialiased]) > 50


def test_a_splat_file_and_a_ground(tmp_path, chromium):
    one = many(degree=0, seed=2)
    write_splat(tmp_path / "a.splat", one)
    (tmp_path / "camera.json").write_text(json.dumps(STRAIGHT))
    ground = (1.0, 0.8, 0.0)
    args = ("--camera", "camera.json", "--background", "#ffcc00", "--format", "splat")
    view(tmp_path, "a.splat", "-o", "a.html", *args)
    picture = chromium.open(tmp_path / "a.html")
    assert psnr(picture, rendered(one, np.eye(4), ground=ground)) > 38
    assert picture[2, 2] == pytest.approx(np.array(ground), abs=0.1)


def test_nothing_is_fetched_and_nothing_may_be(tmp_path, chromium):
    page = made(tmp_path, CORNERS, camera=STRAIGHT)
    chromium.open(page)
    asked = [event["params"]["request"]["url"] for event in chromium.events if event["method"].endswith("WillBeSent")]
    assert asked[0] == page.as_uri()
    assert all(url.startswith("blob:") for url in asked[1:]), asked
    wrong = [event for event in chromium.events if event["method"] in ("Log.entryAdded", "Runtime.exceptionThrown")]
    assert not wrong
    assert chromium.evaluate("document.getElementById('note').hidden") is True
    refused = "fetch('data:,x').then(() => 'fetched', () => 'refused')"
    assert chromium.evaluate(refused) == "refused"
    assert (
        chromium.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.owned=1\">')")
        is None
    )
    assert chromium.evaluate("new Promise((done) => setTimeout(() => done(window.owned ?? 0), 300))") == 0


BALLS = splats(  # what is turned around is 4 away: one in front of it, one behind, one beside
    ((0.0, 0.0, 4.0), WHITE, 0.1, 0.999),
    ((0.0, -0.3, 3.0), RED, 0.08, 0.999),
    ((0.0, 0.6, 5.0), GREEN, 0.1, 0.999),
)


def test_hands_turn_move_and_zoom(tmp_path, chromium):
    first = chromium.open(made(tmp_path, BALLS, camera=STRAIGHT))
    red, green, white = (middle_of(of_colour(first, colour)) for colour in (RED, GREEN, WHITE))
    count = of_colour(first, WHITE).sum()

    chromium.drag(40, 0)  # what is in front follows the hand, what is behind goes against it
    picture = chromium.still()
    assert middle_of(of_colour(picture, RED))[0] > red[0] + 10
    assert middle_of(of_colour(picture, GREEN))[0] < green[0] - 10
    assert middle_of(of_colour(picture, WHITE)) == pytest.approx(white, abs=1.5)
    chromium.press("r")
    assert np.abs(chromium.still() - first).max() < 0.02

    chromium.drag(0, -20)
    picture = chromium.still()
    assert middle_of(of_colour(picture, RED))[1] < red[1] - 5
    assert middle_of(of_colour(picture, WHITE)) == pytest.approx(white, abs=1.5)
    chromium.press("Home")
    assert np.abs(chromium.still() - first).max() < 0.02

    for how in ({"button": "right"}, {"modifiers": 8}):  # 8 is Shift
        chromium.drag(40, -20, **how)
        moved = middle_of(of_colour(chromium.still(), WHITE))
        assert moved == pytest.approx((white[0] + 40, white[1] - 20), abs=2)
        chromium.press("r")

    wheel = {"type": "mouseWheel", "x": 160, "y": 120, "deltaX": 0}
    chromium.call("Input.dispatchMouseEvent", deltaY=-300, **wheel)
    near = of_colour(chromium.still(), WHITE).sum()
    assert near > 1.5 * count
    chromium.press("r")


def test_keys(tmp_path, chromium):
    first = chromium.open(made(tmp_path, BALLS, camera=STRAIGHT))
    red, white = (middle_of(of_colour(first, colour)) for colour in (RED, WHITE))
    for key, modifiers, colour, moved in (
        ("ArrowLeft", 0, RED, (1, 0)),
        ("ArrowRight", 0, RED, (-1, 0)),
        ("ArrowUp", 0, RED, (0, 1)),
        ("ArrowDown", 0, RED, (0, -1)),
        ("ArrowLeft", 8, WHITE, (1, 0)),
        ("d", 0, WHITE, (-1, 0)),
        ("e", 0, WHITE, (0, 1)),
    ):
        chromium.press(key, modifiers=modifiers)
        now = middle_of(of_colour(chromium.still(), colour))
        before = red if colour is RED else white
        difference = (now[0] - before[0], now[1] - before[1])
        assert difference[0] * moved[0] + difference[1] * moved[1] > 2, (key, difference)
        chromium.press("r")
    for key, larger in (("+", True), ("w", True), ("-", False), ("s", False)):
        chromium.press(key)
        assert bool(chromium.still().sum() > first.sum()) is larger, key
        chromium.press("r")
    assert chromium.evaluate("document.querySelector('details').open") is False
    chromium.press("h")
    assert chromium.evaluate("document.querySelector('details').open") is True


def test_fingers(tmp_path, chromium):
    first = chromium.open(made(tmp_path, BALLS, camera=STRAIGHT))
    red, white = (middle_of(of_colour(first, colour)) for colour in (RED, WHITE))
    chromium.touch([(160, 120), (200, 120)])
    assert middle_of(of_colour(chromium.still(), RED))[0] > red[0] + 10
    chromium.press("r")
    chromium.touch([(130, 120), (100, 120)], [(190, 120), (220, 120)])
    picture = chromium.still()
    assert of_colour(picture, WHITE).sum() > 2 * of_colour(first, WHITE).sum()
    assert middle_of(of_colour(picture, WHITE)) == pytest.approx(white, abs=3)
    chromium.press("r")
    chromium.touch([(130, 120), (150, 90)], [(190, 120), (210, 90)])
    assert middle_of(of_colour(chromium.still(), WHITE)) == pytest.approx((white[0] + 20, white[1] - 30), abs=3)


def test_a_window_of_another_shape(tmp_path, chromium):
    page = made(tmp_path, BALLS, "--up", "-y")
    assert chromium.open(page, 200, 400).shape == (400, 200, 3)
    chromium.call("Emulation.setDeviceMetricsOverride", width=400, height=200, deviceScaleFactor=1, mobile=False)
    picture = chromium.still()
    assert picture.shape == (200, 400, 3)
    for colour in (RED, WHITE):
        assert of_colour(picture, colour).any()


def test_a_browser_without_webgl_is_told(tmp_path, chromium):
    page = made(tmp_path, CORNERS)
    script = "HTMLCanvasElement.prototype.getContext = () => null"
    added = chromium.call("Page.addScriptToEvaluateOnNewDocument", source=script)
    chromium.call("Page.navigate", url=page.as_uri())
    note = "document.getElementById('note')?.textContent ?? ''"
    frame.wait_until(lambda: "cannot be shown" in chromium.evaluate(note), "the page says what is wrong")
    chromium.call("Page.removeScriptToEvaluateOnNewDocument", **added)
