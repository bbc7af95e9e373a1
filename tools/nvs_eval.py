"""nvs-eval: score the pictures that were made of a scene: PSNR, SSIM, LPIPS.

What is compared with what: toolroll.splat.pairing; scores: toolroll.splat.metrics, toolroll.splat.lpips. Paper:
arXiv:2312.16256.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import GroupedOption, command, option_group
from toolroll.errors import ToolrollError, UsageError
from toolroll.records import field_types
from toolroll.records.nvs import NvsSceneScore, NvsScore
from toolroll.splat.score_options import ScoreOptions, score_options

if TYPE_CHECKING:
    from toolroll.run.log import Log
    from toolroll.run.signals import StopFlag
    from toolroll.splat.scoring import Judge, Row

EXAMPLES = """
  A scene that nvs-train learned: a row for each test photo, then the means:
    nvs-train tests/data/plush --images images_16 --steps 10 --out plush > plush.jsonl
    nvs-eval plush
    nvs-eval plush --summary
  With LPIPS, whose network is a file of weights:
    nvs-eval PLUSH --lpips-weights LPIPS_ALEX.safetensors
  Pictures of other programs. Those of ns-render, beside the photos; of gsplat's trainer, with the photos in them; of
  3D Gaussian splatting's render.py, numbered, as photos of a scene:
    nvs-eval RENDERS/test/rgb --truth RENDERS/test/gt-rgb --method nerfacto --scene-name garden
    nvs-eval GARDEN/renders --side-by-side --only 'val_step29999_*' --method gsplat
    nvs-eval OUT/test/ours_30000/renders --scene GARDEN --images images_4 --by-order --method 3dgs-inria
"""

NOTES = """
Each DIR is one of these:

    a folder of nvs-train   its renders/, with the tested photos of the scene that train.json names, straightened and
                            with their masks, as they were trained on; --scene says where the scene is now
    any folder              with --scene: pictures named as the tested photos of a scene
    any folder              with --truth: pictures named as photos in another folder; other photos do not count
    any folder              with --side-by-side: photo and picture in one file, as gsplat's trainer writes them into
                            renders/, and ns-eval --render-output-path (--only 'eval_img_*')

Names are compared without suffixes, and without folders where that leaves no choice. A photo without a picture, a
picture without a photo, another size, and a picture equal to its photo, whose PSNR is infinite, are bad rows.

PSNR and LPIPS of each image are averaged as they are, in dB for PSNR. SSIM has windows of 11 x 11, a Gaussian of 1.5
pixels, K1 .01, K2 .03, and is the mean over windows and channels; the two border rules differ by about .01 on small
pictures. Masked: pixels that count, windows whose middle counts, of which there may be none; LPIPS is taken with the
photo where nothing counts, and its layers are averaged by how much of each place counts.

LPIPS needs the weights of its network, --lpips-weights FILE.safetensors, with tensors conv{i}.weight [out, in, size,
size], conv{i}.bias [out] in the order of the network (5 in AlexNet, 13 in VGG16), and lin{l}.weight [channels] of its
five layers, version 0.1; or the names that the Python package lpips has, which this writes:

    state = lpips.LPIPS(net="vgg").state_dict()
    state = {name: tensor.clone() for name, tensor in state.items()}
    safetensors.torch.save_file(state, "lpips_vgg.safetensors")

Both may be given. lpips-vgg-3dgs leaves pictures in [0, 1], which VGG16 is not meant for, as the code of 3D Gaussian
splatting and gsplat's trainer do; its numbers are no LPIPS, but theirs. Without weights there is no LPIPS, and a note
says so. Numbers of different kinds, border rules, or rounding are not comparable; each row says which it has. Not run
on a GPU here: CUDA.
"""


@command(
    "nvs-eval",
    system="DL3DV",
    adds={**field_types(NvsScore, *NvsScore.__struct_fields__), **field_types(NvsSceneScore, "n_images", "n_failed")},
    key=("method", "scene", "image"),
    source=True,
    slow=True,
    epilog="See nvs-train(1), nvs-render(1), nvs-bench(1), toolroll-records(5).",
)
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, help="Folders of pictures, each of one scene.")
@click.option("--summary", is_flag=True, help="Write a row with the means of each folder instead.")
@click.option("--method", metavar="NAME", help="What made the pictures. [default: 3dgs of nvs-train, else renders]")
@click.option("--scene-name", metavar="NAME", help="The scene; else the name of its folder, as nvs-prep has it.")
@click.option("--frequency", is_flag=True, help="Add how much fine detail the scene's photos have, for nvs-bench.")
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip", "keep"]),
    default="stop",
    show_default=True,
    help="A picture that cannot be scored: stop; skip it; or keep its name with an `error` field.",
)
@option_group("score", ScoreOptions, score_options(GroupedOption))
def main(
    *,
    folders: tuple[str, ...],
    summary: bool,
    method: str | None,
    scene_name: str | None,
    frequency: bool,
    on_error: str,
    score: ScoreOptions,
    output: str | None,
    log: Log,
    stop: StopFlag,
) -> Iterator[dict[str, Any]]:
    """Score the pictures that were made of a scene: PSNR, SSIM, LPIPS.

    A row for each picture of a test photo.
    """
    from toolroll.io.paths import check_apart
    from toolroll.splat import scoring
    from toolroll.splat.entries import sayable
    from toolroll.splat.refused import Refused

    score.check()
    check_apart((output,), (*score.lpips_weights, *(Path(folder, "train.json") for folder in folders)))
    judge = scoring.Judge(score)
    if not judge.nets:
        log.note("model of LPIPS: none, so it is left out (--lpips-weights)")
    if scene_name is not None and len(folders) > 1:
        raise UsageError("is for one folder", place="--scene-name")
    names = {name: value for name, value in (("method", method), ("scene", scene_name)) if value is not None}
    refused = Refused(log, on_error)
    for folder in folders:
        rows = []
        for row in _rows(folder, judge, score, names, frequency, log):
            if stop:
                return
            log.counts.read += 1
            rows.append(row)
            error = row.get("error")
            leave_out = error is not None and refused(ToolrollError(error["why"], place=error["where"]))
            if not (summary or leave_out):
                yield sayable(row)
        means = scoring.summary(rows) if summary else None
        if means is not None:
            yield sayable(means)


def _rows(
    folder: str, judge: Judge, score: ScoreOptions, names: dict[str, str], frequency: bool, log: Log
) -> Iterator[Row]:
    """The rows of a folder; one with an `error` for a folder that cannot be read."""
    from toolroll.splat.frequency import scene_frequency
    from toolroll.splat.pairing import open_pictures, photos_in
    from toolroll.splat.scoring import rows_of

    try:
        pictures = open_pictures(Path(folder), score, lambda why: log.warn(why, folder))
        pictures = replace(pictures, method=names.get("method", pictures.method))
        pictures = replace(pictures, scene=names.get("scene", pictures.scene))
    except UsageError:
        raise
    except ToolrollError as error:
        yield {**names, "render_path": folder, "error": {"why": error.why, "where": error.place or folder}}
        return
    detail: Row = {"frequency": None} if frequency else {}
    try:
        photos = photos_in(pictures.images_folder) if frequency and pictures.images_folder is not None else []
        detail |= {"frequency": scene_frequency(photos)} if photos else {}
    except ToolrollError as error:
        log.warn(f"no frequency: {error}", folder)
    for row in rows_of(pictures, judge):
        yield {**row, **detail}
