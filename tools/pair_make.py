"""pair-make: make pairs of images that differ in a known way, with a log of what was changed.

Makes rows of its own. Pairs: toolroll.world. Paper: arXiv:2509.25541, section 2.3 and appendix A.2; the scenes are
those of arXiv:1612.06890.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import command, uses_seed
from toolroll.errors import RowError, UsageError
from toolroll.records import field_types, view
from toolroll.records.world import ImagePair, PairSource

if TYPE_CHECKING:
    from toolroll.io.rows import Row
    from toolroll.run.log import Log
    from toolroll.run.rows import Rows
    from toolroll.run.signals import StopFlag

EXAMPLES = """
  Pairs of scenes, with a picture of them to look at:
    pair-make scenes -n 4 --size 96x72 --out images -o pairs.jsonl --contact sheet.png
  Small ones with one change each, two shares that run side by side:
    pair-make scenes --size 96x72 --edit recolor,reshape,move -n 4 --out small --shard 0/2 -o small.0.jsonl &
    pair-make scenes --size 96x72 --edit recolor,reshape,move -n 4 --out small --shard 1/2 -o small.1.jsonl
  The paper's number of them, at their size:
    pair-make scenes -n 2000 --out IMAGES -o PAIRS.jsonl
  Scenes of CLEVR, rendered anew from their descriptions:
    pair-make scenes CLEVR_SCENES.json --out clevr --on-error skip > clevr.jsonl
  Charts of made-up tables, and of your own:
    pair-make charts -n 2 --out charts > charts.jsonl
    pair-make charts SALES.csv --chart line --size 480x320 --out sales
  Photos, by what stands out in them, and by masks:
    pair-make photos PHOTOS/*.jpg -n 2 --out photos
    echo '{"image": "DESK.jpg", "mask": "CUP.png"}' | pair-make photos - --edit remove --out desk
"""

NOTES = """
Scenes follow CLEVR: its shapes, sizes, colours and materials, its camera and lights moved about at random, objects that
keep their distance and are all seen. A ray caster of our own draws them; its metal mirrors a made-up surrounding, so
that an edit changes the pixels of the edited objects and of their shadows only. `original_scene` and `modified_scene`
are CLEVR's JSON with exact pixel_coords, relationships and directions, and with `camera`, `lights`, `width`, `height`
besides. CLEVR's own files are read too: the camera is found back from pixel_coords. `rotation` means what it means
there: a number from 0 to 360 that is taken as radians.

The edits of scenes: replace2, the paper's: two objects get another colour and another shape. recolor, reshape, resize,
move, remove, add: one object. count:K: K objects more or fewer. An edit is drawn again until every edited object has
200 pixels (of 320x240) in the images that show it, no other goes out of sight, and --changed holds. All that `changes`
does not name is the same in both scenes.

Objects of your own scenes that overlap or are not seen are drawn as they are, with a warning; those that are not seen
are not edited. A scene without objects, with unknown attributes, or with objects that float is a bad row; so is one
that cannot be edited as asked, such as `remove` where there is one object.

Charts show a table, and the same table with two values of one series swapped; axes, colours and layout are equal. The
values differ by 15 % of the range of all values and 3 % of the largest. Tables are CSV with a header, a column of
categories and one or more of numbers; or JSON: {"title", "label", "kind", "categories", "series": {NAME: [...]}}. Below
120 pixels of height charts have no words.

Photos are edited within a mask and are the same to the bit outside it. `mask` is an image of the photo's size, black
outside the thing; `bbox` is [left, top, right, bottom], and what in it differs in colour from its surroundings is the
thing. Without both, compact patches of one colour that take 0.4 to 6 % of the photo and stand out are found. A removed
thing is filled with patches from around it. An edit that changes its pixels by less than 20 of 255 is not made. Photos
whose longer side has more than --longest pixels are made smaller first.

`same` has the first image twice, `blank` an image of one colour instead of the second; any kind of pair has them.

Images are DIR/ID_original.png and DIR/ID_modified.png. A run that is done again finds them there; it never replaces
another image of the same name, unless with --overwrite. A pair depends on --seed and its id alone, so -n 100 begins
with the pairs of -n 50, and shares add up to the whole. Machines may differ in the last bit of a sine, so images are
the same to the bit on one kind of machine.
"""

OF_KIND = {
    "objects": ("scenes",),
    "changed": ("scenes",),
    "camera_jitter": ("scenes",),
    "light_jitter": ("scenes",),
    "size": ("scenes", "charts"),
    "chart": ("charts",),
    "font": ("charts",),
    "longest": ("photos",),
}  #: options, and the kinds of pairs that they are about


@command(
    "pair-make",
    system="Vision-Zero",
    reads=view(PairSource, "image", "mask", "bbox", "objects", "categories", "series"),
    adds=field_types(
        ImagePair,
        *("id", "kind", "edit", "original", "modified", "width", "height", "changes", "boxes", "share", "difficulty"),
        *("seed", "source", "original_scene", "modified_scene", "original_table", "modified_table"),
    ),
    key=("id",),
    source=True,
    resumable=True,
    slow=True,
    epilog="See text-rollout(1), toolroll-records(5).",
)
@click.argument("kind", type=click.Choice(["scenes", "charts", "photos"]), help="What the images show.")
@click.argument(
    "sources",
    nargs=-1,
    type=click.Path(),
    metavar="[FILE]...",
    help="Scenes (CLEVR's JSON), tables (.csv, .json) or photos; .jsonl has a row for each, - is such rows on stdin. "
    "Scenes and charts are made up where there is none.",
)
@click.option("--out", metavar="DIR", required=True, type=click.Path(), help="Folder for the images; made if need be.")
@click.option(
    "-n",
    "--number",
    "count",
    type=click.IntRange(min=0),
    metavar="N",
    help="Pairs to make; with FILE, of each scene, table or photo.  [default: 100; with FILE 1]",
)
@click.option(
    "--edit",
    metavar="KIND,...",
    help="How the second image differs; of several, one is drawn for each pair. Scenes: replace2, recolor, reshape, "
    "resize, move, remove, add, count:K. Charts: swap. Photos: remove, recolor, insert. All: same, blank.  "
    "[default: replace2; swap; remove,recolor,insert]",
)
@click.option("--size", default="320x240", show_default=True, metavar="WxH", help="Scenes, charts: size in pixels.")
@click.option(
    "--objects", default="4-6", show_default=True, metavar="N-M", help="Scenes: fewest and most objects, 1 to 10."
)
@click.option(
    "--changed",
    default="0.01,0.15",
    show_default=True,
    metavar="LOW,HIGH",
    help="Scenes: share of pixels that an edit has to change.",
)
@click.option(
    "--camera-jitter",
    type=click.FloatRange(0, 2),
    default=0.5,
    show_default=True,
    metavar="UNITS",
    help="Scenes: most that each coordinate of the camera is moved.",
)
@click.option(
    "--light-jitter",
    type=click.FloatRange(0, 2),
    default=1.0,
    show_default=True,
    metavar="UNITS",
    help="Scenes: most that each coordinate of the lights is moved.",
)
@click.option(
    "--chart",
    default="bar,barh,grouped,line,pie",
    show_default=True,
    metavar="KIND,...",
    help="Charts: the kinds to draw; of your own tables without a `kind`, all are drawn as the one that is given here.",
)
@click.option("--font", default="DejaVu Sans", show_default=True, metavar="NAME", help="Charts: font of the words.")
@click.option(
    "--longest",
    type=click.IntRange(64, 4096),
    default=640,
    show_default=True,
    metavar="PIXELS",
    help="Photos: longer side above which they are made smaller.",
)
@click.option("--blank-color", default="white", show_default=True, metavar="COLOR", help="The colour of `blank`.")
@click.option("--contact", metavar="FILE", type=click.Path(), help="Also draw pairs side by side into this PNG.")
@click.option(
    "--contact-pairs",
    type=click.IntRange(min=1),
    default=24,
    show_default=True,
    metavar="N",
    help="Pairs that --contact shows.",
)
@click.option("--name", metavar="NAME", help="What ids begin with.  [default: KIND]")
@click.option("--overwrite", is_flag=True, help="Replace other images of the same names.")
@click.option(
    "--shard",
    metavar="I/N",
    help="Make only the pairs whose number modulo N is I (from 0). slurm reads a job array's environment.",
)
@uses_seed
def main(
    rows: Rows[Any],
    *,
    kind: str,
    sources: tuple[str, ...],
    out: str,
    count: int | None,
    contact: str | None,
    contact_pairs: int,
    name: str | None,
    overwrite: bool,
    shard: str | None,
    log: Log,
    stop: StopFlag,
    **asked: Any,
) -> Iterator[Row[Any] | dict[str, Any]]:
    """Make pairs of images that differ in a known way, with a log of what was changed.

    Writes PNGs into a folder, and a row for each pair: its paths, what was changed and where, what both images show.
    """
    import os
    import re
    from pathlib import Path

    from toolroll.io.shard import parse_shard
    from toolroll.world.contact import Contact
    from toolroll.world.images import Folder
    from toolroll.world.making import Maker, numbers, row_of
    from toolroll.world.sources import items

    name = kind if name is None else name
    if not re.fullmatch(r"[\w.-]+", name) or name.startswith((".", "-")):
        raise UsageError(f"want letters, digits, _, - and dots, not {name!r}", place="--name")
    if kind == "photos" and not sources:
        raise UsageError("photos are made from FILEs")
    share = parse_shard(shard, os.environ) if shard is not None else None
    place = ""
    maker = Maker(_asked(kind, asked), lambda why: log.warn(why, place))
    folder, sheet = Folder(out, overwrite=overwrite), Contact(contact_pairs)
    each = count if count is not None else 1 if sources else 100
    made_up: list[tuple[Any, Any]] = [(None, None)]
    for index, (row, data) in enumerate(
        items(kind, sources, rows, log.counts, _one_chart(asked["chart"])) if sources else made_up
    ):
        if row is not None and row.error is not None:
            yield row
            continue
        place = row.place if row is not None else ""
        for number in numbers(index * each, each, share.takes if share is not None else lambda _: True):
            if stop:
                return
            own = f"{name}-{number:06d}"
            if rows.done(own):
                log.counts.skipped += 1
                continue
            try:
                pair = maker.pair(own, data)
            except RowError as error:
                yield row.fail(error.why)
                continue
            paths = {
                "original": folder.put(f"{own}_original.png", pair.original),
                "modified": folder.put(f"{own}_modified.png", pair.modified),
            }
            if contact is not None and not sheet.full:
                sheet.take(own, pair)
            about = {"id": own, "kind": kind, "seed": maker.seed_of(own), "difficulty": maker.difficulty(pair)}
            yield row_of(pair, **about, **paths, source=place)
    if contact is not None:
        sheet.write(Path(contact))


def _asked(kind: str, options: dict[str, Any]) -> Any:
    """The options as `toolroll.world.making.Asked`; those about other kinds of pairs may not be given."""
    from toolroll.world import making
    from toolroll.world.tables import KINDS

    context = click.get_current_context()
    source = click.core.ParameterSource.COMMANDLINE
    making.refuse_strangers(
        kind, [option for option in OF_KIND if context.get_parameter_source(option) is source], OF_KIND
    )
    width, height = making.read_size(options["size"])
    charts = tuple(part.strip() for part in options["chart"].split(","))
    for chart in charts:
        if chart not in KINDS:
            raise UsageError(f"no such kind of chart: {chart!r}; there are {', '.join(KINDS)}", place="--chart")
    return making.Asked(
        kind=kind,
        edits=making.read_edits(kind, options["edit"]),
        width=width,
        height=height,
        objects=making.read_range(options["objects"], "--objects", int, 1, 10),
        share=making.read_range(options["changed"], "--changed", float, 0, 1),
        camera_jitter=options["camera_jitter"],
        light_jitter=options["light_jitter"],
        charts=charts,
        font=options["font"],
        longest=options["longest"],
        blank=making.read_color(options["blank_color"]),
        seed=options["seed"],
    )


def _one_chart(charts: str) -> str | None:
    """The kind in which users' tables are drawn: the one that was asked for, if it is one."""
    return None if "," in charts else charts.strip()
