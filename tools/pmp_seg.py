"""pmp-seg: find the segments of images that prompts name.

What a model says and how it becomes segments: toolroll.segment.predicting, toolroll.segment.proposals. Paper:
arXiv:2412.10292.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import command, uses_device, uses_images
from toolroll.errors import RowError, UsageError
from toolroll.records import field_types, view
from toolroll.records.segment import PromptedImage, SegmentedImage

if TYPE_CHECKING:
    from toolroll.io.rows import Row
    from toolroll.run.log import Log
    from toolroll.run.rows import Rows
    from toolroll.run.signals import StopFlag
    from toolroll.segment.predicting import Predictor

EXAMPLES = """
  A picture of a drawn street, and what was found in it:
    pmp-data streets:7 -n 1 --out streets -o rows.jsonl
    pmp-seg streets/*.png --prompts "sky; road, street; car; tree" --overlay seen > segments.jsonl
  Rows with `image` and `prompts`; the area of each mask:
    pmp-seg rows.jsonl --mode instance --threshold 0.5 | jq -c '.segments[] | [.prompt, .score, .area]'
  A Mask2Former trained with prompts, and a CLIP that names its masks again:
    pmp-seg PHOTOS/*.jpg --prompts-file ADE20K.txt --model NAME --clip NAME -o found.jsonl
"""

NOTES = """
A semicolon ends a class, a comma a synonym: "sky; road, street; car" are three classes. In --prompts-file each line is
a class. Prompts of the command line go before those of rows. The first phrase of a class is its name.

Masks depend on the whole list of prompts: adding one may change every mask. So each row has the list. Their order
changes nothing.

--mode semantic gives every pixel to the class that scores highest there, and each class at most one segment; instance
makes a segment of each query that is sure of a class; panoptic lays these over each other without overlap. What is
none of the classes is asked about by --background-class NAME, as one more class, or in semantic left out where no class
scores above --background-score. Segments with a score below --threshold are left out.

--clip names each mask once more, by its crop, and joins the probabilities: own^(1-W) clip^W, W being --ensemble for
classes that the model was not trained with and --ensemble-seen for others. Both are in the row.

--proposals adds the masks of all queries, for pmp-eval.

The model that ships, `outline`, has learned from drawn streets and drawn shapes alone. It sees an image with its longer
side at 160 pixels, knows sky, road, buildings, trees, cars and the like roughly, finds no small things, and other words
hardly at all: its card has its scores.

Photos are turned as their camera says; what is transparent is seen on white. Not run on a GPU here: CUDA.
"""


#: suffixes of files that are images
IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")


@command(
    "pmp-seg",
    system="PMP",
    reads=view(PromptedImage, "id", "image", "prompts"),
    adds=field_types(
        SegmentedImage,
        *("prompts", "width", "height", "mode", "segments", "proposals", "selected", "segmenter", "mask_file"),
        "overlay_file",
    ),
    key=("id",),
    slow=True,
    opens=dict.fromkeys(IMAGES, "toolroll.segment.inputs:image_lines"),
    epilog="See pmp-data(1), pmp-train(1), pmp-eval(1), toolroll-records(5).",
)
@click.option("--prompts", "line", metavar="TEXT", help="What to look for, in all images.")
@click.option("--prompts-file", type=click.Path(path_type=Path), metavar="FILE", help="The same, a class a line.")
@click.option(
    "--model", default="outline", show_default=True, metavar="NAME", help="A folder of pmp-train, or `outline`."
)
@click.option(
    "--mode",
    type=click.Choice(["semantic", "instance", "panoptic"]),
    default="semantic",
    show_default=True,
    help="How queries become segments.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="Leave out segments with a lower score.",
)
@click.option(
    "--max-segments", type=click.IntRange(min=0), default=0, show_default=True, help="Most segments; 0 is all."
)
@click.option(
    "--background-class", default="void", show_default=True, metavar="NAME|void", help="One more class, if not void."
)
@click.option(
    "--background-score",
    type=click.FloatRange(0, 1),
    default=0.0,
    show_default=True,
    help="semantic: pixels where no class scores higher are of none.",
)
@click.option(
    "--templates", metavar="none|vild|FILE", help="Sentences for prompts; else those the model was trained with."
)
@click.option(
    "--side", type=click.IntRange(32, 4096), metavar="PIXELS", help="Longer side an image is seen in; else the model's."
)
@click.option("--clip", metavar="NAME", help="An encoder, as clip-score has them, that names masks again.")
@click.option(
    "--ensemble",
    type=click.FloatRange(0, 1),
    default=0.8,
    show_default=True,
    metavar="W",
    help="Weight of what --clip says, of classes that the model was not trained with.",
)
@click.option(
    "--ensemble-seen",
    type=click.FloatRange(0, 1),
    default=0.4,
    show_default=True,
    metavar="W",
    help="Weight of what --clip says, of classes that it was trained with.",
)
@uses_images
@click.option(
    "--save-masks", type=click.Path(), metavar="DIR", help="Write a PNG of the numbers of prompts for each image."
)
@click.option(
    "--overlay", type=click.Path(), metavar="DIR", help="Write a picture with the segments and a legend for each."
)
@click.option("--overwrite", is_flag=True, help="Replace other pictures of the same names.")
@click.option("--proposals", is_flag=True, help="Write the masks of all queries, too.")
@uses_device
def main(
    rows: Rows[Any],
    *,
    line: str | None,
    prompts_file: Path | None,
    images: Path | None,
    save_masks: str | None,
    overlay: str | None,
    overwrite: bool,
    proposals: bool,
    output: str | None,
    errors: str | None,
    log: Log,
    stop: StopFlag,
    **options: Any,
) -> Iterator[Row[Any]]:
    """Find the segments of images that prompts name.

    Reads images, or rows with the path of one; adds what was found, with masks as COCO's run lengths.
    """
    from toolroll.io.paths import check_apart
    from toolroll.models.load import own_files
    from toolroll.segment.inputs import Asked
    from toolroll.segment.writing import Writer

    check_apart((output, errors), (prompts_file, *own_files(options["templates"] or ""), *own_files(options["model"])))

    asked = Asked.of(line, prompts_file, options["background_class"], images)
    writer = Writer(
        options["mode"], options["threshold"], options["max_segments"], options["background_score"],
        proposals=proposals, masks=save_masks, overlay=overlay, overwrite=overwrite,
    )  # fmt: skip
    predictor: Predictor | None = None
    for row in rows:
        if stop:
            return
        predictor = predictor or _opened(log, **options)
        try:
            path, image, prompts = asked.read(row)
            yield row.add(**writer.fields(row, path, image, prompts, predictor))
        except RowError as error:
            yield row.fail(error.why)


def _opened(log: Log, **options: Any) -> Predictor:
    """The model, and the encoder of stage 2."""
    from toolroll.models.device import choose_device
    from toolroll.segment.model import SHIPPED, open_model
    from toolroll.segment.predicting import Naming, Predictor
    from toolroll.segment.prompts import read_templates

    device = choose_device(options["device"], "float32")
    opened = open_model(options["model"], log.info)
    if options["model"] == SHIPPED:
        log.note(f"model {SHIPPED}, which has learned from drawn streets and shapes alone")
    log.info(f"model {opened.name}: {device.text}")
    templates = None if options["templates"] is None else read_templates(options["templates"])
    naming = None
    if options["clip"] is not None:
        from toolroll.preference.encoders import open_encoder

        encoder = open_encoder(options["clip"], device, trust_remote_code=False, notify=log.info)
        sentences = read_templates("vild") if templates is None else templates
        naming = Naming(encoder, sentences, opened.about.trained, options["ensemble"], options["ensemble_seen"])
    try:
        return Predictor(opened, device.name, templates=templates, side=options["side"], naming=naming, warn=log.warn)
    except UsageError as error:
        raise UsageError(error.why, place=error.place or "--model") from error
