"""Films of pictures, by ffmpeg."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from toolroll.errors import ToolrollError, UsageError
from toolroll.io.paths import check_writable
from toolroll.splat.pictures import write_picture


def ready_to_film(path: Path, fps: float, sizes: Iterable[tuple[int, int]] = ()) -> None:
    """Told before anything is drawn: UsageError where a film cannot be, such as without ffmpeg.

    sizes: width and height of the pictures, of which there can be one.
    """
    if shutil.which("ffmpeg") is None:
        raise UsageError("wants ffmpeg, which is not installed", place="--video")
    if not path.resolve().parent.is_dir():
        raise UsageError("its folder does not exist", place=str(path))
    check_writable(path)
    if len(set(sizes)) > 1:
        raise UsageError("pictures have different sizes: say --size", place="--video")
    with tempfile.TemporaryDirectory() as scratch:
        picture = Path(scratch) / "picture.png"
        write_picture(picture, np.zeros((16, 16, 3)))
        try:
            film([picture], Path(scratch) / f"film{path.suffix}", fps)
        except ToolrollError as error:
            raise UsageError(error.why, place=str(path)) from error


def film(pictures_made: Sequence[Path], path: Path, fps: float) -> None:
    """Pictures one after the other as a film, by ffmpeg; H.264 where the file's name does not say otherwise."""
    with tempfile.TemporaryDirectory() as scratch:
        for number, picture in enumerate(pictures_made):
            (Path(scratch) / f"{number:06d}.png").symlink_to(picture.resolve())
        part = Path(os.path.abspath(path.with_name(f".part-{path.name}")))  # noqa: PTH100 - a link stays one
        even = "pad=ceil(iw/2)*2:ceil(ih/2)*2"  # as most players want it
        argv = ["ffmpeg", "-v", "error", "-y", "-framerate", str(fps), "-i", "%06d.png"]
        argv += ["-vf", even, "-pix_fmt", "yuv420p", str(part)]
        done = subprocess.run(argv, capture_output=True, cwd=scratch, stdin=subprocess.DEVNULL)
        if done.returncode:
            part.unlink(missing_ok=True)
            said = [line for line in done.stderr.decode(errors="replace").splitlines() if line.strip()]
            why = said[0].replace(str(part), path.name) if said else "it says nothing of why"
            raise ToolrollError(f"ffmpeg failed: {why}", place=str(path))
        part.replace(path)
