"""The options of commands that ask for hypotheses, or write down how they were asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from toolroll.abduction.prompts import Prompts, Style

SECTION = "Words"


@dataclass(frozen=True, slots=True)
class WordingOptions:
    """The values of these options."""

    followup: Style = "full"
    prompt_file: Path | None = None
    system: str | None = None

    def prompts(self) -> Prompts:
        """The words, the prompt file read."""
        from toolroll.abduction.prompts import Prompts
        from toolroll.models.answers import read_template

        template = None if self.prompt_file is None else read_template(self.prompt_file)
        return Prompts(self.followup, template, self.system)


def wording_options(option: Callable[..., Any]) -> list[Any]:
    """The options of `WordingOptions`, made by `option`, which is click.Option with a `section`."""
    return [
        option(
            ["--followup"],
            type=click.Choice(["full", "short", "super-short"]),
            default="full",
            show_default=True,
            section=SECTION,
            help="How a further hypothesis is asked for: with the observations again, without, or by one word.",
        ),
        option(
            ["--prompt-file"],
            type=click.Path(path_type=Path),
            metavar="FILE",
            section=SECTION,
            help="First message instead of toolroll's; {observations} in it, and {name} of any field, are filled in.",
        ),
        option(["--system"], metavar="TEXT", section=SECTION, help="System message of all prompts."),
    ]
