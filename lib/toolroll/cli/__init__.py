"""How a command is declared: `command()` and the option groups.

A command is one click declaration and one generator from rows to rows. Everything that commands
have in common (files, bad rows, shards, resuming, signals, messages, exit codes, settings from the
environment or a file) is in this package and in `toolroll.run.loop`; toolroll(7) tells users about it.

Nothing heavy is imported here, so that `--help` answers at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from toolroll.cli.options import GreedyOption, GroupedOption
from toolroll.cli.tool import Tool
from toolroll.run.contract import Contract, each

F = TypeVar("F", bound=Callable[..., Any])
__all__ = [
    "GreedyOption",
    "GroupedOption",
    "Tool",
    "command",
    "declares",
    "each",
    "offers_table",
    "option_group",
    "uses_device",
    "uses_images",
    "uses_model",
    "uses_policy",
    "uses_prompt",
    "uses_sampling",
    "uses_seed",
]


def command(
    name: str,
    *,
    system: str = "",
    reads: type | None = None,
    adds: dict[str, Any] | None = None,
    key: tuple[str, ...] = ("id", "sample"),
    reducer: bool = False,
    slow: bool = False,
    expands: bool = False,
    consumes: bool = False,
    source: bool = False,
    sees_errors: bool = False,
    distributed: bool = False,
    opens: dict[str, str] | None = None,
    document: bool = False,
    makes_file: bool = False,
    resumable: bool = False,
    epilog: str = "See toolroll(7).",
    kind: type[Tool] = Tool,
) -> Callable[[Callable[..., Any]], Tool]:
    """Declare a command. The function gets `rows` (when it reads any) and its own options by name.

    It may also name `log` (messages), `stop` (was the run asked to stop?) and `manifest` among its
    parameters. `system` is the paper's system it belongs to. `adds` maps the fields it adds to rows
    to their types. `kind` is the class of the command. The rest: see `Contract`.
    """

    def decorate(function: Callable[..., Any]) -> Tool:
        contract = Contract(
            reads, adds or {}, key, reducer, slow, expands, consumes, source, sees_errors, distributed, opens or {},
            document, makes_file, resumable,
        )  # fmt: skip
        return kind(name, function, contract, system=system, epilog=epilog)

    return decorate


def option_group(keyword: str, kind: type, options: Iterable[click.Option]) -> Callable[[F], F]:
    """Add `options` to a command; their values reach it as one frozen `kind`, named `keyword`."""
    options = list(options)

    def decorate(function: F) -> F:
        groups = dict(getattr(function, "__toolroll_groups__", {}))
        groups[keyword] = (kind, tuple(str(option.name) for option in options))
        function.__toolroll_groups__ = groups  # type: ignore[attr-defined]
        params = getattr(function, "__click_params__", [])
        function.__click_params__ = [*reversed(options), *params]  # type: ignore[attr-defined]
        return function

    return decorate


def declares(*options: click.Option) -> Callable[[F], F]:
    """Add options that are made elsewhere; their values reach the command one by one."""

    def decorate(function: F) -> F:
        params = getattr(function, "__click_params__", [])
        function.__click_params__ = [*params, *reversed(options)]  # type: ignore[attr-defined]
        return function

    return decorate


def uses_images(function: F) -> F:
    """Add `--images`: where the images of rows are."""
    from toolroll.models.single_options import images_option

    return declares(images_option(GroupedOption))(function)


def uses_device(function: F) -> F:
    """Add `--device`: where a model in this process runs."""
    from toolroll.models.single_options import device_option

    return declares(device_option(GroupedOption))(function)


def uses_seed(function: F) -> F:
    """Add `--seed`. Each record's own seed comes from it by `toolroll.run.seeds.record_seed`."""
    text = (
        "Seed of all randomness. A record's own seed is derived from it, the record's id and the sample, "
        "never from order."
    )
    return click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help=text)(function)


def offers_table(function: F) -> F:
    """Add `--table`: results as an aligned table instead of JSON lines."""
    return click.option("--table", is_flag=True, help="Print an aligned table instead of JSON lines.")(function)


def uses_model(function: F) -> F:
    """Add the options that choose and run a text model, as one `model: ModelOptions`."""
    from toolroll.models.options import ModelOptions, model_options

    return option_group("model", ModelOptions, model_options(GroupedOption))(function)


def uses_prompt(function: F) -> F:
    """Add the options that say what a row asks, as one `asking: PromptOptions`."""
    from toolroll.models.options import PromptOptions, prompt_options

    return option_group("asking", PromptOptions, prompt_options(GroupedOption))(function)


def uses_policy(function: F) -> F:
    """Add `--policy` and `--follow`, the model of a training loop, as one `policy: PolicyOptions`."""
    from toolroll.models.options import PolicyOptions, policy_options

    return option_group("policy", PolicyOptions, policy_options(GroupedOption))(function)


def uses_sampling(function: F) -> F:
    """Add the options of how tokens are drawn, as one `sampling: SamplingOptions`."""
    from toolroll.models.options import SamplingOptions, sampling_options

    return option_group("sampling", SamplingOptions, sampling_options(GroupedOption))(function)
