"""Means over images, scenes and groups, by hand; what does not belong together; tables and figures."""

from __future__ import annotations

import os
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from toolroll.errors import RowError, ToolrollError, UsageError
from toolroll.splat.benching import GROUPS, PAPER, PAPER_GROUPS, Bench, mean, paper_rows
from toolroll.splat.frequency import scene_frequency
from toolroll.splat.grouping import frequencies, groups_of, read_split
from toolroll.splat.labels import Labels
from toolroll.splat.report import _figure, check_files, draw, table_of, write_report

NOTHING = {"ssim": None, "lpips_alex": None, "lpips_vgg": None, "lpips_vgg_3dgs": None, "n_images": None}
ABOUT = {"ssim_border": "valid", "eight_bit": True, "images_folder": None, "frequency": None}


def seen(method, scene, image, psnr_db, **more):
    row = {"method": method, "scene": scene, "image": image, "psnr_db": psnr_db, "width": 48, "height": 32}
    return SimpleNamespace(**{**NOTHING, **ABOUT, **row, **more})


def bench_of(*rows):
    bench = Bench()
    for row in rows:
        bench.add(row)
    return bench


@pytest.fixture
def bench():
    return bench_of(
        seen("a", "one", "1", 20.0, ssim=0.5, lpips_alex=0.3),
        seen("a", "one", "2", 24.0, ssim=0.7, lpips_alex=0.1),
        seen("a", "two", "1", 30.0, ssim=0.9, lpips_alex=0.05),
        seen("b", "one", "1", 18.0, ssim=0.4, lpips_alex=0.4),
        seen("b", "one", "2", 18.0, ssim=0.4, lpips_alex=0.4),
        seen("b", "two", "1", 26.0, ssim=0.8, lpips_alex=0.2),
    )


LABELS = {"one": {"environment": "indoor", "reflection": "more_ref"}, "two": {"environment": "outdoor"}}


def test_scenes_count_once_each(bench):
    rows = list(bench.rows({}, "lpips-alex"))
    assert [(row["method"], row["group"], row["n_scenes"], row["n_images"]) for row in rows] == [
        ("a", "all", 2, 3),
        ("b", "all", 2, 3),
    ]
    a, b = rows
    assert a["psnr_db"] == pytest.approx((22 + 30) / 2)
    assert a["psnr_db_std"] == pytest.approx(8 / 2**0.5)  # n - 1
    assert (a["ssim"], a["lpips"]) == (pytest.approx(0.75), pytest.approx(0.125))
    assert (b["psnr_db"], b["ssim"]) == (pytest.approx(22.0), pytest.approx(0.6))
    assert {(row["lpips_kind"], row["ssim_border"], row["eight_bit"], row["source"]) for row in rows} == {
        ("lpips-alex", "valid", True, "scores")
    }


def test_groups_are_of_scenes_that_have_the_label(bench):
    rows = {(row["method"], row["group"]): row for row in bench.rows(LABELS, None)}
    assert [group for method, group in rows if method == "a"] == ["all", "indoor", "outdoor", "more_ref"]
    assert rows["a", "indoor"]["psnr_db"] == pytest.approx(22.0)
    assert rows["a", "more_ref"]["breakdown"] == "reflection"
    assert rows["b", "outdoor"]["psnr_db"] == 26.0
    assert rows["b", "outdoor"]["psnr_db_std"] is None  # of one scene
    assert rows["b", "outdoor"]["lpips"] is rows["b", "outdoor"]["lpips_kind"] is None


def test_order_changes_nothing_but_order(bench):
    turned = Bench()
    for method in ("b", "a"):
        for scene in ("two", "one"):
            for image, values in reversed(bench.scores[method][scene].images.items()):
                turned.add(seen(method, scene, image, values[0], ssim=values[1], lpips_alex=values[2]))
    found = sorted(
        turned.rows(LABELS, "lpips-alex"),
        key=lambda row: (row["method"], GROUPS.index((row["breakdown"], row["group"]))),
    )
    assert found == list(bench.rows(LABELS, "lpips-alex"))


def test_means_of_scenes_stand_for_their_images(bench):
    other = bench_of(
        seen("a", "one", None, 22.0, ssim=0.6, lpips_alex=0.2, n_images=2),
        seen("a", "two", "1", 30.0, ssim=0.9, lpips_alex=0.05),
    )
    (row,) = other.rows({}, "lpips-alex")
    wanted = next(iter(bench.rows({}, "lpips-alex")))
    assert row == {**wanted, "ssim": pytest.approx(wanted["ssim"]), "lpips": pytest.approx(wanted["lpips"])}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (seen("a", "one", "1", 20.0), "a has a score of 1 of one before"),
        (seen("a", "one", None, 20.0, n_images=3), "a has a score of all images of one before"),
        (seen("a", "one", "3", None), "no `psnr_db`"),
        (seen("a", "one", None, 20.0), "neither `image` nor `n_images`"),
        (seen("a", "three", None, 20.0, n_images=0), "`n_images` is 0"),
    ],
)
def test_rows_that_cannot_be_used(row, why, bench):
    with pytest.raises(RowError, match=why):
        bench.add(row)


def test_images_behind_the_mean_of_their_scene():
    bench = bench_of(seen("a", "one", None, 22.0, n_images=2))
    for image in ("1", None):
        with pytest.raises(RowError, match="before"):
            bench.add(seen("a", "one", image, 20.0, n_images=1))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"ssim_border": "same"}, "SSIM with border same, and with valid before"),
        ({"eight_bit": False}, "some pictures are rounded to 8 bits, and some are not"),
    ],
)
def test_other_rules_end_it(change, why, bench):
    with pytest.raises(ToolrollError, match=why) as raised:
        bench.add(seen("c", "one", "1", 20.0, **change))
    assert not isinstance(raised.value, RowError)  # so that no --on-error skips it


def test_kinds_of_lpips(bench):
    assert bench.kind(None) == bench.kind("lpips-alex") == "lpips-alex"
    with pytest.raises(UsageError, match="no row has lpips-vgg"):
        bench.kind("lpips-vgg")
    bench.add(seen("c", "one", "1", 20.0, ssim=0.1, lpips_vgg=0.5))
    with pytest.raises(UsageError, match="there are lpips-alex and lpips-vgg: choose one"):
        bench.kind(None)
    rows = {row["method"]: row for row in bench.rows({}, bench.kind("lpips-vgg"))}
    assert (rows["a"]["lpips"], rows["c"]["lpips"]) == (None, 0.5)
    assert bench_of(seen("a", "one", "1", 20.0)).kind(None) is None


def test_a_mean_needs_all_its_parts():
    bench = bench_of(
        seen("a", "one", "1", 20.0, ssim=0.5, lpips_alex=0.5),
        seen("a", "one", "2", 20.0, ssim=0.5),
        seen("a", "two", "1", 20.0, ssim=None, lpips_alex=0.5),
        seen("a", "two", "2", 20.0, ssim=0.7, lpips_alex=0.5),
    )
    (row,) = bench.rows({}, "lpips-alex")
    assert (row["psnr_db"], row["ssim"], row["ssim_std"], row["lpips"]) == (20.0, None, None, None)
    assert list(bench.differences("lpips-alex")) == [
        "a has no SSIM of some images of two, so that means are null",
        "a has no lpips-alex of some images of one, so that means are null",
    ]
    assert mean(iter([1.0, 3.0])) == 2.0


def test_what_is_hard_to_compare(bench):
    assert list(bench.differences("lpips-alex")) == []
    for scene in ("three", "four", "five", "six"):
        bench.add(seen("a", scene, "1", 20.0, ssim=0.5, lpips_alex=0.5))
    bench.add(seen("b", "two", "2", 20.0, ssim=0.5, lpips_alex=0.5))
    assert list(bench.differences("lpips-alex")) == [
        "b has no scores of three, four, five and 1 more (--common leaves out such scenes)",
        "two: methods have different numbers of images (a 1, b 2)",
    ]
    bench.keep_common()
    assert bench.scenes() == ["one", "two"]
    with pytest.raises(ToolrollError, match="no scene has scores of all methods"):
        bench_of(seen("a", "one", "1", 20.0), seen("b", "two", "1", 20.0)).keep_common()


# --- groups


def said(warnings, bench, table, split=None):
    return groups_of(bench, table, split, warnings.append, warnings.append)


def test_labels_of_a_table(bench):
    table = {
        "one": Labels({"environment": "indoor", "reflection": "medium", "transparency": "none"}, {}),
        "two": Labels({"environment": "outdoor"}, {}),
        "other": Labels({"frequency": "high_freq"}, {}),
    }
    warnings = []
    assert said(warnings, bench, table) == {
        "one": {"environment": "indoor", "reflection": "more_ref", "transparency": "less_transp"},
        "two": {"environment": "outdoor"},
    }
    assert warnings == [
        f"{key}: no label of 1 in 2 scenes, which are left out" for key in ("reflection", "transparency")
    ]
    warnings = []
    assert said(warnings, bench, {"elsewhere": Labels({}, {})}) == {"one": {}, "two": {}}
    assert warnings == ["the table of labels has none of the scenes"]


def test_frequency_of_rows_photos_and_labels(tmp_path):
    draws = np.random.default_rng(0)
    for name, fine in (("flat", 0), ("rough", 90)):
        (tmp_path / name).mkdir()
        for number in range(2):
            pixels = 128 + draws.integers(-fine, fine + 1, (32, 48, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / name / f"{number}.png")
    bench = bench_of(
        seen("a", "flat", "1", 20.0, images_folder=str(tmp_path / "flat")),
        seen("a", "rough", "1", 20.0, images_folder=str(tmp_path / "rough")),
        seen("a", "told", "1", 20.0, frequency=1e-9, images_folder="/gone"),
        seen("a", "unknown", "1", 20.0, images_folder="/gone"),
    )
    rough = scene_frequency(sorted((tmp_path / "rough").iterdir()))
    assert rough > 1e-4
    warnings = []
    found = frequencies(bench, None, warnings.append, warnings.append)
    assert found == {"flat": "low_freq", "told": "low_freq", "rough": "high_freq"}  # 0, the median, and above
    assert frequencies(bench, 2 * rough, print, print) == dict.fromkeys(("told", "flat", "rough"), "low_freq")
    table = {"flat": Labels({"frequency": "high_freq"}, {})}
    assert said([], bench, table) == {"flat": {"frequency": "high_freq"}, "rough": {}, "told": {}, "unknown": {}}
    assert said([], bench, table, "median")["flat"] == {"frequency": "low_freq"}
    assert not any(said([], bench, table, "none").values())


def test_frequency_of_one_scene_and_of_photos_of_several_sizes():
    bench = bench_of(seen("a", "one", "1", 20.0, frequency=2.0))
    assert frequencies(bench, "median", print, print) == {}
    assert frequencies(bench, 1.0, print, print) == {"one": "high_freq"}
    bench.add(seen("a", "two", "1", 20.0, frequency=3.0, width=96))
    warnings = []
    assert frequencies(bench, "median", print, warnings.append) == {"one": "low_freq", "two": "high_freq"}
    assert "different sizes" in warnings[0]
    for text in ("mean", "nan", "inf", "-1e999", ""):
        with pytest.raises(UsageError, match="none of median"):
            read_split(text)


def test_a_damaged_photo_costs_a_scene_its_frequency_alone(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (48, 32), "red").save(tmp_path / name / "1.png")
    (tmp_path / "one/2.png").write_bytes(b"no photo")
    bench = bench_of(*(seen("a", name, "1", 20.0, images_folder=str(tmp_path / name)) for name in ("one", "two")))
    warnings = []
    assert frequencies(bench, 1.0, print, warnings.append) == {"two": "low_freq"}
    assert warnings == [f"no frequency of one: {tmp_path}/one/2.png: not an image"]


def test_a_row_that_cannot_be_used_says_nothing_of_the_rules():
    bench = Bench()
    for row in (seen("a", "one", "1", None, eight_bit=False), seen("a", "one", None, 20.0, ssim_border="same")):
        with pytest.raises(RowError):
            bench.add(row)
    bench.add(seen("a", "one", "1", 20.0))
    assert bench.rules == ("valid", True)


# --- the paper


def test_numbers_of_the_paper():
    rows = {(row["method"], row["group"]): row for row in paper_rows()}
    assert rows["3DGS (paper)", "all"] | {"lpips": 0.12} == rows["3DGS (paper)", "all"]
    assert [rows["3DGS (paper)", group]["psnr_db"] for _, group in GROUPS] == [
        *(29.82, 30.6, 28.1, 29.2, 31.1, 29.8, 29.9, 29.5, 30.2)
    ]
    assert rows["Zip-NeRF (paper)", "less_transp"]["psnr_db"] == 31.6
    assert ("Zip-NeRF* (paper)", "indoor") not in rows
    for row in rows.values():
        assert (row["lpips_kind"], row["ssim_border"], row["eight_bit"]) == ("not stated", "not stated", None)
        assert row["source"] == "paper"
        assert row["psnr_db_std"] is row["ssim_std"] is None
    for method, values in PAPER_GROUPS.items():  # what lies on both sides of the whole
        for low, high in zip(values[::2], values[1::2], strict=True):
            assert min(low, high) - 0.6 < PAPER[method][0] < max(low, high) + 0.6


# --- tables and figures


def rows_of(bench, paper=False):
    return [*bench.rows(LABELS, "lpips-alex"), *(paper_rows() if paper else ())]


def test_a_table(bench):
    lines = table_of(rows_of(bench)).splitlines()
    assert lines[0] == "| method | scenes | images | PSNR (dB) | SSIM | LPIPS |"
    assert lines[2] == "| a | 2 | 3 | 26.00 ± 5.66 | 0.750 ± 0.212 | 0.125 ± 0.106 |"
    start = lines.index("PSNR (dB) by group:")
    assert lines[start + 2 : start + 6] == [
        "| method | indoor (1) | outdoor (1) | more_ref (1) |",
        "| :-- | --: | --: | --: |",
        "| a | 22.00 | 30.00 | 22.00 |",
        "| b | 18.00 | 26.00 | 18.00 |",
    ]
    assert "SSIM border: valid" in lines[-1]
    assert "LPIPS: lpips-alex." in lines[-1]
    assert "rounded to 8 bits" in lines[-1]
    assert "paper" not in table_of(rows_of(bench))


def test_a_table_beside_the_paper(bench):
    text = table_of(rows_of(bench, paper=True))
    assert "| 3DGS (paper) | 140 | - | 29.82 | 0.919 | 0.120 |" in text
    assert "| 3DGS (paper) | 30.6 | 28.1 | 29.2 | 31.1 | 29.8 | 29.9 | 29.5 | 30.2 |" in text
    assert "| a | 22.00 | 30.00 | - | - | 22.00 | - | - | - |" in text
    assert text.count("Zip-NeRF*") == 1  # it has no groups
    assert "other scenes than these" in text
    ssim = text[text.index("SSIM by group") :]
    assert "(paper) |" not in ssim[: ssim.index("\n\n", 20)]


def test_a_table_of_names_with_bars():
    bench = bench_of(seen("a|b", "one", "1", 20.0, ssim=0.5))
    assert "| a\\|b | 1 | 1 | 20.00 | 0.500 | - |" in table_of(list(bench.rows({}, None)))
    bench = bench_of(seen("a\nb\r\n  c", "one", "1", 20.0, ssim=0.5))
    assert "| a b c | 1 | 1 | 20.00 | 0.500 | - |" in table_of(list(bench.rows({}, None)))


def test_bars_and_lines(bench):
    known = {(row["method"], row["group"]): row for row in rows_of(bench)}
    figure = _figure(known, {"a": "red", "b": "blue"}, "psnr_db")
    panels = {axes.get_title(): axes for axes in figure.axes}
    assert list(panels) == ["all scenes", "environment", "reflection"]
    heights = {name: [bar.get_height() for bar in axes.patches] for name, axes in panels.items()}
    assert heights == {"all scenes": [26.0, 22.0], "environment": [22.0, 30.0, 18.0, 26.0], "reflection": [22.0, 18.0]}
    places = [bar.get_x() + bar.get_width() / 2 for bar in panels["environment"].patches]
    assert [round(place) for place in places] == [0, 1, 0, 1]
    assert places[0] < places[2]
    ((low, high),) = [line.get_segments()[0][:, 1] for line in panels["all scenes"].collections[:1]]
    assert (low, high) == (pytest.approx(26 - 8 / 2**0.5), pytest.approx(26 + 8 / 2**0.5))
    assert not panels["environment"].collections  # of one scene each
    assert [text.get_text() for text in panels["environment"].get_xticklabels()] == ["indoor", "outdoor"]
    assert panels["all scenes"].get_ylim()[0] == 0
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_figures_in_files(suffix, start, bench, tmp_path):
    files = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for file in files:
        draw(rows_of(bench, paper=True), file)
    assert files[0].read_bytes().startswith(start)
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize("metric", ["psnr_db", "ssim", "lpips"])
def test_a_figure_says_its_rules_and_takes_any_name(metric, bench, tmp_path):
    for image in ("1", "2"):
        bench.add(seen("_$a^{", "one", image, -3.0, ssim=-0.1, lpips_alex=0.4))
    bench.add(seen("漢字", "one", "1", 20.0, ssim=0.1, lpips_alex=0.4))
    draw(rows_of(bench), tmp_path / "a.svg", metric)
    comments = re.findall(r"<!-- (.*?) -->", (tmp_path / "a.svg").read_text())  # matplotlib's, of each text
    caption = " ".join(comments)
    for rule in ("SSIM border: valid", "LPIPS: lpips-alex", "rounded to 8 bits"):
        assert rule in caption
    assert any("_" in one and "a^{" in one for one in comments)


def test_reports_that_cannot_be_written(bench, tmp_path):
    rows = rows_of(bench)
    with pytest.raises(UsageError, match=r"has to end in one of \.png, \.svg, \.pdf"):
        check_files(None, tmp_path / "a.jpg")
    os.mkfifo(tmp_path / "pipe.md")
    for name, why in (("gone/t.md", "No such file"), (".", "Is a directory")):
        with pytest.raises(ToolrollError, match=why):
            check_files(tmp_path / name, None)
    check_files(tmp_path / "new.md", tmp_path / "new.svg")
    check_files(tmp_path / "pipe.md", None)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe.md"]
    with pytest.raises(ToolrollError, match="No such file or directory"):
        write_report(rows, tmp_path / "gone/t.md", None, "psnr_db")
    with pytest.raises(ToolrollError, match="there is no LPIPS to draw"):
        draw(list(bench.rows({}, None)), tmp_path / "a.png", "lpips")
