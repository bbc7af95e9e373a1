"""Variables of the environment: what sets an option of several commands is no nonsense in any of them."""

from __future__ import annotations

from collections import defaultdict

import click
import frame
import pytest

#: Variables of options that take other words in some commands, and mean the same: see toolroll-options(7).
ALIKE = {
    *("BACKGROUND", "BATCH_SIZE", "BY", "GROUP", "KV_DTYPE", "NUMBER", "OBJECTS", "OUT", "SCENE", "SIZE", "STATE"),
    "POLICY",  # step-reward takes a model's name, too
}


def kind(option):
    """What sort of value it takes; of a choice, what the words are of."""
    if option.is_flag or option.count:
        return "flag"
    if isinstance(option.type, click.types.IntParamType | click.types.FloatParamType):
        return "number"
    return "choice" if isinstance(option.type, click.Choice) else str(option.metavar)


def variables():
    """The options that each variable sets, with the names of their commands."""
    found = defaultdict(list)
    for command in frame.COMMANDS:
        for param in command.tool.params:
            if isinstance(param, click.Option) and param.envvar:
                found[param.envvar].append((command.name, param))
    return found


def test_a_variable_sets_options_that_mean_the_same():
    for name, options in variables().items():
        if name.removeprefix("TOOLROLL_") in ALIKE:
            continue
        assert len({kind(option) for _, option in options} - {"SECONDS"}) <= 1, name
        words = [set(map(str, option.type.choices)) for _, option in options if isinstance(option.type, click.Choice)]
        assert not words or set.intersection(*words), name


@pytest.mark.parametrize(
    ("command", "args", "setting", "value"),
    [
        ("ucb-sample", ("--state", "x"), "policy", "sec"),
        ("gear-score", ("--space", "x"), "timeout", "2.5"),
        ("nvs-prep", ("x", "--out", "y"), "images", "images_4"),
        ("nvs-train", ("x", "--out", "y"), "samples", "64"),
        ("kv-quant", ("x.safetensors",), "alpha", "0.25"),
    ],
)
def test_a_name_with_two_meanings_has_a_variable_for_each(tmp_path, command, args, setting, value):
    def shown(**env):
        result = frame.run([command, *args, "--show-config"], cwd=tmp_path, env=env)
        assert result.rc == 0, result.err
        return [line for line in result.out.decode().splitlines() if line.removeprefix("# ").startswith(f"{setting} =")]

    other = f"TOOLROLL_{setting.upper()}"
    own = f"TOOLROLL_{command}_{setting}".replace("-", "_").upper()
    assert shown(**{other: "77"}) == shown()
    (line,) = shown(**{own: value})
    assert line.endswith("# environment")
    assert value in line
