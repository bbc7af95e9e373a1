"""Options that several commands have, one by one: of models, and of what they answer.

Each is made by `option`, which is click.Option, or one with a `section`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click


def device_option(option: Callable[..., click.Option], more: str = "") -> click.Option:
    """--device; `more` ends what it says."""
    text = f"auto (the freest GPU, else the CPU), cpu, cuda or cuda:N{more}."
    return option(["--device"], default="auto", show_default=True, help=text)


def dtype_option(option: Callable[..., click.Option]) -> click.Option:
    """--dtype."""
    return option(
        ["--dtype"],
        type=click.Choice(["auto", "float32", "bfloat16", "float16"]),
        default="auto",
        show_default=True,
        help="Type of weights and computation; auto is bfloat16 on a GPU, float32 on a CPU.",
    )


def images_option(option: Callable[..., click.Option]) -> click.Option:
    """--images."""
    return option(
        ["--images"],
        type=click.Path(path_type=Path, file_okay=False),
        metavar="DIR",
        help="Where images are; else the folder of the rows.",
    )


def trust_option(option: Callable[..., click.Option]) -> click.Option:
    """--trust-remote-code."""
    return option(["--trust-remote-code"], is_flag=True, help="Let a model's own repository run its Python code here.")


def stop_option(option: Callable[..., click.Option]) -> click.Option:
    """--stop, whose values are `stops`."""
    return option(
        ["--stop", "stops"], multiple=True, metavar="TEXT", help="End an answer behind this text; may be given again."
    )


def prefill_option(option: Callable[..., click.Option]) -> click.Option:
    """--prefill."""
    text = "What every answer begins with; the model goes on from it."
    return option(["--prefill"], default="", metavar="TEXT", help=text)


def length_option(option: Callable[..., click.Option], default: int, more: str = "") -> click.Option:
    """--response-tokens; `more` ends what it says."""
    return option(
        ["--response-tokens"],
        type=click.IntRange(min=1),
        default=default,
        show_default=True,
        metavar="N",
        help=f"Longest answer, in tokens{more}.",
    )
