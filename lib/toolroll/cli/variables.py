"""Which variable of the environment sets an option: one for all commands, or one of a command's own.

Where an option of the same name is another thing in other commands, a variable for all of them would set both.
"""

from __future__ import annotations

import click

from toolroll.cli.options import setting_of

#: Settings that are other things in other commands, and in which commands a variable of their own sets them: in all
#: that have such an option, or in those that mean by it what the others do not.
_APART: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("alpha", "beta", "cap", "floor", "tau"), ()),  # what a paper calls so
    **dict.fromkeys(("format", "grid", "ignore", "kind", "method", "mode", "preset", "rule", "split", "stage"), ()),
    "depth": ("nvs-render",),
    "group_size": ("kv-calibrate", "kv-quant"),
    "images": ("nvs-bench", "nvs-eval", "nvs-prep", "nvs-render", "nvs-train"),
    "keep": ("layercast-run",),
    "policy": ("ucb-sample",),
    "queries": ("pmp-train",),
    "samples": ("nvs-train",),
    "table": ("nvs-bench",),
    "threshold": ("vprune-calibrate",),
    "timeout": ("gear-pairs", "gear-score"),
}


def is_apart(command: str, option: click.Option) -> bool:
    """Whether the variable that sets an option has the command's name in it."""
    commands = _APART.get(setting_of(option))
    return commands is not None and (not commands or command in commands)


def variable_of(command: str, option: click.Option) -> str:
    """The name of the variable that sets an option.

    >>> variable_of("text-rollout", click.Option(["--policy"])), variable_of("ucb-sample", click.Option(["--policy"]))
    ('TOOLROLL_POLICY', 'TOOLROLL_UCB_SAMPLE_POLICY')
    """
    name = f"{command}_{setting_of(option)}" if is_apart(command, option) else setting_of(option)
    return f"TOOLROLL_{name.replace('-', '_').upper()}"
