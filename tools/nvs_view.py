"""nvs-view: show 3D Gaussians on a page.

The page: toolroll.splat.view. Files of Gaussians: toolroll.splat.ply.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from toolroll.cli import command
from toolroll.errors import ToolrollError, UsageError

if TYPE_CHECKING:
    from toolroll.run.log import Log

EXAMPLES = """
  A page to open in a browser:
    nvs-train tests/data/plush --images images_16 --steps 10 --out plush > plush.jsonl
    nvs-view plush -o plush.html
  Seen from a camera, as a small file, its z upwards:
    echo '{"pose": [[1,0,0,0], [0,1,0,0], [0,0,1,4], [0,0,0,1]], "fov": 50}' > camera.json
    nvs-view plush --camera camera.json --up z --max-splats 10000 --format splat -o small.html
  What another program made:
    nvs-view SCENE.ply -o scene.html
"""

NOTES = """
SCENE is a PLY as programs for 3D Gaussian splatting write it (text, binary or compressed, harmonics of degree 0 to 3),
a .splat file, or a folder with point_cloud.ply in it, or in point_cloud/iteration_N of which the last is taken.

The page is one file that loads nothing: the splats are in it, and so are parts of the PlayCanvas engine (MIT), about
1 MB. It needs a browser with WebGL 2. Drag to look from elsewhere; with Shift, or two fingers, to move sideways; turn
the wheel or pinch to come nearer. Arrow keys, + and - do the same, W A S D E Q walk, R goes back to where it began, H
lists all this.

--format says how precisely numbers are kept. ply: with all harmonics, in 16-bit floats. splat: in bytes, of one colour
from all sides. Positions are 32-bit floats in both. A splat takes 34 bytes with harmonics of degree 0, 124 with those
of degree 3, and 26 as splat, less what compression saves and a third more for base64.

--max-splats keeps the splats that have most opacity times area. Splats that are not finite are left out, and counted on
stderr.

--camera is a JSON file: `pose`, the 4 x 4 matrix from world to camera (looks along +z, x right, y down, as in OpenCV
and COLMAP), and `fov`, the angle from the upper to the lower edge in degrees, 50 if not given. Without it the page
begins with the first test photo's camera of a folder of nvs-train, else with the middle of the scene, from a little
above.

--up is what a drag sideways turns around: x, -y, z or three numbers. Without it: what the PLY says in a comment
`Vertical axis: ...`, else the camera's own, else -y, as in worlds of COLMAP. Those of nerfstudio have z.

--mode says how splats narrower than a pixel are drawn. antialiased: they fade, as in models that were trained so;
classic: they grow. A PLY may say it in a comment (`SplatRenderMode: mip`); what says nothing is classic.
"""


@command("nvs-view", system="DL3DV", epilog="See nvs-train(1), nvs-render(1), toolroll(7).")
@click.argument("scene", metavar="SCENE", type=click.Path(path_type=Path), help="A .ply, a .splat, or a folder.")
@click.option("-o", "--output", default="-", metavar="FILE", type=click.Path(), help="Write here instead of stdout.")
@click.option(
    "--camera",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help='Where to begin: JSON {"pose": 4 x 4, "fov": degrees}.',
)
@click.option("--up", metavar="AXIS", help="What is upwards: z, -y, or three numbers X,Y,Z.")
@click.option("--max-splats", type=click.IntRange(min=1), metavar="N", help="Keep the N most visible splats.")
@click.option("--title", help="What the page is called; the name of SCENE if not given.")
@click.option(
    "--format",
    "numbers",
    type=click.Choice(["ply", "splat"]),
    default="ply",
    show_default=True,
    help="How precisely splats are kept: all there is in 16 bits, or bytes and one colour from all sides.",
)
@click.option(
    "--mode",
    type=click.Choice(["file", "classic", "antialiased"]),
    default="file",
    show_default=True,
    help="How small splats are drawn; file: as the PLY says.",
)
@click.option("--background", default="#000000", show_default=True, metavar="#RRGGBB", help="Colour of the ground.")
def main(
    *,
    scene: Path,
    output: str,
    camera: Path | None,
    up: str | None,
    max_splats: int | None,
    title: str | None,
    numbers: Literal["ply", "splat"],
    mode: str,
    background: str,
    log: Log,
) -> None:
    """Show 3D Gaussians on a page.

    Reads a .ply, a .splat or the folder of a trained scene; writes one HTML page that draws the splats in a browser,
    to be turned around and walked through.
    """
    from toolroll.io.paths import check_apart
    from toolroll.splat.ply import is_antialiased, open_splats, splats_file
    from toolroll.splat.view import (
        drawable,
        most_visible,
        page,
        read_camera,
        read_direction,
        trained_camera,
        up_of,
        view_of,
    )

    check_apart([output], [splats_file(scene), camera])
    ground = _colour(background)
    given = read_camera(camera) if camera is not None else trained_camera(scene)
    gaussians, comments = open_splats(scene)
    upwards = read_direction(up) if up is not None else up_of(comments)
    kept = drawable(gaussians)
    if not kept.all():
        log.warn(f"{int((~kept).sum())} of {len(gaussians)} splats are not finite and left out", str(scene))
        gaussians = gaussians.chosen(kept)
    if not len(gaussians):
        raise ToolrollError("no splats", place=str(scene))
    if max_splats is not None and max_splats < len(gaussians):
        log.info(f"the {max_splats} most visible of {len(gaussians)} splats", str(scene))
        gaussians = gaussians.chosen(most_visible(gaussians, max_splats))
    text = page(
        gaussians,
        view_of(gaussians, camera=given, up=upwards),
        title=title if title is not None else scene.resolve().stem,
        numbers=numbers,
        antialiased=is_antialiased(comments) if mode == "file" else mode == "antialiased",
        background=ground,
    )
    _write(output, text)
    log.info(f"{len(gaussians)} splats, {len(text) / 1e6:.1f} MB", output)


def _write(output: str, text: str) -> None:
    from toolroll.io.outputs import Sink

    sink = Sink(output)
    try:
        sink.start()
        sink.write(text.removesuffix("\n").encode())
        sink.commit()
    except BaseException as error:
        if sink.abandon():
            Path(f"{output}.part").unlink()
        if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
            raise ToolrollError(error.strerror or str(error), place=sink.name) from error
        raise


def _colour(text: str) -> tuple[float, float, float]:
    """Red, green and blue in 0 to 1."""
    try:
        red, green, blue = bytes.fromhex(text.removeprefix("#"))
    except ValueError as error:
        raise UsageError(f"{text!r} is no colour #RRGGBB", place="--background") from error
    return red / 255, green / 255, blue / 255
