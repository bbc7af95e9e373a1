"""The generated files: complete, well-formed, and checked against the tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest
from click.testing import CliRunner

from toolroll import __version__, records
from toolroll.cli import Tool, command, uses_seed
from toolroll.docs import __main__ as entry
from toolroll.docs.blocks import commands_table, roll_table, shared_data
from toolroll.docs.command_page import command_page, summary
from toolroll.docs.completions import completion_files
from toolroll.docs.fields import fields_of, type_text
from toolroll.docs.options_page import meanings, options_page
from toolroll.docs.records_page import records_page
from toolroll.docs.roff import Page, escape, inline
from toolroll.docs.tree import generated, installed_tools, stale, write
from toolroll.errors import ToolrollError
from toolroll.records import rag, rollouts
from toolroll.tools.step_parse import main as step_parse

LIB = Path(__file__).resolve().parents[2] / "lib"
EXAMPLES = "  Sort it:\n    sample-tool --level 2 a.jsonl | jq -c '.x'\n"
NOTES = """
What it cannot do:

  .dots \\and backslashes
  'quotes'

It is only a sample.
"""


@command(
    "sample-tool",
    system="Samples",
    reads=records.view(rollouts.Question, "id", "question"),
    adds={"answer": str | None},
    key=("id",),
    expands=True,
    epilog="See toolroll-records(5), step-parse(1).",
)
@click.option("--level", type=click.IntRange(1, 9), default=3, show_default=True, help="How far to go.")
@click.option("--unshown", default="x-y", help="A default that the help does not show.")
@click.option("--secret", hidden=True, help="Not for users.")
@uses_seed
def sample(rows: Iterator[Any], **_options: Any) -> Iterator[Any]:
    """Sample rows | and nothing else.

    .gz may begin a line; so may 'a quote'. See jq(1) for `--arg x`.
    """
    return rows


@command("sample-server", system="Samples")
@click.argument("folder", help="What to serve.")
def server(*, folder: str) -> None:
    """Serve a folder."""


TOOLS = [step_parse, sample, server]


def lines_of(page: str) -> list[str]:
    return page.replace(r"\%", "").splitlines()


def entry_of(page: str, tag: str) -> str:
    """What stands below the term that begins with `tag`."""
    lines = lines_of(page)
    start = next(i for i, line in enumerate(lines) if line.startswith(tag) and lines[i - 1] == ".TP")
    end = next(i for i in range(start + 1, len(lines)) if lines[i].startswith((".TP", ".SH", ".SS", ".PP")))
    return " ".join(lines[start + 1 : end])


def section_of(page: str, title: str) -> str:
    return page.split(f".SH {title}\n", 1)[1].split("\n.SH ", 1)[0]


# --- roff


@pytest.mark.parametrize(
    ("text", "roff"),
    [
        ("a-b --c", r"a\-b \-\-c"),
        (r"\d+", r"\ed+"),
        ('it\'s "x" `y` ~^', r"it\(aqs \(dqx\(dq \(gay\(ga \(ti\(ha"),
        ("é ≥", r"\[u00E9] \[u2265]"),
    ],
)
def test_specials_are_escaped(text: str, roff: str) -> None:
    assert escape(text) == roff


def test_code_and_references_are_bold() -> None:
    assert inline("see `-o` and jq(1), not f(x)") == r"see \fB\%\-o\fR and \fB\%jq\fR(1), not f(x)"


def test_no_line_of_text_is_a_request() -> None:
    page = Page("x", 1, "y")
    page.text(". a")
    page.literal([".b", "'c"])
    page.prose("* .d\n  .e\n\n" + "word " * 30 + ".gz " * 30)
    body = page.render().splitlines()
    assert {line.split()[0] for line in body if line.startswith((".", "'"))} <= {
        *('.\\"', ".TH", ".SH", ".PP", ".TP", ".in", ".EX", ".EE", ".ad")
    }
    assert r"\&.b" in body
    assert r"\(aqc" in body


def test_indented_lines_are_literal() -> None:
    page = Page("x", 1, "y")
    page.heading("NOTES")
    page.prose("One:\n    a  b\n      c\n\nTwo.")
    assert page.render().endswith(".SH NOTES\nOne:\n.PP\n.in +4n\n.EX\na  b\n  c\n.EE\n.in\n.PP\nTwo.\n")


# --- pages


def test_sections_come_in_order() -> None:
    titles = [line[4:] for line in command_page(sample).splitlines() if line.startswith(".SH ")]
    assert titles == [
        *("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS", "EXAMPLES", "INPUT AND OUTPUT FIELDS"),
        *("NOTES", "EXIT STATUS", "ENVIRONMENT", "SEE ALSO"),
    ]


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_every_option_stands_there_with_its_default(tool: Tool) -> None:
    page = command_page(tool)
    for param in tool.get_params(click.Context(tool, help_option_names=["-h", "--help"])):
        if getattr(param, "hidden", False):
            continue
        if isinstance(param, click.Argument):
            assert rf"\fI{escape(str(param.metavar or param.name).upper())}\fR" in page
            continue
        assert isinstance(param, click.Option)
        text = entry_of(page, ", ".join(rf"\fB{escape(name)}\fR" for name in param.opts))
        assert inline(param.help or "").replace(r"\%", "").split()[-1] in text
        if not (param.is_flag or param.count) and isinstance(param.default, str | int | float):
            assert f"default: {escape(str(param.default))}" in text
    assert "secret" not in page


def test_limits_and_unshown_defaults_are_told() -> None:
    page = command_page(sample)
    assert entry_of(page, r"\fB\-\-level\fR").endswith("[default: 3; 1<=x<=9]")
    assert entry_of(page, r"\fB\-\-unshown\fR").endswith(r"[default: x\-y]")


def test_fields_read_and_added_stand_there() -> None:
    fields = section_of(command_page(sample), "INPUT AND OUTPUT FIELDS")
    assert entry_of(fields + "\n.SH", r"\fBquestion\fR (string, length at least 1; required)").startswith(
        "The question"
    )
    assert r"\fB\%answer\fR (string or null)" in fields
    assert "One row may become several" in fields
    assert r"For \fB\%\-\-resume\fR, \fB\%id\fR names a row of the output" in " ".join(fields.split())


def test_variables_and_references_stand_there() -> None:
    page = command_page(sample)
    named = section_of(page, "ENVIRONMENT").replace(r"\%", "")
    for name in ("LEVEL", "UNSHOWN", "SEED"):
        assert rf"\fBTOOLROLL_{name}\fR" in named
    assert "HELP" not in named
    assert section_of(page, "SEE ALSO").replace(r"\%", "") == (
        "\\fBstep\\-parse\\fR(1), \\fBtoolroll\\-records\\fR(5), \\fBtoolroll\\fR(7)\n"
    )


def test_a_command_without_rows_claims_nothing_about_rows() -> None:
    page = command_page(server)
    assert "INPUT AND OUTPUT FIELDS" not in page
    assert "resume" not in page
    assert "bad rows" not in page


def test_summary_is_one_line() -> None:
    assert summary(sample) == "sample rows | and nothing else"


def test_every_field_of_every_record_stands_there() -> None:
    page = records_page()
    for record in records.all_records():
        part = page.split(f".SS {record.__name__}\n", 1)[1].split("\n.SS ", 1)[0]
        for field in fields_of(record, own=True):
            assert field.description, f"{record.__name__}.{field.name} has no description"
            shown = rf"\fB{escape(field.name)}\fR ({escape(field.type)}; {escape(field.need)})"
            assert shown in part.replace(r"\%", "")
        base: Any = record.__bases__[0]
        inherited = set(record.__struct_fields__) - {field.name for field in fields_of(record, own=True)}
        assert inherited == (set(base.__struct_fields__) if base is not records.Record else set())
        assert (rf"Has all fields of \fI{base.__name__}\fR" in part) == bool(inherited)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (list[str | None], "list of (string or null)"),
        (list[rag.Step] | None, "list of Step, or null"),
        (list[records.Count], "list of integers, at least 0"),
        (dict[str, Any] | None, "object or null"),
        (list[Any], "list"),
        (rag.Verdict, 'one of "ok", "over", "under", "unknown"'),
        (rollouts.Turn, "Turn"),
        (Any, "any value"),
    ],
)
def test_types_in_words(kind: Any, words: str) -> None:
    assert type_text(kind) == words


def test_the_terminal_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = generated(tmp_path, TOOLS)
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("TOOLROLL_LEVEL", "9")
    monkeypatch.setenv("PATH", "")
    assert generated(tmp_path, TOOLS) == before


@pytest.mark.skipif(shutil.which("mandoc") is None, reason="mandoc is not installed")
def test_mandoc_has_nothing_to_say(tmp_path: Path) -> None:
    files = generated(tmp_path, TOOLS)
    write(tmp_path, files)
    pages = [name for name in files if name.startswith("man/")]
    lint = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", *pages], cwd=tmp_path, capture_output=True, text=True
    )
    assert lint.stdout + lint.stderr == ""
    shown = subprocess.run(
        ["mandoc", "-T", "ascii", "-O", "width=100", "man/sample-tool.1"], cwd=tmp_path, capture_output=True, text=True
    )
    plain = "".join(shown.stdout.split("\b"))
    assert ".dots \\and backslashes" in plain
    assert "sample-tool --level 2 a.jsonl | jq -c '.x'" in plain


# --- completions


def test_completions_have_the_names_shells_look_for() -> None:
    assert list(completion_files(step_parse)) == [
        *("completions/bash/step-parse.bash", "completions/zsh/_step-parse", "completions/fish/step-parse.fish")
    ]
    for text in completion_files(step_parse).values():
        assert "_STEP_PARSE_COMPLETE=" in text


@pytest.mark.parametrize(
    ("shell", "flag"), [("bash", "-n"), ("zsh", "-n"), ("fish", "--no-execute")], ids=["bash", "zsh", "fish"]
)
def test_scripts_are_valid(tmp_path: Path, shell: str, flag: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    text = next(text for path, text in completion_files(step_parse).items() if f"/{shell}/" in path)
    script = tmp_path / "script"
    script.write_text(text)
    subprocess.run([shell, flag, script], check=True)


# --- blocks


def test_commands_table_is_grouped_by_system() -> None:
    assert commands_table(TOOLS).splitlines() == [
        "| system | command | what it does |",
        "|---|---|---|",
        f"| HiPRAG | `step-parse` | {summary(step_parse)} |",
        r"| Samples | `sample-tool` | sample rows \| and nothing else |",
        "|  | `sample-server` | serve a folder |",
    ]


def test_the_roll_has_a_line_for_each_command() -> None:
    lines = [line.split("\t") for line in roll_table(TOOLS).splitlines()]
    assert lines[0] == ["step-parse", "HiPRAG", "toolroll.tools.step_parse:main", summary(step_parse)]
    assert [line[2] for line in lines[1:]] == [f"{__name__}:sample", f"{__name__}:server"]


def test_options_of_several_commands_stand_on_a_page_with_the_commands() -> None:
    @command("other-tool", reads=records.view(rollouts.Question, "id"))
    @click.option("--level", type=click.IntRange(1, 9), default=3, help="How far to go.")
    @uses_seed
    def other(rows: Iterator[Any], **_options: Any) -> Iterator[Any]:
        """Do other things."""
        return rows

    page = options_page([sample, other, server])
    assert entry_of(page, r"\fB\-\-level\fR") == "How far to go. Of \\fBsample\\-tool\\fR, \\fBother\\-tool\\fR."
    assert entry_of(page, r"\fB\-\-seed\fR").startswith(meanings()["--seed"][:20])
    for name in ("unshown", "log", "secret"):
        assert rf"\fB\-\-{name}" not in page.replace(r"\%", "")


def test_pages_are_installed_by_section() -> None:
    data = tomllib.loads(shared_data(["man/toolroll.7", "man/a-b.1"]))
    shared = data["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert shared["man/a-b.1"] == "share/man/man1/a-b.1"
    assert shared["man/toolroll.7"] == "share/man/man7/toolroll.7"
    assert shared["completions/fish"] == "share/fish/vendor_completions.d"


def test_blocks_are_filled_and_the_rest_is_kept(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# toolroll\n\n<!-- generated: commands -->\nold\n<!-- end -->\n\nThe end\n")
    project = tmp_path / "pyproject.toml"
    project.write_text("[project]\n# generated: shared-data\n# end\n\n[tool.x]\ny = 1  # z\n")
    files = generated(tmp_path, TOOLS)
    assert files["README.md"] == (
        f"# toolroll\n\n<!-- generated: commands -->\n{commands_table(TOOLS)}<!-- end -->\n\nThe end\n"
    )
    parsed = tomllib.loads(files["pyproject.toml"])
    assert "man/sample-tool.1" in parsed["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert parsed["tool"]["x"] == {"y": 1}
    write(tmp_path, files)
    assert generated(tmp_path, TOOLS) == files


def test_a_block_nobody_makes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("<!-- generated: no-such-block -->\n<!-- end -->\n")
    with pytest.raises(ToolrollError, match=r"README.md: no generated block is named no-such-block"):
        generated(tmp_path, TOOLS)


def test_a_file_without_markers_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_bytes("é\r\n".encode())
    assert generated(tmp_path, TOOLS)["README.md"] == "é\r\n"


# --- the tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A source tree that is up to date."""
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "x"\n[project.scripts]\nstep-parse = "toolroll.tools.step_parse:main"\n'
        "# generated: shared-data\n# end\n"
    )
    result = run(tmp_path)
    assert result.exit_code == 0
    assert "man/step-parse.1" in result.output.splitlines()
    return tmp_path


def run(root: Path, *args: str) -> Any:
    return CliRunner().invoke(entry.main, [*args, "--root", str(root)])


def test_what_was_written_passes_the_check(tree: Path) -> None:
    result = run(tree, "--check")
    assert (result.exit_code, result.output) == (0, "")
    result = run(tree)
    assert (result.exit_code, result.output) == (0, "")


@pytest.mark.parametrize(
    "name", ["man/step-parse.1", "man/toolroll.7", "completions/zsh/_step-parse", "pyproject.toml"]
)
def test_an_edited_file_fails_the_check(tree: Path, name: str) -> None:
    path = tree / name
    before = path.read_bytes()
    text = before.decode()
    path.write_text(text.replace('"share/man/man7', '"share/man/man8') if name == "pyproject.toml" else text + "x\n")
    result = run(tree, "--check")
    assert (result.exit_code, result.output) == (1, f"{name}: out of date\n")
    assert run(tree).output == f"{name}\n"
    assert path.read_bytes() == before


def test_missing_and_extra_files_fail_the_check(tree: Path) -> None:
    (tree / "man/toolroll-records.5").unlink()
    (tree / "completions/fish/gone-tool.fish").write_text("x")
    (tree / "man/gone-tool.1").write_text("x")
    result = run(tree, "--check")
    assert result.exit_code == 1
    assert result.output.splitlines() == [
        "man/toolroll-records.5: missing",
        "man/gone-tool.1: belongs to no command",
        "completions/fish/gone-tool.fish: belongs to no command",
    ]
    run(tree)
    assert not (tree / "man/gone-tool.1").exists()
    assert run(tree, "--check").exit_code == 0


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ('a-tool = "toolroll.tools.no_such_tool:main"', "No module named"),
        ('a-tool = "toolroll.tools.step_parse:nothing"', "no attribute"),
        ('a-tool = "toolroll.tools.step_parse:main"', "is not the command of that name"),
    ],
)
def test_a_wrong_script_is_told(tree: Path, script: str, why: str) -> None:
    (tree / "pyproject.toml").write_text(f"[project.scripts]\n{script}\n")
    result = run(tree, "--check")
    assert result.exit_code == 1
    assert result.stderr.startswith("toolroll.docs: pyproject.toml: a-tool: ")
    assert why in result.stderr


def test_no_project_is_told(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert result.exit_code == 1
    assert result.stderr.startswith("toolroll.docs: pyproject.toml: cannot be read: ")


def test_it_runs_as_a_module(tree: Path) -> None:
    environ = {**os.environ, "PYTHONPATH": str(LIB)}
    (tree / "man/toolroll.7").write_text("")
    check = [sys.executable, "-m", "toolroll.docs", "--check", "--root", str(tree)]
    done = subprocess.run(check, env=environ, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (1, "man/toolroll.7: out of date\n", "")


def test_pages_carry_the_version(tree: Path) -> None:
    files = generated(tree, installed_tools(tree))
    assert not list(stale(tree, files))
    for name, text in files.items():
        if name.startswith("man/"):
            assert f'"toolroll {__version__}"' in text.splitlines()[1]


def test_a_field_without_words_has_none() -> None:
    class Bare(msgspec.Struct):
        x: int

    assert [field.description for field in fields_of(Bare)] == [""]
