"""nvs-bench: sum up scores of pictures over scenes, by method and by what the scenes are like.

Sums: toolroll.splat.benching; tables and figures: toolroll.splat.report. Paper: arXiv:2312.16256, section 4.1.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import msgspec

from toolroll.cli import GroupedOption, command, option_group
from toolroll.errors import RowError, Stopped, ToolrollError
from toolroll.records import Count, field_types, view
from toolroll.records.base import said
from toolroll.records.nvs import NvsBenchRow, NvsScores
from toolroll.splat.score_options import ScoreOptions, score_options

if TYPE_CHECKING:
    from toolroll.run.log import Log
    from toolroll.run.rows import Rows
    from toolroll.run.signals import StopFlag
    from toolroll.splat.benching import Bench

EXAMPLES = """
  Scores of a trained scene, in a table:
    nvs-train tests/data/plush --images images_16 --steps 10 --out plush > plush.jsonl
    nvs-eval plush | nvs-bench --table bench.md
  Trained scenes, in a folder each, by kind of scene, with a figure like the paper's and its numbers beside:
    nvs-eval RUNS/* --frequency | nvs-bench --labels BENCHMARK-META.csv --paper --table bench.md --plot bench.svg
  Scores of two methods, made before:
    nvs-bench 3DGS.jsonl MCMC.jsonl --common --lpips lpips-alex
  Pictures of two programs, scored here as photos of the same scenes:
    nvs-bench 3dgs=RUNS 'splatfacto=out/{scene}/test/rgb' --scene 'scenes/{scene}' --images images_4 --split every:8
"""

NOTES = """
Reads rows of nvs-eval, for images or with --summary for scenes. METHOD=DIR is scored first, as nvs-eval does: DIR has a
folder for each scene, of nvs-train or of pictures; or {scene} in it stands for the scene's name, and * for anything.
{scene} in --truth and --scene is the same name.

A method's score is the mean over its scenes, each of which is the mean over its images; std is the standard deviation
over scenes, n - 1 below. Where an image has no SSIM or LPIPS, so have the means that it would be in.

Scores by different rules are never put together: a row with another --ssim-border or rounding than those before ends
the run. Where rows have several kinds of LPIPS, --lpips chooses one. Every row, the table and the figure say which
rules they are of.

--labels is DL3DV's table, in any of its spellings; a scene is found in it by its name. reflection and transparency have
two groups each: more and medium, less and none. Scenes without a label are left out of that breakdown. frequency is
the table's, if it has any; else it is computed, as nvs-eval --frequency does, from the rows' `frequency` or the photos
in `images_folder`, and high_freq is above the median of the scenes here (section 3.2 of the paper), or above
--freq-split VALUE. It falls as photos grow, so that photos have to be of one size.

--paper adds the paper's rows: Table 3, and PSNR by group read off Figure 4. They are of other scenes, DL3DV-140 at
960 x 540, and which LPIPS and which border of SSIM they have is not stated. Zip-NeRF* has 4,096 rays in a batch.
"""

FOLDERS = "toolroll.nvs_bench.folders"  #: METHOD=DIR, apart from the files

_READS = msgspec.defstruct(
    "NvsScored",
    [
        ("image", Annotated[str | None, said("Name of the photo; absent in a scene's means.")], None),
        ("n_images", Annotated[Count | None, said("Of a scene's means: images that were scored.")], None),
        ("width", Annotated[Count | None, said("Width of the images in pixels.")], None),
        ("height", Annotated[Count | None, said("Height of the images in pixels.")], None),
    ],
    bases=(view(NvsScores, *NvsScores.__struct_fields__),),
    kw_only=True,
    frozen=True,
    gc=False,
)


def _apart(context: click.Context, _param: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    """The files among the arguments; METHOD=DIR are put aside."""
    folders = tuple(value for value in values if "=" in value and (Path(value).is_dir() or not Path(value).exists()))
    context.meta[FOLDERS] = folders
    files = tuple(value for value in values if value not in folders)
    return files or ((os.devnull,) if folders else ())


@command(
    "nvs-bench",
    system="DL3DV",
    reads=_READS,
    adds=field_types(NvsBenchRow, *NvsBenchRow.__struct_fields__),
    key=("method", "group"),
    reducer=True,
    epilog="See nvs-eval(1), nvs-prep(1), toolroll-records(5).",
)
@click.argument(
    "files",
    nargs=-1,
    type=click.Path(),
    metavar="[FILE|METHOD=DIR]...",
    callback=_apart,
    help="Rows of nvs-eval, in order; none or - is stdin. METHOD=DIR: pictures to score, see below.",
)
@click.option("--labels", type=click.Path(path_type=Path), metavar="TABLE", help="DL3DV's labels, a CSV.")
@click.option(
    "--freq-split",
    metavar="median|VALUE|none",
    help="What high_freq is above. [default: as --labels says, else median]",
)
@click.option("--common", is_flag=True, help="Only scenes that all methods have.")
@click.option(
    "--lpips",
    type=click.Choice(["lpips-alex", "lpips-vgg", "lpips-vgg-3dgs"]),
    help="Which LPIPS, if rows have several.",
)
@click.option("--paper", is_flag=True, help="Add the paper's numbers, of other scenes.")
@click.option("--table", "table_file", type=click.Path(path_type=Path), metavar="FILE.md", help="Write a table, too.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="FILE", help="Draw bars (.png, .svg, .pdf).")
@click.option(
    "--plot-metric",
    type=click.Choice(["psnr_db", "ssim", "lpips"]),
    default="psnr_db",
    show_default=True,
    help="What the bars are.",
)
@option_group("score", ScoreOptions, score_options(GroupedOption))
def main(
    rows: Rows[Any],
    *,
    labels: Path | None,
    freq_split: str | None,
    common: bool,
    lpips: str | None,
    paper: bool,
    table_file: Path | None,
    plot: Path | None,
    plot_metric: str,
    score: ScoreOptions,
    files: tuple[str, ...],
    output: str | None,
    errors: str | None,
    on_error: str,
    max_errors: int | None,
    log: Log,
    stop: StopFlag,
) -> Iterator[dict[str, Any]]:
    """Sum up scores of pictures over scenes, by method and by what the scenes are like.

    Prints a row for each method over all scenes, and over those of each label.
    """
    from toolroll.io.paths import check_apart
    from toolroll.splat.benching import Bench, paper_rows
    from toolroll.splat.entries import sayable
    from toolroll.splat.grouping import groups_of, read_split
    from toolroll.splat.labels import read_labels
    from toolroll.splat.refused import Refused
    from toolroll.splat.report import check_files, write_report

    split = read_split(freq_split)
    check_apart((output, errors, table_file, plot), (*(files or ("-",)), labels, *score.lpips_weights))
    check_files(table_file, plot)
    table = {} if labels is None else read_labels(labels)
    bench = Bench()
    for row in rows:
        try:
            bench.add(row.view)
        except RowError as error:
            rows.refuse(row, error.why)
        except ToolrollError as error:
            raise type(error)(error.why, place=error.place or row.place) from error
    refused = Refused(log, on_error, max_errors)
    for failure in _scored(bench, click.get_current_context().meta[FOLDERS], score, log, stop):
        refused(failure)
    if not bench.scores:
        raise ToolrollError("no scores")
    if common:
        bench.keep_common()
    kind = bench.kind(lpips)
    for difference in bench.differences(kind):
        log.warn(difference)
    found = [
        *map(sayable, bench.rows(groups_of(bench, table, split, log.info, log.warn), kind)),
        *(paper_rows() if paper else ()),
    ]
    write_report(found, table_file, plot, plot_metric)
    yield from found


def _scored(
    bench: Bench, folders: tuple[str, ...], score: ScoreOptions, log: Log, stop: StopFlag
) -> Iterator[ToolrollError]:
    """Add the scores of the pictures of METHOD=DIR; why one could not be scored."""
    if not folders:
        return
    from toolroll.splat.scoring import Judge, rows_of_folders

    score.check()
    judge = Judge(score)
    if not judge.nets:
        log.note("model of LPIPS: none, so it is left out (--lpips-weights)")
    for row in rows_of_folders(folders, judge, score, log.warn):
        if stop:
            raise Stopped(f"stopped by {stop.asked_by}")
        log.counts.read += 1
        if "error" in row:
            yield ToolrollError(row["error"]["why"], place=row["error"]["where"])
            continue
        try:
            bench.add(msgspec.convert(row, _READS))
        except RowError as error:
            yield ToolrollError(error.why, place=row["render_path"])
