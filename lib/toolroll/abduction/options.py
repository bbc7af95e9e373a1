"""The options of commands that run hypotheses: in which sandbox, and what a program may use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from toolroll.abduction.sandbox import KINDS

if TYPE_CHECKING:
    from toolroll.abduction.execution import Executor

SECTION = "Running programs"


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """The values of these options."""

    sandbox: str = "auto"
    workers: int = 1
    timeout_s: float = 0.5
    total_s: float = 60.0
    max_timeouts: int = 3
    memory: int = 512

    def open(self, notify: Callable[[str], None]) -> Executor:
        """An executor; `notify` hears which it is."""
        from toolroll.abduction.execution import Limits
        from toolroll.abduction.sandbox import open_sandbox

        limits = Limits(
            timeout_s=self.timeout_s,
            total_s=self.total_s,
            memory_mb=self.memory,
            max_timeouts=self.max_timeouts,
        )
        return open_sandbox(self.sandbox, limits, notify=notify)


def sandbox_options(option: Callable[..., Any], timeout: str = "--timeout") -> list[Any]:
    """The options of `SandboxOptions`, made by `option`, which is click.Option with a `section`.

    `timeout` is the name of that of a call, where a command has another --timeout.
    """
    seconds = click.FloatRange(min=0, min_open=True)

    def one(names: list[str], kind: Any, default: Any, text: str, **more: Any) -> Any:
        return option(names, type=kind, default=default, show_default=True, section=SECTION, help=text, **more)

    return [
        one(
            ["--sandbox"],
            click.Choice(KINDS),
            "auto",
            "What keeps programs from doing harm: a system call filter (seccomp), that in namespaces (bwrap), an "
            "interpreter of a part of Python that has no system calls (monty), or nothing (none), which is only used "
            "when asked for. auto takes bwrap where it works, else seccomp.",
        ),
        one(["--workers"], click.IntRange(min=1), 1, "Programs that run at once.", metavar="N"),
        one([timeout, "timeout_s"], seconds, 0.5, "Longest call of a function, in seconds.", metavar="SECONDS"),
        one(
            ["--total-timeout", "total_s"],
            seconds,
            60.0,
            "Longest run of a program on all inputs, in seconds on the clock.",
            metavar="SECONDS",
        ),
        one(
            ["--max-timeouts"],
            click.IntRange(min=1),
            3,
            "Give a program up after so many calls that took too long.",
            metavar="N",
        ),
        one(["--memory"], click.IntRange(min=16), 512, "Memory of a program, in megabytes.", metavar="MB"),
    ]


def space_option(option: Callable[..., Any]) -> Any:
    """--space."""
    return option(
        ["--space"],
        multiple=True,
        required=True,
        metavar="[DATASET=]FILE",
        help="The sample space: inputs, one JSON value a line; may be given again for other data sets.",
    )


def problems_option(option: Callable[..., Any]) -> Any:
    """--problems."""
    return option(
        ["--problems"],
        multiple=True,
        type=click.Path(),
        metavar="FILE",
        help="Problems with `id` and `observations` or `train`, JSON lines; may be given again.",
    )


def stop_rule_options(option: Callable[..., Any]) -> list[Any]:
    """When no further hypothesis is asked for."""
    return [
        option(
            ["--max-bad"],
            type=click.IntRange(min=1),
            default=3,
            show_default=True,
            help="Bad hypotheses that end the asking.",
        ),
        option(
            ["--min-new"],
            type=click.FloatRange(0, 1),
            default=0.2,
            show_default=True,
            help="Least share of the space at which a good hypothesis predicts something new.",
        ),
    ]
