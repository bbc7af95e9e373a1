"""The kinds of options there are, and what a parameter is called in help, settings and the environment."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import click


class GroupedOption(click.Option):
    """An option of a group that has its own section in the help."""

    def __init__(self, *args: Any, section: str = "Options", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class GreedyOption(GroupedOption):
    """An option that also takes the NAME=VALUE words that follow its value: `--grid batch=1,8 tp=1,2`."""

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Let the parser hand on all the words as one value."""
        super().add_to_parser(parser, ctx)
        for name in self.opts:
            option = parser._long_opt[name]
            option.process = _greedy(option.process)


def _greedy(process: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    def take(value: Any, state: Any) -> None:
        words = [value]
        while state.rargs and re.fullmatch(r"[a-z]+=[\w,]+", state.rargs[0]):
            words.append(state.rargs.pop(0))
        process(" ".join(words), state)

    return take


def section_of(param: click.Parameter) -> str:
    """The section of the help and the man page that a parameter belongs to."""
    if isinstance(param, click.Argument):
        return "Arguments"
    return getattr(param, "section", "Common options" if "--help" in param.opts else "Options")


def setting_of(param: click.Parameter) -> str:
    """The name of an option in a settings file: that of its long form."""
    long = next((name for name in param.opts if name.startswith("--")), f"--{param.name}")
    return long[2:].replace("-", "_")


def metavar_of(param: click.Parameter) -> str | None:
    """What stands for a number that has no name of its own, N for a whole one, X for any; else None."""
    letter = {click.types.IntParamType: "N", click.types.FloatParamType: "X"}
    found = next((name for kind, name in letter.items() if isinstance(param.type, kind)), None)
    is_value = not (getattr(param, "is_flag", False) or getattr(param, "count", False))
    return " ".join([found] * param.nargs) if found and is_value else None
