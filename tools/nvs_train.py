"""nvs-train: learn a scene from photos, as 3D Gaussians, or a network that draws any scene.

Steps: toolroll.splat.fit, toolroll.splat.ibrnet_fit; what draws: toolroll.splat.rasterizer, toolroll.splat.ibrnet_rays.
Papers: arXiv:2312.16256, 2308.04079, 2404.09591, 2102.13090.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import GroupedOption, command, option_group, uses_seed
from toolroll.errors import ToolrollError, UsageError
from toolroll.records import field_types
from toolroll.records.nvs import NvsStep
from toolroll.splat.ibrnet_options import IbrOptions, ibr_options
from toolroll.splat.options import (
    GrowthOptions,
    RecipeOptions,
    checked_folder,
    growth_options,
    read_bytes,
    recipe_options,
    refuse_given,
)

if TYPE_CHECKING:
    from toolroll.run.log import Log
    from toolroll.run.signals import StopFlag
    from toolroll.splat.ibrnet_training import IbrTraining
    from toolroll.splat.scene import Scene, Shot
    from toolroll.splat.training import Training

EXAMPLES = """
  A scene at its lowest resolution, for a first look in seconds; 600 steps take a minute or two on a CPU:
    nvs-train tests/data/plush --images images_16 --steps 60 --sh-degree 1 --seed 42 --out plush > plush.jsonl
  As in papers, on a GPU; its pictures scored, and looked at in a browser:
    nvs-train GARDEN --images images_4 --steps 30000 --out garden-3dgs && nvs-eval garden-3dgs
    nvs-view GARDEN-3DGS -o garden.html
  No more than 200,000 Gaussians, placed by chance rather than by rule, from photos of changing brightness:
    nvs-train SCENE --growth mcmc --cap 200000 --exposure --steps 7000 --out mcmc
  A network of many scenes, small enough for a CPU, scored on one that it does not learn from; then tuned to that one:
    nvs-train SCENES/* --method ibrnet --trunk-width 8 --views 4 --samples 32 --fine-samples 0 --rays 96 \\
      --photo-side 96 --steps 4000 --unseen PLUSH --out many
    nvs-train PLUSH --method ibrnet --pretrained many --views 4 --samples 32 --photo-side 96 --steps 500 --out tuned
"""

NOTES = """
SCENE is what nvs-prep(1) reads. Each step draws the picture of one photo and moves all Gaussians towards it, by Adam;
the loss is .8 |x - y| + .2 (1 - SSIM). Photos are straightened first. Those that --split tests are not trained on; at
the end their PSNR and SSIM are in the last row. Rates, schedules and density control are those of gsplat's trainer for
30,000 steps; in shorter runs schedules are as much shorter, and scales learn faster (chosen on one scene).

--out has point_cloud.ply, in the world of SCENE, for any viewer of 3D Gaussians; train.json, with all cameras; renders/
and compare/, the pictures of the test photos, alone and beside the photo; and state/, from which the same command goes
on after a kill or a stop, to the bit. SIGTERM and SIGUSR1 end it after the step in hand with exit code 75;
--stop-after N ends it there with 0. With another number of --steps schedules change, and the result with them. While
one trains in a folder, another is refused.

--start random:N begins anywhere in a cube of three extents, ply:FILE with a file's points or its Gaussians.
--growth mcmc: opacities begin at .5, scales at a tenth of the distance to neighbours.

--method ibrnet trains IBRNet: a picture is blended from --views photos near its camera, whose features a U-Net makes,
ray by ray, so that one network draws scenes that it has never seen. It writes model.safetensors and ibrnet.json in the
place of the PLY. Defaults are those of its authors, too large for a CPU. --pretrained begins with another folder's
network. Attention masks samples that no photo sees as keys, where the released code masks them as queries; directions
are in the camera's frame; random crops and mirrored photos are left out.

On a CPU numba draws: the same bits for any number of threads. On CUDA gsplat does (extra `gpu`); not run on a GPU here.
--device picks, never what happens to be installed.
"""

FIRM_OF_BOTH = ("method", "images", "split", "seed")
FIRM = {
    "3dgs": frozenset(
        [*FIRM_OF_BOTH, "scene", "start", "growth", "sh_degree", "antialiased", "background", "exposure", "back_end"]
    ),
    "ibrnet": frozenset(
        [*FIRM_OF_BOTH, "scenes", "pretrained", "trunk_width", "views", "samples", "fine_samples", "photo_side"]
    ),
}  #: settings with which it would be another training
OWN = {
    "3dgs": {one.name for kind in (RecipeOptions, GrowthOptions) for one in fields(kind)}
    | {"start", "start_most", "back_end"},
    "ibrnet": {one.name for one in fields(IbrOptions)} | {"unseen"},
}  #: options of one method alone


@command(
    "nvs-train",
    system="DL3DV",
    adds=field_types(NvsStep, *NvsStep.__struct_fields__),
    key=("step",),
    source=True,
    slow=True,
    epilog="See nvs-prep(1), nvs-render(1), nvs-eval(1), nvs-view(1), toolroll-records(5).",
)
@click.argument(
    "scenes",
    metavar="SCENE...",
    nargs=-1,
    required=True,
    type=click.Path(path_type=Path),
    help="The folder of a scene; ibrnet takes several.",
)
@click.option(
    "--method",
    type=click.Choice(["3dgs", "ibrnet"]),
    default="3dgs",
    show_default=True,
    help="3D Gaussians of one scene, or a network of many.",
)
@click.option(
    "--unseen",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="SCENE",
    help="ibrnet: score this scene, too, without learning from it; may be given again.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The folder of the result.")
@click.option("--images", metavar="NAME", help="The folder of photos in the scene, as images_8; else the largest.")
@click.option(
    "--split", default="auto", show_default=True, metavar="RULE", help="Which photos are tested: nvs-prep(1)."
)
@click.option("--steps", type=click.IntRange(min=1), default=1000, show_default=True, help="Steps in all.")
@click.option(
    "--start",
    default="points",
    show_default=True,
    metavar="KIND",
    help="What to begin with: points of the scene, random:N or ply:FILE.",
)
@click.option(
    "--start-most",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Begin with at most N of these; 0: all.",
)
@click.option("--stop-after", type=click.IntRange(min=1), metavar="STEP", help="End here; the same command goes on.")
@click.option(
    "--eval-every",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Score every N steps; 0: at the end.",
)
@click.option(
    "--save-every", type=click.IntRange(min=1), default=1000, show_default=True, metavar="N", help="Save every N steps."
)
@click.option(
    "--report-every",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="A row every N steps.",
)
@click.option(
    "--image-memory",
    default="2g",
    show_default=True,
    metavar="BYTES",
    help="Memory for photos that are read once; others are read each time.",
)
@click.option("--strict", is_flag=True, help="Fail where a photo is missing.")
@click.option(
    "--back-end",
    type=click.Choice(["auto", "gsplat", "numba", "torch"]),
    default="auto",
    show_default=True,
    help="What draws; torch is slow, and for tests.",
)
@click.option("--device", default="auto", show_default=True, help="auto (CUDA if torch sees one), cpu, cuda, cuda:N.")
@option_group("recipe", RecipeOptions, recipe_options(GroupedOption))
@option_group("density", GrowthOptions, growth_options(GroupedOption))
@option_group("ibr", IbrOptions, ibr_options(GroupedOption))
@uses_seed
def main(
    *, recipe: RecipeOptions, density: GrowthOptions, ibr: IbrOptions, log: Log, stop: StopFlag, **options: Any
) -> Iterator[dict[str, Any]]:
    """Learn a scene from photos, as 3D Gaussians, or a network that draws any scene.

    Writes a folder with the result and pictures of the test photos, and rows of how training went.
    """
    folder = checked_folder(options["out"])
    for method, names in OWN.items():
        if method != options["method"]:
            refuse_given(names, f"is for --method {method}")
    settings = {name: options[name] for name in ("method", "images", "split", "steps", "seed")}
    training: Training | IbrTraining
    if options["method"] == "3dgs":
        training = _gaussians(recipe, density, log, **options)
        settings |= {
            **asdict(recipe),
            **asdict(density),
            "start": options["start"],
            "start_most": options["start_most"],
        }
        settings |= {"scene": str(training.scene.root.resolve()), "back_end": training.fit.rasterizer.name}
    else:
        training = _network(ibr, log, **options)
        settings |= {**asdict(ibr), "scenes": [str(path.resolve()) for path in options["scenes"]]}
    training.resume(settings, FIRM[options["method"]], log.warn)
    if training.step:
        log.note(f"goes on behind step {training.step}", str(folder))
    yield from training.rows(
        lambda: bool(stop),
        report_every=options["report_every"],
        eval_every=options["eval_every"],
        save_every=options["save_every"],
        last=options["stop_after"],
    )
    if not stop and training.step >= options["steps"]:
        log.info(f"{training.show()} pictures of test photos", str(folder))


def _gaussians(recipe: RecipeOptions, density: GrowthOptions, log: Log, **options: Any) -> Training:
    from toolroll.splat.rasterizer import open_rasterizer
    from toolroll.splat.training import Start, Training

    if len(options["scenes"]) != 1:
        raise UsageError("3dgs learns one scene; ibrnet learns from many", place="--method")
    memory = read_bytes(options["image_memory"])
    rasterizer = open_rasterizer(options["back_end"], options["device"])
    scene, shots = _scene(options["scenes"][0], log, **options)
    log.info(f"{len(shots)} photos, {len(scene.points)} points; drawn by {rasterizer.name} on {rasterizer.device}")
    longer = max(max(shot.lens.width, shot.lens.height) for shot in shots)
    growth = density.of(options["steps"], longer)
    mcmc = growth.kind == "mcmc"
    most = min(filter(None, (options["start_most"], density.cap)), default=0)
    start = Start(options["start"], 0.5 if mcmc else 0.1, 0.1 if mcmc else 1.0, most)
    return Training(
        scene, shots, recipe.recipe(options["steps"], growth), start, rasterizer, options["out"],
        seed=options["seed"], memory_bytes=memory, warn=lambda why: log.warn(why, str(scene.root)),
    )  # fmt: skip


def _network(ibr: IbrOptions, log: Log, **options: Any) -> IbrTraining:
    from toolroll.models.device import choose_device
    from toolroll.splat.ibrnet_training import IbrTraining

    memory = read_bytes(options["image_memory"])
    device = choose_device(options["device"], "float32").name
    seen, unseen = ([_scene(path, log, **options) for path in options[name]] for name in ("scenes", "unseen"))
    log.info(f"{len(seen)} scenes to learn from, {sum(len(shots) for _, shots in seen)} photos")
    return IbrTraining(
        seen, ibr.recipe(options["steps"]), options["out"],
        seed=options["seed"], memory_bytes=memory, device=device, unseen=unseen,
    )  # fmt: skip


def _scene(path: Path, log: Log, **options: Any) -> tuple[Scene, list[Shot]]:
    """A scene, and its shots with their parts."""
    from toolroll.splat.finding import open_scene
    from toolroll.splat.splitting import part_shots

    scene = open_scene(path, images=options["images"], strict=options["strict"])
    for warning in scene.warnings:
        log.warn(warning, str(scene.root))
    try:
        shots, warnings = part_shots(scene.shots, options["split"])
    except ToolrollError as error:
        raise type(error)(error.why, place=error.place or str(scene.root)) from error
    for warning in warnings:
        log.warn(warning, str(scene.root))
    return scene, shots
