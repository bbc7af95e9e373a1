"""Points by SIFT: what is seen alike in several photos, triangulated from the poses that the photos have.

It takes pycolmap, which is COLMAP: features of each photo, matches of pairs, and points from the given poses. Poses and
lenses stay as they are.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from toolroll.errors import ToolrollError, first_line
from toolroll.splat.colmap_lenses import numbers_of
from toolroll.splat.scene import Points, Shot

FEATURES = 2048  #: of a photo
PAIRS = 40_000  #: with more pairs of photos than this, each is matched with those near it in the order of names
NEAR = 20  #: so many of them


def triangulated(shots: Sequence[Shot]) -> Points:
    """Points in the world of the shots. ToolrollError without pycolmap, with less than two shots, or without a point.

    Masks are not looked at. The same photos give nearly the same points: COLMAP draws its samples at random.
    """
    if len(shots) < 2:
        raise ToolrollError("want two photos or more to triangulate points")
    colmap = _pycolmap()
    with tempfile.TemporaryDirectory(prefix="nvs-prep-") as name:
        work = Path(name)
        numbers = _links(shots, work / "photos")
        try:
            return _points(colmap, shots, numbers, work)
        except (RuntimeError, ValueError) as error:
            raise ToolrollError(f"pycolmap: {first_line(error)}") from error


def _pycolmap() -> Any:
    try:
        colmap = importlib.import_module("pycolmap")
    except ImportError as error:
        raise ToolrollError("points by SIFT need pycolmap: pip install 'toolroll[colmap]'") from error
    if not hasattr(colmap, "triangulate_points"):
        raise ToolrollError("this pycolmap is too old: pip install 'toolroll[colmap]'")
    colmap.logging.minloglevel = colmap.logging.ERROR.value
    return colmap


def _links(shots: Sequence[Shot], folder: Path) -> dict[str, Shot]:
    """Photos by plain names, whatever those of the scene are."""
    folder.mkdir()
    found = {}
    for number, shot in enumerate(shots):
        name = f"{number:06d}{shot.path.suffix.lower()}"
        (folder / name).symlink_to(shot.path.resolve())
        found[name] = shot
    return found


def _points(colmap: Any, shots: Sequence[Shot], named: dict[str, Shot], work: Path) -> Points:
    database, photos = work / "database.db", work / "photos"
    lenses = list(dict.fromkeys(shot.lens for shot in shots))
    extraction = colmap.FeatureExtractionOptions()
    extraction.sift.max_num_features = FEATURES
    matching = colmap.FeatureMatchingOptions()
    extraction.use_gpu = matching.use_gpu = False
    extraction.num_threads = matching.num_threads = int(os.environ.get("OMP_NUM_THREADS") or -1)
    for lens in lenses:
        model, numbers = numbers_of(lens)
        reader = colmap.ImageReaderOptions()
        reader.camera_model, reader.camera_params = model, ",".join(map(repr, map(float, numbers)))
        names = [name for name, shot in named.items() if shot.lens == lens]
        settings = {"reader_options": reader, "extraction_options": extraction, "device": colmap.Device.cpu}
        colmap.extract_features(database, photos, names, colmap.CameraMode.SINGLE, **settings)
    device = {"matching_options": matching, "device": colmap.Device.cpu}
    if len(shots) * (len(shots) - 1) // 2 <= PAIRS:
        colmap.match_exhaustive(database, **device)
    else:
        pairing = colmap.SequentialPairingOptions()
        pairing.overlap = NEAR
        colmap.match_sequential(database, pairing_options=pairing, **device)
    (work / "model").mkdir()
    model = colmap.triangulate_points(_given(colmap, named, database), database, photos, work / "model")
    found = list(model.points3D.values())
    if not found:
        raise ToolrollError("SIFT finds no point that two photos have in common")
    return Points(np.array([point.xyz for point in found]), np.array([point.color for point in found], np.uint8))


def _given(colmap: Any, named: dict[str, Shot], database: Path) -> Any:
    """The model of the cameras, with the numbers that the database gave."""
    opened = colmap.Database.open(database)
    try:
        cameras, images = opened.read_all_cameras(), opened.read_all_images()
        model = colmap.Reconstruction()
        for camera in cameras:
            model.add_camera_with_trivial_rig(camera)
        for image in images:
            pose = colmap.Rigid3d(np.ascontiguousarray(named[image.name].pose[:3]))
            points = opened.read_keypoints(image.image_id)[:, :2].astype(float)
            given = colmap.Image(name=image.name, keypoints=points, camera_id=image.camera_id, image_id=image.image_id)
            model.add_image_with_trivial_frame(given, pose)
    finally:
        opened.close()
    return model
