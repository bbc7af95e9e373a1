"""Golden cases: in each folder cases/COMMAND/CASE, the shell line in `cmd` must write `out` and `err` and end in `rc`.

The line runs with bash in a copy of the folder, the commands on its PATH. `python tests/test_cases.py --rewrite
[COMMAND]...` (or `make cases`, for all) writes down what they do now; read the difference before you believe it.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import frame

FOLDER = Path(__file__).with_name("cases")
CASES = sorted(path.parent for path in FOLDER.glob("*/*/cmd"))
EXPECTED = ("out", "err", "rc")


def observed(case: Path, scratch: Path) -> dict[str, bytes]:
    """What a case's line does: the text of each file of EXPECTED."""
    folder = scratch / case.name
    shutil.copytree(case, folder, ignore=shutil.ignore_patterns(*EXPECTED))
    data = str(FOLDER.with_name("data"))
    env = {"DATA": data, **({"PATH": frame.warm_path()} if case.parent.name in frame.SOMETIMES else {})}
    result = frame.shell((case / "cmd").read_text(), cwd=folder, env=env)
    err = re.sub(r"\b\d+\.\d+ s$", "N s", result.err, flags=re.MULTILINE)
    err = err.replace(str(folder), ".").replace(data, "$DATA")  # the same wherever the project lies
    return {"out": result.out, "err": err.encode(errors="surrogateescape"), "rc": b"%d\n" % result.rc}


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.name}")
def test_case(case, tmp_path):
    if "jq " in (case / "cmd").read_text() and shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    found = observed(case, tmp_path)
    for name in EXPECTED:
        assert found[name].decode(errors="replace") == (case / name).read_bytes().decode(errors="replace"), name


def test_every_command_of_a_case_is_installed():
    assert {case.parent.name for case in CASES} <= set(frame.entry_points())


def rewrite(commands: list[str]) -> None:
    """Write down what these commands (or all) do now, and name the cases in which that is new."""
    for case in [case for case in CASES if not commands or case.parent.name in commands]:
        with tempfile.TemporaryDirectory() as scratch:
            found = observed(case, Path(scratch))
        before = {name: (case / name).read_bytes() for name in EXPECTED if (case / name).exists()}
        for name, data in found.items():
            (case / name).write_bytes(data)
        if found != before:
            print(f"{case.parent.name}/{case.name}")


if __name__ == "__main__":
    if sys.argv[1:2] != ["--rewrite"]:
        sys.exit("usage: python tests/test_cases.py --rewrite [COMMAND]...")
    rewrite(sys.argv[2:])
