"""nvs-render: draw a trained scene from cameras, or along a way through it.

Ways: toolroll.splat.paths; what draws: toolroll.splat.rasterizer.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import command
from toolroll.records import field_types
from toolroll.records.nvs import NvsRender
from toolroll.splat.options import NETWORK, checked_folder, refuse_given

if TYPE_CHECKING:
    from toolroll.run.log import Log
    from toolroll.run.signals import StopFlag
    from toolroll.splat.rendering import Camera, Painter

EXAMPLES = """
  The test photos' cameras, of a folder of nvs-train:
    nvs-train tests/data/plush --images images_16 --steps 10 --out plush > plush.jsonl
    nvs-render plush --out again > pictures.jsonl
  From one test camera to the next, with depths:
    nvs-render plush --path interpolate --frames 6 --depth --out walk > walk.jsonl
  A film around what is in the middle, of a PLY that some other program made:
    nvs-render POINT_CLOUD.ply --cameras SCENE --path orbit --frames 120 --size 960x540 --out orbit --video orbit.mp4
  A scene that a network of many others has never seen:
    nvs-render MANY --scene GARDEN --path spiral --out garden-spiral
"""

NOTES = """
MODEL is a folder of nvs-train, or 3D Gaussians of any program: a PLY, plain or compressed, a .splat, or a folder with
point_cloud.ply in it, or in point_cloud/iteration_N of which the last is taken. Cameras are those of the model's test
photos, or of --cameras: the folder of a scene (nvs-prep(1)), the cameras.json of the original code, or JSON lines that
say image, world_to_camera (OpenCV's axes, [4, 4]), width, height, fx, fy, cx and cy, as this command writes them.
Lenses are straight; those of a scene are straightened first. All is in the world of the PLY.

--path makes cameras from these: interpolate goes through them all, by name; orbit once around the point they look at,
at their mean distance and height; spiral twice around their middle. The lens is that of the first camera.

--depth writes DIR/NAME.depth.npy beside each picture, float32 [H, W]: the expected depth along the axis of view,
sum(w z) / sum(w), 0 where nothing is. --video wants ffmpeg. A PLY says in a comment if it is antialiased.

A network (nvs-train --method ibrnet) draws from photos, which have to be there: those that it was trained on, made as
small. Of a scene of its training they are found as nvs-eval(1) finds them; --scene says which scene, or where it is, or
names another one, of which --split says which photos are looked at. A photo that the very camera took is not.

On a CPU numba draws, on CUDA gsplat, which was not run on a GPU here.
"""

CLOUDS = ("sh_degree", "background", "back_end")  #: options of Gaussians
NETWORKS = ("scene", "images", "split")


@command(
    "nvs-render",
    system="DL3DV",
    adds=field_types(NvsRender, *NvsRender.__struct_fields__),
    key=("image",),
    source=True,
    slow=True,
    epilog="See nvs-train(1), nvs-eval(1), nvs-view(1), toolroll-records(5).",
)
@click.argument("model", type=click.Path(path_type=Path), help="A folder of nvs-train, a PLY or a .splat.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The folder of the pictures."
)
@click.option(
    "--cameras", type=click.Path(path_type=Path), metavar="PATH", help="A scene, cameras.json, or JSON lines."
)
@click.option(
    "--part",
    type=click.Choice(["test", "val", "train", "all"]),
    default="test",
    show_default=True,
    help="Which of a model's cameras; of --cameras, all.",
)
@click.option("--scene", metavar="SCENE", help="Network: draw this scene, by name or folder; else as trained.")
@click.option("--images", metavar="NAME", help="Network: the scene's folder of photos; else as trained.")
@click.option("--split", metavar="RULE", help="Network: look at photos this rule trains on; else as trained.")
@click.option("--path", "way", type=click.Choice(["interpolate", "orbit", "spiral"]), help="Make a way of the cameras.")
@click.option("--frames", type=click.IntRange(min=1), default=60, show_default=True, help="Pictures of a way.")
@click.option("--size", metavar="WIDTHxHEIGHT", help="Size of the pictures; else that of the camera.")
@click.option("--video", type=click.Path(path_type=Path), metavar="FILE", help="All pictures as a film, by ffmpeg.")
@click.option(
    "--fps", type=click.FloatRange(min=0.1), default=24.0, show_default=True, help="Pictures a second of the film."
)
@click.option("--depth", is_flag=True, help="Write depths, too.")
@click.option(
    "--sh-degree",
    type=click.IntRange(0, 3),
    default=3,
    show_default=True,
    help="Degree of the spherical harmonics that are drawn, at most.",
)
@click.option(
    "--background",
    type=click.Choice(["black", "white"]),
    help="What is behind everything; else as it was trained, or black.",
)
@click.option(
    "--back-end",
    type=click.Choice(["auto", "gsplat", "numba", "torch"]),
    default="auto",
    show_default=True,
    help="What draws; torch is slow, and for tests.",
)
@click.option("--device", default="auto", show_default=True, help="auto (CUDA if torch sees one), cpu, cuda, cuda:N.")
def main(*, model: Path, out: Path, log: Log, stop: StopFlag, **options: Any) -> Iterator[dict[str, Any]]:
    """Draw a trained scene from cameras, or along a way through it.

    Writes PNGs, and a row for each with its camera.
    """
    from toolroll.io.paths import check_apart
    from toolroll.splat.films import film, ready_to_film
    from toolroll.splat.ply import splats_file
    from toolroll.splat.rendering import check_places, pictures

    video: Path | None = options["video"]
    output = click.get_current_context().params["output"]
    network = (model / NETWORK).is_file()
    check_apart((output, video), (model / NETWORK if network else splats_file(model), options["cameras"]))
    if options["way"] is None:
        refuse_given(("frames",), "goes with --path")
    if video is None:
        refuse_given(("fps",), "goes with --video")
    paint, cameras, photos = (_network if network else _cloud)(model, log, **options)
    check_places(cameras, checked_folder(out), photos)
    if video is not None:
        ready_to_film(video, options["fps"], [(camera.lens.width, camera.lens.height) for camera in cameras])
    made = []
    for row in pictures(paint, cameras, out, depth=options["depth"]):
        made.append(out / row["render"])
        yield row
        if stop:
            return
    if video is not None:
        film(made, video, options["fps"])
        log.info(f"{len(made)} pictures", str(video))


def _cloud(model: Path, log: Log, **options: Any) -> tuple[Painter, list[Camera], list[Path]]:
    """What draws Gaussians, from where, and no photos."""
    from toolroll.splat.rasterizer import open_rasterizer
    from toolroll.splat.rendering import open_cloud

    refuse_given(NETWORKS, "is for a network (nvs-train --method ibrnet), not for Gaussians")
    rasterizer = open_rasterizer(options["back_end"], options["device"])
    cloud = open_cloud(model)
    cameras = _cameras(None if cloud.about is None else cloud.about.cameras, model, log, **options)
    log.info(f"{len(cloud.gaussians)} Gaussians, drawn by {rasterizer.name} on {rasterizer.device}", str(cloud.path))
    paint = cloud.painter(cameras, rasterizer, **{name: options[name] for name in ("sh_degree", "background")})
    return paint, cameras, []


def _network(model: Path, log: Log, **options: Any) -> tuple[Painter, list[Camera], list[Path]]:
    """What draws by a network, from where, and the photos that it looks at."""
    from toolroll.models.device import choose_device
    from toolroll.splat.ibrnet_rendering import open_network

    refuse_given(CLOUDS, "is for Gaussians, not for a network")
    device = choose_device(options["device"], "float32").name
    own = {name: options[name] for name in NETWORKS}
    network = open_network(model, device=device, warn=lambda why: log.warn(why, str(model)), **own)
    cameras = _cameras(network.cameras, model, log, **options)
    log.info(f"a network, on {device}, and {len(network.photos)} photos of {network.scene.root}", str(model))
    return network.paint, cameras, network.photos


def _cameras(known: Any, model: Path, log: Log, **options: Any) -> list[Camera]:
    from toolroll.splat.rendering import cameras_of, sized, way_through

    given: Path | None = options["cameras"]
    cameras = cameras_of(known, model, given, options["part"], lambda why: log.warn(why, str(given)))
    if options["way"] is not None:
        cameras = way_through(cameras, options["way"], options["frames"])
    return cameras if options["size"] is None else [sized(camera, options["size"]) for camera in cameras]
