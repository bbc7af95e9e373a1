"""nvs-prep: check scenes for novel view synthesis, and write them in another form.

Makes rows of its own. What kinds of files there are: toolroll.splat.finding. Paper: arXiv:2312.16256.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from toolroll.cli import command, uses_seed
from toolroll.errors import ToolrollError, UsageError
from toolroll.records import field_types
from toolroll.records.nvs import NvsScene

if TYPE_CHECKING:
    from toolroll.run.log import Log
    from toolroll.run.signals import StopFlag
    from toolroll.splat.labels import Labels
    from toolroll.splat.preparing import Output

EXAMPLES = """
  What is in a scene, and what is wrong with it:
    nvs-prep tests/data/plush --images images_16
  As a model of COLMAP, its photos straightened, for programs that want pinholes:
    nvs-prep tests/data/plush --images images_16 --to colmap-binary --undistort --out straight > straight.jsonl
  The scenes of a batch of DL3DV, with those that are broken named and passed over:
    nvs-prep DL3DV/1K/* --images images_8 --on-error skip > scenes.jsonl
  Outdoor scenes alone, without those of the benchmark, each written with its points and a split:
    nvs-prep DL3DV/2K/* --labels LABELS.csv --where environment=outdoor --without BENCHMARK-META.csv --to transforms \\
      --out new
"""

NOTES = """
SCENE is a folder with one of these, or with one of these in its folder nerfstudio or gaussian_splat:

    transforms.json             of nerfstudio (and DL3DV), or instant-ngp
    transforms_train.json       of Blender; with _val and _test
    sparse/0, colmap/sparse/0   of COLMAP, text or binary; or sparse, or the folder of cameras, images and points3D

Intrinsics are for the size the files name; they are scaled by the real size of each photo, each axis on its own. Photos
lie as their pixels do in the file: an EXIF orientation is not applied. Photos that are missing, cannot be read or have
another shape than their lens, and poses that are none, are left out with a warning; --strict ends there.

Points of a transforms.json are those of its ply_file_path, else COLMAP's, brought into its world by applied_transform
and applied_scale, which the cameras that are in both confirm. Without that key the cameras tell, or else it is the one
of nerfstudio's older files. What is written is in the world of the input's frames: OpenCV's axes for COLMAP, OpenGL's
for transforms.json. Observations and tracks of COLMAP are not kept. COLMAP's text files have no blanks in names, so
that photos with such names want colmap-binary. --overwrite first takes away what made the folder a scene:
transforms.json, points.ply, split.json, and the files of sparse/0; photos of other names stay.

--split: every:N tests each Nth photo by name, from the first; fraction:F trains on an evenly spread share; file:FILE
has lists train, val, test as JSON, or names to test, one a line; own is what the scene says; auto is own, else every:8.
It is written as train_filenames and so on, or beside COLMAP's model as split.json and test.txt.

--where takes environment=indoor|outdoor, frequency=high_freq|low_freq, reflection=more_ref|less_ref (or more, medium,
less, none), transparency=more_transp|less_transp, light=natural|artificial|mixed, or a column of the table, in which a
value that is no such level counts as a text. One key twice means either; several keys, all of them. A scene is found in
the table by its folder's name.

--points random:N fills a cube of 3 times the cameras' extent; ply:FILE is in the world of the scene; sift finds points
with pycolmap from the photos and the given poses.
"""


@command(
    "nvs-prep",
    system="DL3DV",
    adds=field_types(NvsScene, *NvsScene.__struct_fields__),
    key=("id",),
    source=True,
    slow=True,
    epilog="See nvs-train(1), nvs-bench(1), toolroll-records(5).",
)
@click.argument("scenes", metavar="SCENE...", nargs=-1, required=True, help="Folders of scenes.")
@click.option("--images", metavar="NAME", help="The folder of photos in a scene, as images_8; else the largest.")
@click.option(
    "--to", type=click.Choice(["transforms", "colmap-text", "colmap-binary"]), help="Write each scene in this form."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write into this folder; several scenes each into a folder of their own in it.",
)
@click.option("--undistort", is_flag=True, help="Straighten photos, so that lenses are pinholes; sizes stay.")
@click.option("--copy", is_flag=True, help="Copy photos; else they are linked to.")
@click.option("--overwrite", is_flag=True, help="Write into folders that have something in them.")
@click.option("--split", default="auto", show_default=True, metavar="RULE", help="Which photos are tested: see below.")
@click.option(
    "--points", default="scene", show_default=True, metavar="KIND", help="scene, random:N, ply:FILE or sift: see below."
)
@click.option("--labels", type=click.Path(path_type=Path), metavar="TABLE", help="DL3DV's labels, a CSV.")
@click.option("--where", multiple=True, metavar="KEY=VALUE", help="Only scenes with this label.")
@click.option(
    "--without", type=click.Path(path_type=Path), metavar="TABLE", help="Leave out the scenes that this CSV names."
)
@click.option("--strict", is_flag=True, help="Fail where a photo is missing or left out.")
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip", "keep"]),
    default="stop",
    show_default=True,
    help="A scene that cannot be read: stop; skip it; or keep its name with an `error` field.",
)
@uses_seed
def main(
    *,
    scenes: tuple[str, ...],
    to: Literal["transforms", "colmap-text", "colmap-binary"] | None,
    out: Path | None,
    undistort: bool,
    copy: bool,
    overwrite: bool,
    labels: Path | None,
    where: tuple[str, ...],
    without: Path | None,
    on_error: str,
    output: str | None,
    log: Log,
    stop: StopFlag,
    **options: Any,
) -> Iterator[dict[str, Any]]:
    """Check scenes for novel view synthesis, and write them in another form.

    A row a scene: photos, sizes, lens, points, split, and what is wrong.
    """
    from toolroll.io.paths import check_apart
    from toolroll.splat.entries import sayable
    from toolroll.splat.labels import check_where, fits, read_labels, read_where, scene_name
    from toolroll.splat.preparing import Output
    from toolroll.splat.refused import Refused

    if (to is None) != (out is None):
        raise UsageError(
            "goes with --out DIR" if out is None else "goes with --to FORM", place="--to" if to else "--out"
        )
    if to is None and (undistort or copy or overwrite or options["points"] == "sift"):
        raise UsageError("--undistort, --copy, --overwrite and --points sift go with --to")
    if where and labels is None:
        raise UsageError("goes with --labels TABLE", place="--where")
    own = [Path(scene, "transforms.json") for scene in scenes]
    check_apart((output,), (labels, without, *map(_file_of, (options["split"], options["points"])), *own))
    table = {} if labels is None else read_labels(labels)
    conditions = read_where(where)
    check_where(conditions, table)
    left_out = set() if without is None else set(read_labels(without))
    names = [scene_name(os.path.realpath(scene)) for scene in scenes]
    if out is not None and len(set(names)) < len(names):
        raise UsageError("two scenes have the same name", place="--out")
    form = None if to is None else Output(to, undistort, copy, overwrite)
    refused = Refused(log, on_error)
    for scene, name in zip(scenes, names, strict=True):
        if stop:
            return
        log.counts.read += 1
        if name in left_out or not fits(table.get(name), conditions):
            log.counts.skipped += 1
            log.info("left out by --where or --without", scene)
            continue
        try:
            target = out if out is None or len(scenes) == 1 else out / name
            row = _row(scene, name, table.get(name), labels is not None, form, target, log, **options)
        except UsageError:
            raise
        except ToolrollError as error:
            row = {"id": name, "scene_path": scene, "error": {"why": error.why, "where": error.place or scene}}
            if refused(type(error)(error.why, place=error.place or scene)):
                continue
        yield sayable(row)


def _file_of(option: str) -> str | None:
    """The file in file:FILE or ply:FILE."""
    kind, _, name = option.partition(":")
    return name if kind in ("file", "ply") and name else None


def _row(
    scene: str,
    name: str,
    labels: Labels | None,
    labelled: bool,
    form: Output | None,
    target: Path | None,
    log: Log,
    *,
    images: str | None,
    split: str,
    points: str,
    strict: bool,
    seed: int,
) -> dict[str, Any]:
    """A scene's row; with `form`, the scene is written into `target`."""
    from dataclasses import replace

    from toolroll.splat.finding import open_scene
    from toolroll.splat.preparing import about, points_for, prepare
    from toolroll.splat.splitting import part_shots, rule_of

    found = open_scene(scene, images=images, strict=strict)
    rule = rule_of(found.shots, split)
    try:
        shots, warnings = part_shots(found.shots, rule)
        found = replace(found, points=points_for(found, points, seed, warnings.append))
    except ToolrollError as error:
        raise type(error)(error.why, place=error.place or scene) from error
    if len(found.points):
        found = replace(found, warnings=tuple(one for one in found.warnings if one != "no points"))
    if labelled and labels is None:
        warnings.append("the table of labels does not have it")
    found = replace(found, shots=shots, warnings=(*found.warnings, *warnings))
    if form is not None and target is not None:
        prepare(found, target, form, given=Path(scene))
    row = {"id": name, "scene_path": scene, **about(found), "split_rule": rule}
    for warning in row["warnings"]:
        log.warn(warning, scene)
    counts = {f"n_{part}": sum(shot.part == part for shot in shots) for part in ("train", "val", "test")}
    said = None if labels is None else {**labels.texts, **labels.groups()}
    written = None if target is None else str(target)
    return {**row, **counts, "labels": said, "written": written}
