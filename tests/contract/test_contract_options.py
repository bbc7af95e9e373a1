"""An option means the same in every command, because the environment and a settings file set it for all at once.

Where commands declare an option of one name in different ways, its name stands in a table below, and what all mean by
it in toolroll-options(7). An entry that no command needs is an error too.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator

import click
import frame

from toolroll.docs.options_page import long_name, meanings, shared_options

#: Options that take another kind of value in some commands, as toolroll-options(7) says.
FORMS = {
    *("--batch-size", "--number", "--kv-dtype", "--objects"),  # several numbers or types where each is a case
    *("--by", "--group"),  # several fields, or one
    *("--out", "--policy", "--state"),  # a file, a folder, a model: what is made and kept differs
    *("--cap", "--depth", "--grid", "--ignore", "--keep", "--stage"),  # the same word for other things
    *("--background", "--images", "--method", "--scene", "--size", "--split", "--table"),  # scenes of photos
}

#: Options of which some commands have more or other choices.
CHOICES = {
    *("--backend", "--dialect", "--dtype", "--match", "--on-long", "--std"),  # not all make sense, or are there
    "--compat",  # after whom
    *("--format", "--kind", "--mode", "--preset", "--rule"),  # of what the command has such of
}


def options() -> Iterator[tuple[str, click.Option]]:
    """All options: the name of the command, and the option."""
    for command in frame.COMMANDS:
        for param in command.tool.params:
            if isinstance(param, click.Option) and not param.hidden:
                yield command.name, param


def form(option: click.Option) -> tuple[object, ...]:
    """What kind of value it takes, and how often."""
    if option.count:
        kind = "count"
    elif option.is_flag:
        kind = "on or off" if option.secondary_opts else "flag"
    elif isinstance(option.type, click.Choice):
        kind = "choice"
    else:
        whole, any_number = click.types.IntParamType, click.types.FloatParamType
        kind = "N" if isinstance(option.type, whole) else "X" if isinstance(option.type, any_number) else option.metavar
    return kind, option.multiple, option.nargs


def choices(option: click.Option) -> frozenset[str]:
    return frozenset(map(str, option.type.choices)) if isinstance(option.type, click.Choice) else frozenset()


def default(option: click.Option) -> str:
    """As the help shows it, where it has no words of its own for it."""
    return repr(option.to_info_dict()["default"])


def said(option: click.Option) -> str:
    return option.help or ""


def differing(view: Callable[[click.Option], object]) -> dict[str, dict[object, list[str]]]:
    """The options of which `view` sees different things: what it sees, with the commands."""
    found: dict[str, dict[object, list[str]]] = defaultdict(lambda: defaultdict(list))
    for command, option in options():
        found[long_name(option)][view(option)].append(command)
    return {name: seen for name, seen in found.items() if len(seen) > 1}


def test_options_of_one_name_take_one_kind_of_value():
    assert differing(form).keys() == FORMS


def test_options_of_one_name_have_the_same_choices():
    assert {name for name, seen in differing(choices).items() if name not in FORMS} == CHOICES


def test_where_a_default_or_the_help_differs_the_common_meaning_is_written_down():
    """In toolroll-options(7), which has no entries but these."""
    found = {**differing(said), **differing(default)}
    common = {name: found[name] for name in found if name in shared_options(command.tool for command in frame.COMMANDS)}
    assert {name: seen for name, seen in common.items() if name not in meanings()} == {}
    assert meanings().keys() <= common.keys()


def test_every_option_has_one_long_name_which_is_that_of_its_setting():
    for command, option in options():
        names = [name for name in (*option.opts, *option.secondary_opts) if name.startswith("--")]
        own = [name for name in names if not name.startswith("--no-") or name == names[0]]
        assert len(own) == 1, f"{command}: {option.opts}"
        if option.allow_from_autoenv:
            assert option.envvar == "TOOLROLL_" + own[0][2:].replace("-", "_").upper(), f"{command}: {option.opts}"


def test_a_short_name_is_short_for_one_long_name():
    found: dict[str, set[str]] = defaultdict(set)
    for _, option in options():
        for name in option.opts:
            if not name.startswith("--"):
                found[name].add(long_name(option))
    kv_quant_s = {"-o": {"--output", "--out"}}  # what it makes is a file of its own
    assert {name: names for name, names in found.items() if len(names) > 1} == kv_quant_s


def test_a_file_or_a_folder_is_declared_as_one():
    """So that shells complete it. A name of photos may have a {scene} in it."""
    for command, option in options():
        if option.metavar in ("FILE", "DIR") and long_name(option) not in ("--truth", "--scene"):
            assert isinstance(option.type, click.Path), f"{command}: {option.opts}"


def test_the_environment_and_a_settings_file_know_an_option_by_its_long_name(tmp_path):
    """Whatever its name in Python is."""
    spy_game = next(command for command in frame.COMMANDS if command.name == "spy-game")
    shown = spy_game.run(tmp_path, "--show-config", env={"TOOLROLL_TURNS": "1"}).out.decode()
    assert "\nturns = true  # environment\n" in shown
    assert "as_turns" not in shown
    (tmp_path / "settings.toml").write_text("turns = true\n[spy-game]\nspy-copy = 0.5\n")
    shown = spy_game.run(tmp_path, "--config", "settings.toml", "--show-config").out.decode()
    assert "\nturns = true  # config\n" in shown
    assert "\nspy_copy = 0.5  # config\n" in shown
    spy_game.run(tmp_path, "--turns", "-o", "turns.jsonl", stdin=spy_game.lines(1))
    assert json.loads((tmp_path / "turns.jsonl.meta.json").read_text())["settings"]["turns"] is True


def test_a_setting_that_shapes_the_output_cannot_change_when_a_run_is_resumed(tmp_path):
    """Also where options of other commands that have nearly the same name say only how to run."""
    check = next(command for command in frame.COMMANDS if command.name == "answer-check")
    rows = check.lines(2)
    (tmp_path / "in.jsonl").write_bytes(rows + b"no JSON\n")
    assert check.run(tmp_path, "--kind", "exact", "--cpu-time", 3, "in.jsonl", "-o", "out").rc == 1
    told = check.run(tmp_path, "--kind", "exact", "--cpu-time", 4, "in.jsonl", "-o", "out", "--resume")
    assert (told.rc, told.err.split(": ")[1:3]) == (2, ["--resume", "cpu_time"])
