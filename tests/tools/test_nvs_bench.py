"""nvs-bench: rows and folders of several methods over scenes, with labels, a table and a figure."""

from __future__ import annotations

import json

import frame
import numpy as np
import pytest
from PIL import Image

from toolroll.splat.drawn import write_scene

SIZE = (48, 32)
LABELS = "hash,bd,reflection\nA,bd,abs reflection\nb,unbd,somehow-nonreflection\nC,bd,nan\n"


def run(folder, command, *args, rc=0, stdin=b""):
    result = frame.run([str(frame.BIN / command), *map(str, args)], cwd=folder, stdin=stdin)
    assert result.rc == rc, result.err
    assert "Traceback" not in result.err
    return result


def row_of(method="m", scene="a", image="1", psnr_db=20.0, ssim=0.5, **more):
    about = {"ssim_border": "valid", "eight_bit": True}
    return {"method": method, "scene": scene, "image": image, "psnr_db": psnr_db, "ssim": ssim, **about, **more}


def lines(*rows):
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Three scenes, and what two methods made of them: photos with more noise, and with less."""
    root = tmp_path_factory.mktemp("bench")
    draws = np.random.default_rng(0)
    for number, name in enumerate("Abc"):
        scene = write_scene(root / "scenes" / name, shots=9, size=SIZE, seed=number, points=40)
        for method, noise in (("fine", 0.02), ("coarse", 0.08)):
            for shot in (scene.shots[0], scene.shots[8]):
                photo = np.asarray(Image.open(shot.path)) / 255
                made = np.clip(photo + draws.normal(0, noise * (1 + number), photo.shape), 0, 1)
                path = root / method / name / "test/rgb" / shot.name
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(np.rint(made * 255).astype(np.uint8)).save(path)
    (root / "labels.csv").write_text(LABELS)
    return root


FOLDERS = ("fine=fine/{scene}/test/rgb", "coarse=coarse/{scene}/test/rgb", "--scene", "scenes/{scene}")


@pytest.fixture(scope="module")
def scored(root):
    """The rows of nvs-eval for the same."""
    rows = []
    for method in ("fine", "coarse"):
        for name in "Abc":
            args = (f"{method}/{name}/test/rgb", "--scene", f"scenes/{name}", "--method", method, "--frequency", "-q")
            rows += run(root, "nvs-eval", *args).rows
    return rows


def test_folders_and_rows_give_the_same(root, scored):
    found = run(root, "nvs-bench", *FOLDERS, "--labels", "labels.csv")
    piped = run(root, "nvs-bench", "--labels", "labels.csv", stdin=lines(*scored))
    assert found.rows == piped.rows
    assert "12 in, 14 out" in found.err
    whole = {row["method"]: row for row in found.rows if row["group"] == "all"}
    for method in ("fine", "coarse"):
        by_scene = [
            np.mean([row["psnr_db"] for row in scored if (row["method"], row["scene"]) == (method, name)])
            for name in "abc"
        ]
        assert whole[method]["psnr_db"] == pytest.approx(np.mean(by_scene))
        assert whole[method]["psnr_db_std"] == pytest.approx(np.std(by_scene, ddof=1))
        assert (whole[method]["n_scenes"], whole[method]["n_images"]) == (3, 6)
        assert (whole[method]["lpips"], whole[method]["lpips_kind"]) == (None, None)
    assert whole["fine"]["psnr_db"] > whole["coarse"]["psnr_db"] + 5
    groups = [(row["breakdown"], row["group"], row["n_scenes"]) for row in found.rows if row["method"] == "fine"]
    assert groups == [
        ("all", "all", 3),
        ("environment", "indoor", 2),
        ("environment", "outdoor", 1),
        ("frequency", "high_freq", 1),
        ("frequency", "low_freq", 2),
        ("reflection", "more_ref", 1),
        ("reflection", "less_ref", 1),
    ]
    assert "nvs-bench: warning: reflection: no label of 1 in 3 scenes, which are left out" in found.complaints


def test_rows_of_a_file_beside_folders(root, scored, tmp_path):
    (tmp_path / "other=1.jsonl").write_bytes(lines(*({**row, "method": "other"} for row in scored[:6])))
    args = (tmp_path / "other=1.jsonl", *FOLDERS[:1], *FOLDERS[2:], "--freq-split", "none")
    rows = run(root, "nvs-bench", *args).rows
    assert [row["method"] for row in rows] == ["other", "fine"]
    assert rows[0] | {"method": "fine"} == rows[1]


def test_means_of_scenes(root, scored):
    args = ("fine/A/test/rgb", "--scene", "scenes/A", "--method", "fine", "--summary", "-q")
    summary = run(root, "nvs-eval", *args).out
    (row,) = run(root, "nvs-bench", stdin=summary).rows
    both = [row for row in scored if (row["method"], row["scene"]) == ("fine", "a")]
    assert row["psnr_db"] == pytest.approx(np.mean([one["psnr_db"] for one in both]))
    assert row["n_images"] == 2


def test_frequency(scored):
    values = {row["scene"]: row["frequency"] for row in scored}
    limit = np.mean(sorted(values.values())[:2])
    for args, high in (((), 1), (("--freq-split", "median"), 1), (("--freq-split", limit), 2)):
        rows = run(None, "nvs-bench", *args, stdin=lines(*scored[:6])).rows
        assert {row["group"]: row["n_scenes"] for row in rows} == {"all": 3, "high_freq": high, "low_freq": 3 - high}
    result = run(None, "nvs-bench", "--freq-split", "half", stdin=lines(*scored), rc=2)
    assert result.err == "nvs-bench: --freq-split: is none of median, a number and none\n"


def test_a_table_and_a_figure_beside_the_paper(root, scored, tmp_path):
    args = ("--labels", root / "labels.csv", "--paper", "--table", "t.md", "--plot", "p.png")
    rows = run(tmp_path, "nvs-bench", *args, stdin=lines(*scored)).rows
    assert {row["source"] for row in rows} == {"scores", "paper"}
    text = (tmp_path / "t.md").read_text()
    assert "| 3DGS (paper) | 140 | - | 29.82 | 0.919 | 0.120 |" in text
    assert "| fine | 3 | 6 |" in text
    for rule in ("SSIM border: valid", "LPIPS: none", "rounded to 8 bits", "other scenes than these"):
        assert rule in text
    picture = np.asarray(Image.open(tmp_path / "p.png").convert("RGB"))
    assert (picture == (31, 119, 180)).all(-1).sum() > 1000  # the first method's bars
    assert (picture == 255).all(-1).mean() > 0.4


def test_kinds_of_lpips():
    rows = lines(row_of("x", lpips_alex=0.1, lpips_vgg=0.3), row_of("y", lpips_alex=0.2, lpips_vgg=0.4))
    result = run(None, "nvs-bench", stdin=rows, rc=2)
    assert result.err == "nvs-bench: --lpips: there are lpips-alex and lpips-vgg: choose one\n"
    found = run(None, "nvs-bench", "--lpips", "lpips-vgg", stdin=rows).rows
    assert [(row["lpips"], row["lpips_kind"]) for row in found] == [(0.3, "lpips-vgg"), (0.4, "lpips-vgg")]


@pytest.mark.parametrize("mode", ["stop", "skip", "keep"])
@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"ssim_border": "same"}, "SSIM with border same, and with valid before: not one benchmark"),
        ({"eight_bit": False}, "some pictures are rounded to 8 bits, and some are not: not one benchmark"),
    ],
)
def test_rules_are_never_mixed(change, why, mode):
    result = run(None, "nvs-bench", "--on-error", mode, stdin=lines(row_of(), row_of(image="2", **change)), rc=1)
    assert (result.out, result.err) == (b"", f"nvs-bench: stdin:2: {why}\n")


def test_bad_rows():
    rows = lines(
        row_of(),
        row_of(),
        {key: value for key, value in row_of(image="2").items() if key != "psnr_db"},
        row_of(image="3", psnr_db=None),
        row_of(image="4", error={"why": "no picture of this photo", "where": "x"}),
        row_of(image="5", psnr_db=30.0),
    )
    result = run(None, "nvs-bench", "--on-error", "skip", stdin=rows)
    assert result.complaints == [
        "nvs-bench: stdin:2: m has a score of 1 of a before",
        "nvs-bench: stdin:3: missing required field `psnr_db`",
        "nvs-bench: stdin:4: no `psnr_db`",
    ]
    assert "1 passed on" in result.err
    assert [(row["psnr_db"], row["n_images"]) for row in result.rows] == [(25.0, 2)]
    result = run(None, "nvs-bench", stdin=rows, rc=1)
    assert result.err == "nvs-bench: stdin:2: m has a score of 1 of a before\n"


def test_folders_that_cannot_be_scored(root, tmp_path):
    wrong = run(root, "nvs-bench", "fine=fine/{scene}/test/rgb", rc=2)
    assert "fine/A/test/rgb: is no folder of nvs-train" in wrong.err
    for argument, why in (("x=gone", "gone/{scene}: no folder of a scene"), ("=fine", "=fine: want METHOD=DIR")):
        result = run(root, "nvs-bench", argument, "-q", rc=1 if "gone" in argument else 2)
        assert result.err == f"nvs-bench: {why}\n"
    args = ("fine=fine/{scene}/test/rgb", "--scene", "scenes/{scene}", "--split", "every:4")
    result = run(root, "nvs-bench", *args, "-q", rc=1)
    assert result.err == "nvs-bench: fine/A/test/rgb/frame_00005.png: no picture of this photo\n"
    rows = run(root, "nvs-bench", *args, "--on-error", "skip", "--freq-split", "none").rows
    assert [(row["n_scenes"], row["n_images"]) for row in rows] == [(3, 6)]
    given_up = run(root, "nvs-bench", *args, "--on-error", "skip", "--max-errors", 1, rc=1)
    assert given_up.complaints[-1].endswith("more than 1 bad rows")


def test_scenes_that_a_method_lacks():
    rows = lines(row_of("x"), row_of("x", "b", psnr_db=40.0), row_of("y"))
    result = run(None, "nvs-bench", stdin=rows)
    assert result.complaints == ["nvs-bench: warning: y has no scores of b (--common leaves out such scenes)"]
    assert [row["psnr_db"] for row in result.rows] == [30.0, 20.0]
    common = run(None, "nvs-bench", "--common", stdin=rows)
    assert (common.complaints, [row["psnr_db"] for row in common.rows]) == ([], [20.0, 20.0])


@pytest.mark.parametrize(
    ("args", "rc", "why"),
    [
        (("--table", "."), 1, ".: Is a directory"),
        (("--table", "/dev/full"), 1, "/dev/full: No space left on device"),
        (("--table", "a.svg", "--plot", "./a.svg"), 2, "a.svg: two outputs cannot be the same file"),
        (("--table", "a.md", "-o", "a.md"), 2, "a.md: two outputs cannot be the same file"),
        (("--freq-split", "nan"), 2, "--freq-split: is none of median, a number and none"),
        (("--plot", "p.jpg"), 2, "p.jpg: has to end in one of .png, .svg, .pdf"),
        (("--labels", "gone.csv"), 1, "gone.csv: No such file or directory"),
        (("--table", "gone/t.md"), 1, "gone/t.md: No such file or directory"),
        (("--lpips", "lpips-vgg"), 2, "--lpips: no row has lpips-vgg"),
    ],
)
def test_usage(args, rc, why, tmp_path):
    result = run(tmp_path, "nvs-bench", *args, "-q", stdin=lines(row_of()), rc=rc)
    assert (result.out, result.err) == (b"", f"nvs-bench: {why}\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--table", "--plot"])
def test_inputs_are_not_written_over(option, tmp_path):
    for name, data in (("rows.svg", lines(row_of())), ("labels.svg", LABELS.encode())):
        (tmp_path / name).write_bytes(data)
        result = run(tmp_path, "nvs-bench", "rows.svg", "--labels", "labels.svg", option, name, rc=2)
        assert result.err == f"nvs-bench: {name}: input and output are the same file\n"
        assert (tmp_path / name).read_bytes() == data


def test_many_pictures_that_cannot_be_scored(root, tmp_path):
    for number in range(30):
        (tmp_path / f"runs/{number}").mkdir(parents=True)
    (tmp_path / "rows.jsonl").write_bytes(lines(row_of()))
    args = ("rows.jsonl", "x=runs", "--truth", "photos", "--on-error", "skip")
    result = run(tmp_path, "nvs-bench", *args)
    told = [line for line in result.complaints if "photos: No such file" in line]
    assert len(told) == 20
    assert told[-1].endswith("(further bad rows are counted, not shown)")
    assert "30 errors" in result.err


def test_values_of_labels_that_mean_nothing(tmp_path):
    (tmp_path / "l.csv").write_text("hash,reflection\na,abs reflection\nb,yes\n")
    result = run(tmp_path, "nvs-bench", "--labels", "l.csv", stdin=lines(row_of(), row_of(scene="b", psnr_db=30.0)))
    assert [(row["group"], row["psnr_db"]) for row in result.rows] == [("all", 25.0), ("more_ref", 20.0)]
    assert result.complaints == ["nvs-bench: warning: reflection: no label of 1 in 2 scenes, which are left out"]
