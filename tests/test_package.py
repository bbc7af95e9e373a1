"""The package as built: the source distribution is enough for the wheel, and the wheel has all that is shipped."""

from __future__ import annotations

import email
import sys
import tarfile
import tomllib
import zipfile
import zlib
from pathlib import Path

import frame
import pytest

pytest.importorskip("hatchling", reason="hatchling builds the package; pip install 'toolroll[dev]'")

PROJECT = tomllib.loads((frame.ROOT / "pyproject.toml").read_text())["project"]
MODELS = ("glance", "lexicon", "outline", "sprite")
SHARES = {"bash": "bash-completion/completions", "zsh": "zsh/site-functions", "fish": "fish/vendor_completions.d"}


def build(kind: str, root: Path, to: Path) -> Path:
    """Build an "sdist" or a "wheel" of the project in `root`; the file that was made."""
    done = frame.run([sys.executable, "-m", "hatchling", "build", "-t", kind, "-d", str(to)], cwd=root)
    assert done.rc == 0, done.err
    (made,) = to.iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from what the source distribution unpacks to, and nothing else."""
    folder = tmp_path_factory.mktemp("package")
    with tarfile.open(build("sdist", frame.ROOT, folder / "sdist")) as sources:
        sources.extractall(folder / "unpacked", filter="data")
    (root,) = (folder / "unpacked").iterdir()
    with zipfile.ZipFile(build("wheel", root, folder / "wheel")) as archive:
        yield archive


def shipped(stem: str) -> dict[str, Path]:
    """Each name in the wheel that is a file of the repository, and that file."""
    found: dict[str, Path] = {}
    for top, inside in (("lib/toolroll", "toolroll"), ("tools", "toolroll/tools")):
        folder = frame.ROOT / top
        for path in folder.rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                found[f"{inside}/{path.relative_to(folder)}"] = path
    data = f"{stem}.data/data/share"
    for path in (frame.ROOT / "man").iterdir():
        found[f"{data}/man/man{path.suffix[1:]}/{path.name}"] = path
    for shell, place in SHARES.items():
        found |= {f"{data}/{place}/{path.name}": path for path in (frame.ROOT / "completions" / shell).iterdir()}
    for pattern in PROJECT["license-files"]:
        for path in frame.ROOT.glob(pattern):
            found[f"{stem}.dist-info/licenses/{path.relative_to(frame.ROOT)}"] = path
    return found


def test_the_wheel_has_every_file_that_is_shipped_and_no_other(wheel):
    (about,) = (name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    stem = about.partition(".dist-info/")[0]
    files = shipped(stem)
    made = {f"{stem}.dist-info/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    assert set(wheel.namelist()) == set(files) | made
    changed = [name for name, path in files.items() if zlib.crc32(path.read_bytes()) != wheel.getinfo(name).CRC]
    assert changed == []


def test_each_command_has_its_page_and_its_completions(wheel):
    names = {name.partition(".data/data/share/")[2] for name in wheel.namelist()}
    pages = {f"man/man1/{command}.1" for command in PROJECT["scripts"]}
    assert pages | {"man/man5/toolroll-records.5", "man/man7/toolroll.7"} <= names
    for command in PROJECT["scripts"]:
        complete = {
            f"{SHARES['bash']}/{command}.bash",
            f"{SHARES['zsh']}/_{command}",
            f"{SHARES['fish']}/{command}.fish",
        }
        assert complete <= names


def test_models_come_with_their_weights_and_data_with_its_licence(wheel):
    """What others made is under their licence, which is in the wheel and named in what it says of itself."""
    names = set(wheel.namelist())
    for model in MODELS:
        assert any(name.startswith(f"toolroll/data/{model}/") and name.endswith(".safetensors") for name in names)
        assert f"toolroll/data/{model}/README.md" in names
    (about,) = (name for name in names if name.endswith(".dist-info/METADATA"))
    said = email.message_from_bytes(wheel.read(about))
    assert said["License-Expression"] == "MIT AND Apache-2.0 AND CC-BY-SA-4.0"
    theirs = {"arc/LICENSE", "arc/NOTICE.md", "hotpotqa/NOTICE.md", "lexicon/LICENSE", "viewer/LICENSE"}
    assert {"LICENSE", *(f"lib/toolroll/data/{name}" for name in theirs)} == set(said.get_all("License-File"))
