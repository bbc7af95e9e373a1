"""The page of speed tables says what is declared, and a target is judged as declared."""

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "bench"))

import common  # noqa: E402
import run  # noqa: E402
from common import Line  # noqa: E402
from targets import TARGETS, Target, judge  # noqa: E402

sys.path.pop()  # some of its modules have names of modules of the tests

PAGE = ROOT / "docs" / "speed.md"
DOUBLE = Line("x", "rows/s", 10.0, "peer", 5.0)


def cells(page, heading):
    """The rows of the first table behind a heading."""
    lines = page.partition(f"## {heading}\n")[2].splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| --"))
    end = next((number for number, line in enumerate(lines) if number > start and not line), len(lines))
    return [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in lines[start + 1 : end]]


def test_the_page_has_every_target_that_is_declared_and_no_other():
    told = [tuple(row[:3]) for row in cells(PAGE.read_text(), "Targets")]
    assert told == [(target.table, target.measure, target.bound) for target in TARGETS]


def test_the_page_has_every_table():
    page = PAGE.read_text()
    headings = [line.removeprefix("## ") for line in page.splitlines() if line.startswith("## ")]
    assert headings == ["Targets", "Peers that were not run", *(table.title for table in run.TABLES)]
    assert all(cells(page, table.title) for table in run.TABLES)


def test_each_program_has_a_table_and_each_target_one_place():
    programs = {path.stem for path in (ROOT / "bench").glob("*.py")} - {"common", "run", "targets"}
    assert programs == {table.name for table in run.TABLES}
    assert {target.table for target in TARGETS} == programs
    assert len({(target.table, target.measure) for target in TARGETS}) == len(TARGETS)


@pytest.mark.parametrize(
    ("bounds", "result", "gross"),
    [
        ({"least": 2}, "met", False),
        ({"least": 3}, "short: why", False),
        ({"least": 5}, "**gross miss**: why", True),
        ({"least": 2.5, "gross": 2.1}, "**gross miss**: why", True),
        ({"most": 2}, "met", False),
        ({"most": 1.5}, "short: why", False),
        ({"most": 0.9}, "**gross miss**: why", True),
        ({"most": 0.9, "gross": 3}, "short: why", False),
        ({}, "", False),
        ({"least": 5, "cores": 3}, "not judged: it takes 3 cores, here are 2", False),
        ({"absent": "it needs CUDA"}, "not run: it needs CUDA", False),
    ],
)
def test_a_target_is_met_or_short_or_grossly_missed(bounds, result, gross):
    verdict = judge(Target("t", "m", peer="*", reason="why", **bounds), [DOUBLE], cores=2)
    assert (verdict.result, verdict.gross) == (result, gross)


def test_the_worst_line_counts_and_all_are_shown():
    lines = [Line("a", "ms", 4.0, "peer", 2.0), Line("b", "ms", 1.0, "peer", 2.0), Line("c", "ms", 9.0)]
    assert judge(Target("t", "m", peer="*", most=1), lines, 2).measured == "0.5 to 2"
    assert judge(Target("t", "m", peer="*", most=1), lines, 2).result.startswith("short")
    assert judge(Target("t", "m", peer="*", least=0.6), lines, 2).result.startswith("short")
    assert judge(Target("t", "m", "[ab]", "*", least=0.5), lines, 2).result == "met"
    assert judge(Target("t", "m", "c", most=9), lines, 2).measured == "9 ms"


def test_a_peer_that_is_not_installed_is_told_and_a_line_that_is_missing_is_a_defect():
    verdict = judge(Target("t", "m", peer="tantivy", least=2), [Line("q", "q/s", 1.0, "tantivy")], 2)
    assert (verdict.result, verdict.gross) == ("not run: tantivy is not installed", False)
    with pytest.raises(KeyError, match="no line is about m"):
        judge(Target("t", "m", "other"), [DOUBLE], 2)


@pytest.mark.parametrize(("least", "code"), [(2, 0), (3, 0), (5, 1)])
def test_only_a_gross_miss_fails_and_the_page_is_written_all_the_same(monkeypatch, tmp_path, least, code):
    table = next(table for table in run.TABLES if table.name == "startup")
    monkeypatch.setattr(run, "TABLES", [table])
    monkeypatch.setattr(run, "TARGETS", [Target("startup", "the measure", peer="*", least=least)])
    monkeypatch.setattr(run, "PAGE", tmp_path / "speed.md")
    monkeypatch.setattr(common, "OUT", tmp_path / "out")
    figures = tmp_path / "figures.json"

    def measured(argv, **_):
        assert argv[1] == table.program
        argv[argv.index("--json") + 1].write_text(figures.read_text())

    common.write(figures, [DOUBLE])
    monkeypatch.setattr(run.subprocess, "run", measured)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    assert run.main() == code
    page = run.PAGE.read_text()
    assert cells(page, "Targets")[0][:4] == ["startup", "the measure", f"at least {least} times", "2"]
    assert cells(page, "Start-up") == [["x", "rows/s", "10", "peer", "5", "2"]]
    monkeypatch.setattr(sys, "argv", ["run.py", "--only", "startup"])
    assert run.main() == code


def test_a_pipe_in_a_cell_does_not_end_it():
    assert "| a \\| b |" in common.markdown([Line("a | b", "s", 1.0)])
