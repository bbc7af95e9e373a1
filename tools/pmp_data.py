"""pmp-data: write rows of images with their segments, from data sets and from generators.

Makes rows of its own. Sets: toolroll.segment.scenes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import command
from toolroll.errors import ToolrollError, UsageError
from toolroll.records import field_types
from toolroll.records.segment import PromptedImage

if TYPE_CHECKING:
    from toolroll.run.log import Log
    from toolroll.run.signals import StopFlag

EXAMPLES = """
  Drawn streets, segmented and scored:
    pmp-data streets:7 -n 2 --size 160x128 --out streets -o rows.jsonl
    pmp-seg rows.jsonl | pmp-eval --table
  The validation images of CamVid, with another model:
    pmp-data camvid:CAMVID --split val | pmp-seg --model NAME --proposals | pmp-eval --table
  COCO's instances:
    pmp-data coco:INSTANCES.json --images PHOTOS -o val.jsonl
"""

NOTES = """
NAME is one of these:

    camvid:DIR      DIR/SPLIT has images, DIR/SPLITannot label images of the same names: 8 bits a pixel, the number of
                    the class. Classes are CamVid's 11, or the lines of DIR/classes.txt.
    coco:FILE       instances as COCO has them, polygons and run lengths mixed
    rows:FILE       rows as this command writes them
    shapes[:SEED]   coloured shapes on noise, drawn; all in a scene have different names
    streets[:SEED]  made-up streets with 12 classes, drawn

Drawn images are written into --out; a scene depends on SEED, its number, and --size alone. `prompts` are all classes of
the set, or with --ask present those that an image has; --ask each gives a row for each of them, of one prompt.

The first file that is not sound ends the run.
"""


@command(
    "pmp-data",
    system="PMP",
    adds=field_types(PromptedImage, "id", "image", "prompts", "truth", "ignore"),
    key=("id",),
    source=True,
    slow=True,
    epilog="See pmp-train(1), pmp-seg(1), pmp-eval(1), toolroll-records(5).",
)
@click.argument("name", metavar="NAME", help="The set: see below.")
@click.option(
    "-n", "--number", "count", type=click.IntRange(min=0), metavar="N", help="Images; 100 of drawn ones if unset."
)
@click.option(
    "--first", type=click.IntRange(min=0), default=0, show_default=True, metavar="N", help="Begin with image N."
)
@click.option("--out", metavar="DIR", type=click.Path(), help="Folder for drawn images; made if need be.")
@click.option(
    "--images",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="coco, rows: where the images are; else near the file.",
)
@click.option("--split", default="val", show_default=True, metavar="NAME", help="camvid: the folder's part.")
@click.option(
    "--size", default="160x128", show_default=True, metavar="WxH", help="Size of drawn images, 32x32 to 4096x4096."
)
@click.option("--objects", type=click.IntRange(1, 18), default=8, show_default=True, help="shapes: objects in a scene.")
@click.option(
    "--held-out",
    type=click.Choice(["keep", "without", "only"]),
    default="keep",
    show_default=True,
    help="shapes: draw the six names that are held out like others, or not, or one in each scene.",
)
@click.option(
    "--ask",
    type=click.Choice(["all", "present", "each"]),
    default="all",
    show_default=True,
    help="Which prompts: all of the set, those the image has, or these one by one.",
)
def main(
    *,
    name: str,
    count: int | None,
    first: int,
    out: str | None,
    images: Path | None,
    split: str,
    size: str,
    objects: int,
    held_out: str,
    ask: str,
    output: str | None,
    log: Log,
    stop: StopFlag,
) -> Iterator[dict[str, Any]]:
    """Write rows of images with their segments, from data sets and from generators.

    Each row has the image's path, the prompts to look for, and the segments there are.
    """
    from toolroll.io.paths import check_apart
    from toolroll.segment.options import read_size
    from toolroll.segment.scene_rows import rows_of
    from toolroll.segment.scenes import Settings, open_scenes, source_file
    from toolroll.world.images import Folder

    wide, high = read_size(size)
    settings = Settings(split, wide, high, objects, held_out, images)
    check_apart((output,), (source_file(name),))
    scenes = open_scenes(name, settings)
    drawn = scenes.size is None
    if drawn and out is None:
        raise UsageError("drawn images need a folder", place="--out")
    if not drawn and out is not None:
        raise UsageError("is for drawn images", place="--out")
    folder = Folder(out) if out is not None else None
    last = first + (100 if count is None else count) if drawn else scenes.size
    assert last is not None
    if count is not None:
        last = min(last, first + count)
    for number in range(first, last):
        if stop:
            return
        scene = scenes.scene(number)
        path = scenes.path(number) if folder is None else folder.put(f"{scene.id}.png", scene.image)
        if not scene.segments:
            log.info("no segment", path)
        try:
            yield from rows_of(scene, scenes.classes, path, ask)
        except ToolrollError as error:
            raise ToolrollError(error.why, place=path) from error
