"""pmp-train: train a segmenter whose mask proposals listen to prompts.

Updates: toolroll.segment.training; losses: toolroll.segment.losses. Paper: arXiv:2412.10292.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import GroupedOption, command, option_group, uses_device, uses_seed
from toolroll.errors import UsageError
from toolroll.records import field_types
from toolroll.records.segment import SegmenterStep
from toolroll.segment.options import DataOptions, ModelShape, data_options, shape_options

if TYPE_CHECKING:
    from toolroll.run.log import Log
    from toolroll.run.signals import StopFlag
    from toolroll.segment.training import Training

EXAMPLES = """
  A few updates of the small model on drawn shapes:
    pmp-train --data shapes:1 --size 64x64 --steps 4 --train-prompts 1-8 --report-every 2 --out little > little.jsonl
  On drawn streets, with and without attention to the prompts:
    pmp-train --data streets:1 --steps 3000 --out LISTENS > listens.jsonl
    pmp-train --data streets:1 --steps 3000 --pmp off --out DEAF > deaf.jsonl
  On CamVid, every image asked for all of its classes:
    pmp-train --data camvid:CAMVID --size 480x352 --train-prompts all --steps 20000 --out MODEL
  A Mask2Former of the hub, only the block and the classes; on several GPUs:
    accelerate launch --no-python pmp-train --base facebook/mask2former-swin-tiny-coco-instance --freeze-base \\
      --data coco:INSTANCES.json --images PHOTOS --text-encoder openai/clip-vit-base-patch32 --templates vild \\
      --size 640x640 --lr 1e-4 --out PROMPTED
"""

NOTES = """
An update takes --batch-rows examples. An example is a scene, mirrored, cut and lit at random, and prompts for it:
some classes that it has are left out with --prompt-drop, others that it has not are asked for in vain, up to the number
that --train-prompts draws. A model whose prompts never change (--train-prompts all) has no reason to listen to them.

Every query is matched with at most one segment, layer by layer, by the cost 2 (-p) + 5 BCE + 5 dice (scipy); the loss
is 2 CE + 5 BCE + 5 dice of all layers, and 0.1 of the CE where a query has no segment. Masks of more than --mask-points
pixels are compared at so many points, three quarters of them where the model is least sure. --focal: OVSeg's focal loss
for BCE.

The small model is made of convolutions, a feature pyramid and a decoder, 0.9 million weights. --base puts the block
into a Mask2Former instead, with gates that are 0 at first, so that training starts from just what the base says.

--out has the model: segmenter.json and model.safetensors, for a base also base/. Its state/ is what training goes on
from: the same command goes on after a kill, and the weights come out as if nothing had happened. --save-every says
how much a kill may cost. SIGUSR1 and SIGTERM end the run after the update in hand, with exit code 75.

Under torchrun or `accelerate launch` each process takes its share of every batch. Not run on a GPU here: CUDA.
"""

FIRM = frozenset(
    [
        *("data", "size", "split", "objects", "held_out", "train_prompts", "prompt_drop", "most_present", "seed"),
        *("base", "pmp", "text_pos", "text", "text_tokens", "templates", "queries", "layers", "width", "freeze_base"),
        *("steps", "batch_size"),
    ]
)  #: settings with which it would be another training


@command(
    "pmp-train",
    system="PMP",
    adds=field_types(SegmenterStep, *SegmenterStep.__struct_fields__),
    key=("step",),
    source=True,
    slow=True,
    distributed=True,
    epilog="See pmp-data(1), pmp-seg(1), pmp-eval(1), toolroll-records(5).",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The model's folder.")
@click.option("--steps", type=click.IntRange(min=1), default=3000, show_default=True, help="Updates in all.")
@click.option("--batch-rows", type=click.IntRange(min=1), default=8, show_default=True, help="Examples of an update.")
@click.option(
    "--lr", type=click.FloatRange(min=0), default=2e-3, show_default=True, help="Learning rate at its highest."
)
@click.option(
    "--weight-decay", type=click.FloatRange(min=0), default=0.05, show_default=True, help="Weight decay of AdamW."
)
@click.option(
    "--mask-points",
    type=click.IntRange(min=16),
    default=12544,
    show_default=True,
    help="Masks with more pixels are compared at this many points.",
)
@click.option("--focal", is_flag=True, help="Compare masks by the focal loss.")
@click.option(
    "--save-every",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    metavar="N",
    help="Save every N updates.",
)
@click.option(
    "--report-every",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    metavar="N",
    help="A row every N updates.",
)
@uses_device
@option_group("shape", ModelShape, shape_options(GroupedOption))
@option_group("data", DataOptions, data_options(GroupedOption))
@uses_seed
def main(
    *, shape: ModelShape, data: DataOptions, output: str | None, log: Log, stop: StopFlag, **options: Any
) -> Iterator[dict[str, Any]]:
    """Train a segmenter whose mask proposals listen to prompts.

    Reads images with segments from data sets, or draws them; writes a model's folder, and rows of how training went.
    """
    _check_apart(shape, data, options["out"], output)
    training = _training(shape, data, log, **options)
    settings = {**asdict(shape), **asdict(data), **options, "seed": options["seed"]}
    settings |= {"data": list(data.data), "images": str(data.images or "")}
    for name in ("out", "device", "save_every", "report_every"):
        settings.pop(name, None)
    training.resume(settings, FIRM, log.warn)
    if training.step:
        log.note(f"goes on behind update {training.step}", str(options["out"]))
    yield from training.rows(lambda: bool(stop), report_every=options["report_every"], save_every=options["save_every"])
    if not stop:
        log.info(f"{training.step} updates", str(options["out"]))


def _check_apart(shape: ModelShape, data: DataOptions, out: Path, output: str | None) -> None:
    """UsageError where what is written would take the place of what is read."""
    from toolroll.io.paths import check_apart, same_file
    from toolroll.models.load import own_files
    from toolroll.segment.scenes import source_file

    for option, name in (("--base", shape.base), ("--text-encoder", shape.text)):
        if name and same_file(out, name):
            raise UsageError("input and output are the same folder", place=f"{option} {name}")
    read = [source_file(name) for name in data.data]
    models = (file for name in (shape.base, shape.text, shape.templates) for file in own_files(name or "-"))
    check_apart((output, out / "segmenter.json", out / "model.safetensors"), (*read, *models))


def _training(shape: ModelShape, data: DataOptions, log: Log, **options: Any) -> Training:
    import torch

    from toolroll.segment.losses import Weights
    from toolroll.segment.mask2former import IMAGENET
    from toolroll.segment.model import About, Shape, build
    from toolroll.segment.prompts import read_templates
    from toolroll.segment.sampling import Drawer, read_asking
    from toolroll.segment.scenes import Settings, open_scenes
    from toolroll.segment.text import Reader, open_text
    from toolroll.segment.training import Plan, Training
    from toolroll.train.team import Team

    wide, high = data.sides
    asking = read_asking(data.train_prompts, data.prompt_drop, data.most_present)
    settings = Settings(data.split, wide, high, data.objects, data.held_out, data.images)
    sets = [open_scenes(name, settings) for name in data.data]
    team = Team(options["device"], "float32")
    log.info(team.choice.text)
    encoder = open_text(shape.text, str(team.device))
    templates = read_templates(shape.templates)
    torch.manual_seed(options["seed"])
    made = Shape(
        shape.base, shape.width, shape.queries, shape.layers, max(1, shape.width // 16), 4 * shape.width,
        text_width=encoder.width, pmp=shape.pmp == "on", text_pos=shape.text_pos,  # type: ignore[arg-type]
    )  # fmt: skip
    model = build(made, notify=log.info)
    names = tuple(dict.fromkeys(word for one in sets for words in one.classes for word in words))
    most = asking.most or max(len(one.classes) for one in sets)
    queries = shape.queries if not shape.base else int(model.base.config.num_queries)
    if queries < 2 * most:
        log.warn(f"{queries} queries for up to {most} prompts: segments may be left without one")
    about = About(
        made, shape.text, encoder.weights_id, shape.text_tokens, templates, max(wide, high),
        *(IMAGENET if shape.base else ((0.5,) * 3, (0.25,) * 3)), trained=names,
        training={"data": list(data.data), "steps": options["steps"], "batch_rows": options["batch_rows"],
                  "seed": options["seed"], "train_prompts": data.train_prompts},
    )  # fmt: skip
    weights = Weights(points=options["mask_points"], focal=options["focal"])
    plan = Plan(
        options["steps"], options["batch_rows"], options["lr"], weight_decay=options["weight_decay"],
        freeze_base=shape.freeze_base, weights=weights,
    )  # fmt: skip
    drawer = Drawer(sets, asking, (wide, high), options["seed"])
    reader = Reader(encoder, templates, words=shape.text_tokens == "words")
    folder: Path = options["out"]
    if folder.exists() and not folder.is_dir():
        raise UsageError("is no folder", place="--out")
    return Training(model, about, plan, drawer, reader, team, folder)
