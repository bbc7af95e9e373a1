"""The options that every command has: files, records, messages and settings.

One definition each, so that an option means the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import click

from toolroll.cli.at_once import load_config, print_schema, print_version, remember_json
from toolroll.cli.options import GroupedOption

if TYPE_CHECKING:
    from toolroll.run.contract import Contract

FILES, RECORDS, COMMON = "Input and output", "Records", "Common options"  #: sections of the help


def files_argument(opens: Iterable[str] = ()) -> click.Argument:
    """The input files; `opens` are the suffixes of those that are not JSON lines but become such."""
    return click.Argument(
        ["files"],
        nargs=-1,
        type=click.Path(),
        metavar="[FILE]...",
        help=f"JSON lines to read, in order; none or - is stdin. {', '.join(['.gz', *opens])} and .zst are read too.",
    )


def standard_options(contract: Contract) -> list[click.Option]:
    """The options of a command with this contract, beside its own."""
    return [*_of_files(contract), *_of_records(contract), *_of_all(contract)]


def _of_files(contract: Contract) -> Iterator[click.Option]:
    if not contract.writes:
        yield GroupedOption(["--no-meta"], is_flag=True, section=FILES, hidden=True, help="Write no manifest.")
        return
    yield from (
        GroupedOption(
            ["--report", "output"] if contract.makes_file else ["-o", "--output"],
            metavar="FILE",
            type=click.Path(),
            section=FILES,
            help=("Write the rows here; " if contract.makes_file else "Write here instead of stdout; ")
            + "the file appears when it is complete. - is stdout, {shard} the share's number, .gz and .zst "
            "compress.",
        ),
        GroupedOption(
            ["--no-meta"],
            is_flag=True,
            section=FILES,
            help="Do not write FILE.meta.json (command, versions, inputs, settings, counts).",
        ),
        GroupedOption(["--line-buffered"], is_flag=True, section=FILES, help="Hand on every row at once."),
    )
    if contract.resumes:
        yield GroupedOption(
            ["--resume"],
            is_flag=True,
            section=FILES,
            help="Go on with an unfinished FILE.part: rows whose key stands there are skipped.",
        )


def _of_records(contract: Contract) -> Iterator[click.Option]:
    if contract.reads is None:
        return
    yield from (
        GroupedOption(
            ["--on-error"],
            type=click.Choice(["stop", "skip", "keep"]),
            default="stop",
            show_default=True,
            section=RECORDS,
            help="A row that cannot be processed: stop; skip it; or keep it with an `error` field, which later "
            "commands pass on.",
        ),
        GroupedOption(
            ["-e", "--errors"],
            metavar="FILE",
            type=click.Path(),
            section=RECORDS,
            help="Collect the rows that failed here, with the reason.",
        ),
        GroupedOption(
            ["--max-errors"],
            type=click.IntRange(min=0),
            metavar="N",
            section=RECORDS,
            help="Give up after more than N bad rows.",
        ),
        GroupedOption(
            ["--strict"],
            is_flag=True,
            section=RECORDS,
            help="Refuse rows with a top-level field that no record of toolroll has.",
        ),
    )
    if contract.passes_rows:
        yield from (
            GroupedOption(
                ["--shard"],
                metavar="I/N",
                section=RECORDS,
                help="Take only the records whose index modulo N is I (from 0). slurm reads a job array's environment.",
            ),
            GroupedOption(
                ["--group-by"],
                metavar="FIELD,...",
                section=RECORDS,
                help="With --shard: keep rows with the same value of FIELD in one shard.",
            ),
        )


def _of_all(contract: Contract) -> Iterator[click.Option]:
    if contract.writes:
        yield GroupedOption(
            ["--schema"],
            is_flag=True,
            allow_from_autoenv=False,
            is_eager=True,
            expose_value=False,
            callback=print_schema,
            section=COMMON,
            help="Print the JSON Schema of the rows that are read and of the fields that are added.",
        )
    yield from (
        GroupedOption(
            ["--config"],
            metavar="FILE",
            type=click.Path(),
            is_eager=True,
            expose_value=False,
            callback=load_config,
            section=COMMON,
            help="Take settings from a TOML file (.toml): at its top level, or in a table named after the command.",
        ),
        GroupedOption(
            ["--show-config"],
            is_flag=True,
            allow_from_autoenv=False,
            section=COMMON,
            help="Print the settings in force and where each comes from, and exit.",
        ),
        GroupedOption(["-q", "--quiet"], is_flag=True, section=COMMON, help="Say only errors."),
        GroupedOption(["-v", "--verbose"], count=True, section=COMMON, help="Say more; twice: with tracebacks."),
        GroupedOption(
            ["--log"],
            type=click.Choice(["text", "json"]),
            default="text",
            show_default=True,
            section=COMMON,
            help="Messages on stderr as text or as one JSON object a line.",
        ),
        GroupedOption(
            ["--json"],
            "version_json",
            is_flag=True,
            allow_from_autoenv=False,
            is_eager=True,
            expose_value=False,
            hidden=True,
            callback=remember_json,
            help="With --version.",
        ),
        GroupedOption(
            ["--version"],
            is_flag=True,
            allow_from_autoenv=False,
            expose_value=False,
            is_eager=True,
            callback=print_version,
            section=COMMON,
            help="Print the version and exit; with --json also those of packages, CUDA and devices.",
        ),
    )
