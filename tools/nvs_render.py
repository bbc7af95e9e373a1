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

if TYPE_CHECKING:
    from toolroll.run.log import Log
    from toolroll.run.signals import StopFlag

EXAMPLES = """
  The test photos' cameras, of a folder of nvs-train:
    nvs-render plush --out again > pictures.jsonl
  A film around what is in the middle, of a PLY that some other program made:
    nvs-render point_cloud.ply --cameras scene --path orbit --frames 120 --size 960x540 --out orbit --video orbit.mp4
  From one test camera to the next, with depths:
    nvs-render plush --path interpolate --frames 60 --depth --out walk
"""

NOTES = """
MODEL is a folder of nvs-train, or a PLY of 3D Gaussians. Cameras are those of the model's test photos, or of --cameras:
the folder of a scene (nvs-prep(1)), or JSON lines that say image, world_to_camera (OpenCV's axes, [4, 4]), width,
height, fx, fy, cx and cy, as this command writes them. Lenses are straight; those of a scene are straightened first.
All is in the world of the PLY.

--path makes cameras from these: interpolate goes through them all, by name; orbit once around the point they look at,
at their mean distance and height; spiral twice around their middle. The lens is that of the first camera.

--depth writes DIR/NAME.depth.npy beside each picture, float32 [H, W]: the expected depth along the axis of view,
sum(w z) / sum(w), 0 where nothing is. --video wants ffmpeg. A PLY says in a comment if it is antialiased.

On a CPU numba draws, on CUDA gsplat, which was not run on a GPU here.
"""


@command(
    "nvs-render",
    system="DL3DV",
    adds=field_types(NvsRender, *NvsRender.__struct_fields__),
    key=("image",),
    source=True,
    slow=True,
    epilog="See nvs-train(1), nvs-eval(1), nvs-view(1), toolroll-records(5).",
)
@click.argument("model", type=click.Path(path_type=Path), help="A folder of nvs-train, or a PLY.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The folder of the pictures."
)
@click.option("--cameras", type=click.Path(path_type=Path), metavar="PATH", help="A scene, or JSON lines.")
@click.option(
    "--part",
    type=click.Choice(["test", "val", "train", "all"]),
    default="test",
    show_default=True,
    help="Which of a model's cameras; of --cameras, all.",
)
@click.option("--path", "way", type=click.Choice(["interpolate", "orbit", "spiral"]), help="Make a way of the cameras.")
@click.option("--frames", type=click.IntRange(min=1), default=60, show_default=True, help="Pictures of a way.")
@click.option("--size", metavar="WIDTHxHEIGHT", help="Of pictures; else that of the camera.")
@click.option("--video", type=click.Path(path_type=Path), metavar="FILE", help="All pictures as a film, by ffmpeg.")
@click.option("--fps", type=click.FloatRange(min=0.1), default=24.0, show_default=True, help="Pictures a second of it.")
@click.option("--depth", is_flag=True, help="Write depths, too.")
@click.option("--sh-degree", type=click.IntRange(0, 3), default=3, show_default=True, help="Harmonics at most.")
@click.option(
    "--background", type=click.Choice(["black", "white"]), help="Behind everything; else as it was trained, or black."
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
    from toolroll.splat.rasterizer import open_rasterizer
    from toolroll.splat.rendering import cameras_of, film, open_cloud, pictures, ready_to_film, sized, way_through

    if options["video"] is not None:
        ready_to_film(options["video"])
    cloud = open_cloud(model)
    cameras = cameras_of(cloud, options["cameras"], options["part"], log.warn)
    if options["way"] is not None:
        cameras = way_through(cameras, options["way"], options["frames"])
    if options["size"] is not None:
        cameras = [sized(camera, options["size"]) for camera in cameras]
    rasterizer = open_rasterizer(options["back_end"], options["device"])
    log.info(f"{len(cloud.gaussians)} Gaussians, drawn by {rasterizer.name} on {rasterizer.device}", str(cloud.path))
    made = []
    settings = {name: options[name] for name in ("sh_degree", "background", "depth")}
    for row in pictures(cloud, cameras, rasterizer, out, **settings):
        made.append(out / row["render"])
        yield row
        if stop:
            return
    if options["video"] is not None:
        film(made, options["video"], options["fps"])
        log.info(f"{len(made)} pictures", str(options["video"]))
