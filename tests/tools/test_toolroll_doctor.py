"""toolroll-doctor: what it finds here, and on machines that lack something."""

from __future__ import annotations

import json
import os
import sys
import sysconfig
import tomllib
from pathlib import Path

import frame
import pytest

from toolroll.doctor.packages import CORE, EXTRAS, requirements, version_of
from toolroll.doctor.places import EMBEDDED

DOCTOR = str(frame.BIN / "toolroll-doctor")
PROJECT = tomllib.loads((frame.ROOT / "pyproject.toml").read_text())["project"]
DEFAULTS = {"--model": ("embedded", "sprite", "outline"), "--clip": ("glance",), "--text-encoder": ("lexicon",)}


def examined(tmp_path, *args, env=None):
    result = frame.run([DOCTOR, *args], cwd=tmp_path, env=env)
    return result, {row["part"]: row for row in result.rows} if "--table" not in args else {}


def test_this_machine(tmp_path):
    result, parts = examined(tmp_path)
    assert result.rc == 0, result.err
    assert parts["python"]["found"].startswith(".".join(map(str, sys.version_info[:3])))
    assert parts["torch"]["ok"]
    assert "1 threads" in parts["torch"]["found"]
    assert parts["sandbox: seccomp"]["ok"]
    assert all(parts[name]["ok"] for name in EMBEDDED)
    for part in parts.values():
        assert part["found"]
        assert (part["install"] is None) or not part["ok"]
    assert not [part for part in parts.values() if part["core"] and not part["ok"]]


def test_the_table_has_a_line_for_each_part(tmp_path):
    _, parts = examined(tmp_path)
    result, _ = examined(tmp_path, "--table")
    names = [line.split("  ")[0] for line in result.out.decode().splitlines()]
    assert names == ["part", *parts]


def test_packages_are_those_of_the_project():
    names = {text.split(">")[0].split("<")[0].split("[")[0] for text in PROJECT["dependencies"]}
    assert set(CORE) == names
    for package, (extra, _) in EXTRAS.items():
        assert any(text.startswith(package) for text in PROJECT["optional-dependencies"][extra]), package
    bounds = requirements()
    assert set(bounds["transformers"].split(",")) == {">=5.18", "<6"}
    assert bounds["math-verify"] == ">=0.9"


def test_a_package_that_is_too_old_is_found():
    found, why = version_of("numpy", "<1")
    assert why == f"{found}, which is not <1"
    assert version_of("no-such-package") == ("", "not installed")
    assert version_of("numpy", ">=1")[1] == ""


def test_embedded_models_are_those_that_options_fall_back_on():
    """Every option whose default is an embedded model names one that is looked at."""
    found = {
        param.default
        for command in frame.COMMANDS
        for param in command.tool.params
        if param.opts[-1] in DEFAULTS and isinstance(param.default, str)
    }
    assert found == {"embedded", *EMBEDDED}


def test_programs_that_are_not_there(tmp_path):
    (tmp_path / "bin").mkdir()
    _, parts = examined(tmp_path, env={"PATH": str(tmp_path / "bin"), "SLURM_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"})
    assert parts["jq"] == {**parts["jq"], "ok": False, "found": "not installed", "install": "apt install jq"}
    assert parts["ffmpeg"]["install"] == "apt install ffmpeg"
    assert parts["sandbox: bwrap"]["install"] == "apt install bubblewrap"
    assert parts["sandbox: bwrap"]["found"] == "bwrap (bubblewrap) is not installed"
    assert parts["slurm"]["install"] == "apt install slurm-client"
    assert parts["slurm"]["found"] == "sbatch, squeue, sinfo not found; inside job 7, task 3 of an array"


def test_a_hub_that_is_not_to_be_asked(tmp_path):
    _, parts = examined(tmp_path, env={"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hub")})
    assert parts["hub"]["found"] == f"HF_HUB_OFFLINE is set: cache in {tmp_path}/hub/hub alone"
    assert (parts["hub"]["ok"], parts["hub"]["install"]) == (False, "unset HF_HUB_OFFLINE")


def test_settings_of_the_environment_are_named_and_not_told(tmp_path):
    env = {"TOOLROLL_DEVICE": "cpu", "TOOLROLL_API_KEY": "secret", "TOOLROLL_HOME": str(tmp_path)}
    _, parts = examined(tmp_path, env=env)
    assert parts["settings"]["found"] == "TOOLROLL_API_KEY, TOOLROLL_DEVICE, TOOLROLL_HOME"


def test_a_core_part_that_is_missing_is_told_and_the_exit_code_says_so(tmp_path):
    (tmp_path / "file").touch()
    env = {"TOOLROLL_HOME": str(tmp_path / "file" / "cache")}
    result, parts = examined(tmp_path, "-o", "parts.jsonl", env=env)
    assert result.rc == 1
    parts = {row["part"]: row for row in map(json.loads, (tmp_path / "parts.jsonl").read_text().splitlines())}
    assert not parts["cache folder"]["ok"]
    assert parts["settings"], "all is looked at, whatever is missing"
    (line,) = result.complaints
    assert line.startswith(
        f"toolroll-doctor: cache folder: {tmp_path}/file/cache: cannot be written: export TOOLROLL_HOME="
    )


@pytest.fixture(scope="module")
def without_torch(tmp_path_factory):
    """This environment's packages, but for torch."""
    folder = tmp_path_factory.mktemp("packages")
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith(("torch", "functorch", "__editable__", "_")) and path.suffix != ".pth":
            (folder / path.name).symlink_to(path)
    return folder


def test_a_machine_without_torch(without_torch, tmp_path):
    code = "import sys; from toolroll.tools.toolroll_doctor import main; main()"
    path = os.pathsep.join([str(frame.ROOT / "lib"), str(without_torch)])
    argv = [sys._base_executable, "-s", "-c", code]
    result = frame.run(argv, cwd=tmp_path, env={"PYTHONPATH": path, "VIRTUAL_ENV": ""})
    parts = {row["part"]: row for row in result.rows}
    assert result.rc == 1
    assert (parts["torch"]["ok"], parts["torch"]["found"]) == (False, "not installed")
    assert parts["torch"]["install"].startswith("pip install 'torch")
    assert parts["transformers"]["ok"]
    assert list(parts)[-1] == "settings"
    assert "Traceback" not in result.err
    assert result.complaints == [f"toolroll-doctor: torch: not installed: {parts['torch']['install']}"]
