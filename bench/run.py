"""All speed tables in one run, written to docs/speed.md: what `make bench` does.

    python bench/run.py [--quick] [--only NAME,...]

A table is made by a program of this folder, with its peers beside us; what counts is the ratio. targets.py says what
each has to reach. Ends with exit code 1 when a target is missed grossly. Figures are kept in bench/out: `--only`
measures some tables again, and takes the others from there. `--quick` shows that all can be made, at sizes that say
nothing about speed: nothing is judged or written.
"""

from __future__ import annotations

import argparse
import ast
import multiprocessing
import os
import platform
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import common
from common import Line
from targets import NOT_RUN, TARGETS, Verdict, judge

PAGE = common.ROOT / "docs" / "speed.md"
WRITTEN = """\
Written by `make bench` (`python bench/run.py`). Peers are measured in the same run as we are: the ratio, ours over
theirs, is what counts, and not the numbers. Of times, memory and sizes less is better, of rates more."""
JUDGED = """\
The worst line of a table counts. A gross miss makes `make bench` fail: twice as bad as the target, or what
bench/targets.py says where twice means nothing."""
TINY = "tests/data/tiny-llama"
CORES = len(os.sched_getaffinity(0))
#: What a quick run imports once for all tables: it takes longer than most of them.
PRELOADED = [
    "torch",
    "numba",
    "accelerate",
    "transformers.generation",
    "transformers.models.auto.processing_auto",
    *(f"transformers.models.{name}.modeling_{name}" for name in ("llama", "llava", "clip", "mask2former", "swin")),
]


@dataclass(frozen=True)
class Table:
    """A program of this folder, the title of its table, and its arguments in a quick run."""

    name: str
    title: str
    quick: str

    @property
    def program(self) -> Path:
        """The program's file."""
        return Path(__file__).with_name(f"{self.name}.py")


TABLES = [
    Table("startup", "Start-up", "--runs 1 --commands 2"),
    Table("rows", "Row-wise commands", "--size-mb 1 --runs 1"),
    Table("retrieval", "Retrieval", "--questions 40"),
    Table("rollout", "Rollouts on the embedded model", "--questions 1 --turn-tokens 4 --searches 1 --rows 5"),
    Table("bandit", "The bandit", "--rows 1000 --requests 50 --arms 50 --runs 1"),
    Table("training", "Updates of the embedded model", f"--rows 1 --rounds 1 --model {TINY}"),
    Table("sandbox", "Hypotheses in a sandbox", "--rounds 1 --inputs 200 --sets 2"),
    Table("linear", "LayerCast's linear layer", "--rounds 1"),
    Table("decode", "LayerCast's decoding", f"--tokens 2 --rounds 1 --batches 1 --model {TINY}"),
    Table("scenes", "Scenes of six objects", "--scenes 1 --rounds 1"),
    Table("sprite", "Captions and training of sprite", "--scenes 2 --rounds 1 --size tiny --steps 2"),
    Table("spygame", "Games of who is the spy", "--games 50 --runs 1 --model-games 1"),
    Table("judgefree", "Pairs without a judge", "--prompts 2 --images 2 --tokens 4 --rounds 1"),
    Table("vprune", "Pruned visual tokens", "--rounds 1 --tokens 1 --shapes tiny"),
    Table("kvquant", "Keys and values in few bits", "--heads 2 --tokens 512 --rounds 1"),
    Table("pmp", "Listening to prompts", "--rounds 1 --updates 1"),
    Table("splat", "Gaussians on a CPU", "--rounds 1 --count 500 --steps 2"),
]


def main() -> int:
    """Run the tables; the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small sizes; nothing is judged or written")
    names = [table.name for table in TABLES]
    parser.add_argument("--only", type=lambda text: text.split(","), default=names, help="just these tables, by commas")
    asked = parser.parse_args()
    if unknown := set(asked.only) - set(names):
        parser.error(f"no such table: {', '.join(sorted(unknown))}")
    tables = [table for table in TABLES if table.name in asked.only]
    if asked.quick:
        quick(tables)
        return 0
    load = os.getloadavg()[0]
    for table in tables:
        started = time.monotonic()
        shown(table, measured(table))
        print(f"{table.name}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    found = {table.name: kept(table) for table in TABLES}
    verdicts = [judge(target, found[target.table], CORES) for target in TARGETS]
    PAGE.write_text(page(found, verdicts, machine(load)))
    print(summary(verdicts))
    return int(any(verdict.gross for verdict in verdicts))


def measured(table: Table) -> list[Line]:
    """Run a table's program, and keep its figures."""
    common.OUT.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, table.program, "--json", _figures(table)]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return kept(table)


def _figures(table: Table) -> Path:
    return common.OUT / f"{table.name}.json"


def kept(table: Table) -> list[Line]:
    """The figures of a table that were measured last."""
    if not _figures(table).exists():
        raise SystemExit(f"run.py: {table.name}: never measured here: leave out --only")
    return common.read(_figures(table))


def shown(table: Table, lines: Sequence[Line]) -> None:
    """Print a table."""
    print(f"## {table.title}\n\n{common.markdown(lines)}\n", flush=True)


# --- quick


def quick(tables: Sequence[Table]) -> None:
    """Make tables at small sizes, several at a time, each in a fork of a process that has the packages imported."""
    os.environ.update(OMP_NUM_THREADS="1", SLURM_CPUS_PER_TASK="1")  # they would wait for each other's threads
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as name:

        def made(table: Table) -> list[Line]:
            path = Path(name) / f"{table.name}.json"
            process = context.Process(target=small, args=(table, path))
            process.start()
            process.join()
            if process.exitcode != 0:
                raise SystemExit(f"run.py: {table.name} ended with {process.exitcode}")
            return common.read(path)

        # closed, so that no further table is made behind one that failed
        with ThreadPoolExecutor(CORES) as pool, closing(pool.map(made, tables)) as found:
            for table, lines in zip(tables, found, strict=True):
                shown(table, lines)
                for target in TARGETS:
                    if target.table == table.name:
                        judge(target, lines, CORES)  # raises where no line is about it


def small(table: Table, path: Path) -> None:
    """Run a table's program in this process."""
    sys.argv = [str(table.program), *table.quick.split(), "--json", str(path)]
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    os.chdir(common.ROOT)
    runpy.run_path(str(table.program), run_name="__main__")


# --- the page


def machine(load: float) -> str:
    """What the figures were measured on."""
    parts = [
        f"{processor()}, {CORES} cores",
        f"{platform.system()} {platform.machine()}",
        f"Python {platform.python_version()}",
        *(f"{name} {version(name)}" for name in ("torch", "transformers", "numba", "orjson")),
    ]
    busy = f" It had other work when the run began: a load of {load:.1f}." if load > 0.5 else ""
    return f"The machine: {', '.join(parts)}.{busy}"


def processor() -> str:
    """The name of the processor."""
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def page(found: Mapping[str, Sequence[Line]], verdicts: Sequence[Verdict], machine: str) -> str:
    """The Markdown page of all tables."""
    parts = [
        "# Speed",
        WRITTEN,
        machine,
        "## Targets",
        JUDGED,
        summary(verdicts),
        "## Peers that were not run",
        "\n".join(f"- {name}: {why}." for name, why in NOT_RUN.items()),
    ]
    for table in TABLES:
        told = ast.get_docstring(ast.parse(table.program.read_text())) or ""
        parts += [f"## {table.title}", told, common.markdown(found[table.name])]
    return "\n\n".join(parts) + "\n"


def summary(verdicts: Sequence[Verdict]) -> str:
    """The table of all targets."""
    names = ("table", "measure", "target", "measured", "result")
    rows = [
        (verdict.target.table, verdict.target.measure, verdict.target.bound, verdict.measured, verdict.result)
        for verdict in verdicts
    ]
    return common.table(names, "lllll", rows)


if __name__ == "__main__":
    sys.exit(main())
