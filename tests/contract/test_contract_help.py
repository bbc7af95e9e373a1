"""What every command says about itself: --help, --version, --schema, --show-config, and where settings come from."""

from __future__ import annotations

import json
import re
import sys
import tomllib

import click
import frame
import jsonschema
import pytest

HEAVY = {"torch", "transformers", "numpy", "vllm", "gsplat", "accelerate", "numba", "tqdm"}
every_command = pytest.mark.parametrize("command", frame.COMMANDS, ids=str)
every_reader = pytest.mark.parametrize("command", frame.READERS, ids=str)


def test_every_command_has_a_specimen():
    assert set(frame.entry_points()) == set(frame.SPECIMENS)


@every_command
@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_goes_to_stdout_and_begins_with_what_the_command_does(command, option, tmp_path):
    result = frame.run([*command.argv, option], cwd=tmp_path)
    assert (result.rc, result.err) == (0, "")
    text = result.out.decode()
    assert text.splitlines()[0] == command.tool.help.splitlines()[0]
    parts = (f"Usage: {command.name} ", "\nExamples:\n", f"    {command.name} ", "\nCommon options:\n")
    places = [text.find(part) for part in parts]
    assert -1 not in places
    assert places == sorted(places)


@every_command
@pytest.mark.parametrize("option", ["--help", "--version", "--schema", "--show-config"])
def test_nothing_heavy_is_loaded_to_answer(command, option, tmp_path):
    module, function = frame.entry_points()[command.name].split(":")
    code = (
        f"import sys; from {module} import {function} as main\ntry: main(sys.argv[1:])\n"
        "finally: sys.stderr.write(' '.join(sys.modules))"
    )
    argv = [sys.executable, "-c", code, *command.line(tmp_path, option)[len(command.argv) :]]
    loaded = set(frame.run(argv, cwd=tmp_path).err.split())
    assert "toolroll.cli" in loaded
    assert not HEAVY & loaded


@every_command
def test_version_is_one_line_with_the_version_last(command, tmp_path):
    result = frame.run([*command.argv, "--version"], cwd=tmp_path)
    assert (result.rc, result.err) == (0, "")
    assert re.fullmatch(rf"{command.name} \(toolroll\) \d+\.\d+\.\d+\S*\n", result.out.decode())


def test_version_as_json_adds_packages_and_devices(tmp_path):
    for arguments in (["--version", "--json"], ["--json", "--version"]):
        result = frame.run([*frame.COMMANDS[0].argv, *arguments], cwd=tmp_path)
        record = json.loads(result.out)
        assert record["command"] == frame.COMMANDS[0].name
        assert record["devices"][0] == "cpu"
        assert {"torch", "transformers", "numpy"} <= record["packages"].keys()
        assert "cuda" in record


def test_json_alone_is_no_option(tmp_path):
    result = frame.run([*frame.COMMANDS[0].argv, "--json"], cwd=tmp_path)
    assert (result.rc, result.out) == (2, b"")


@every_reader
def test_schema_describes_the_rows_that_are_read(command, tmp_path):
    result = frame.run([*command.argv, "--schema"], cwd=tmp_path)
    assert (result.rc, result.err) == (0, "")
    schema = json.loads(result.out)
    jsonschema.Draft202012Validator.check_schema(schema)
    row = command.specimen.row(0)
    jsonschema.validate(row, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate([row], schema)


@pytest.mark.parametrize("command", frame.STREAMERS, ids=str)
def test_schema_describes_the_fields_that_are_added(command, tmp_path):
    schema = json.loads(frame.run([*command.argv, "--schema"], cwd=tmp_path).out)["x-adds"]
    before = command.specimen.row(0)
    (after,) = command.run(tmp_path, stdin=command.lines(1)).rows
    added = {name: value for name, value in after.items() if name not in before or before[name] != value}
    assert added
    assert set(added) <= set(schema)
    for name, value in added.items():
        jsonschema.validate(value, schema[name])


@every_command
def test_an_unknown_option_is_a_usage_error_in_one_line(command, tmp_path):
    result = command.run(tmp_path, "--no-such-option")
    assert (result.rc, result.out) == (2, b"")
    assert re.fullmatch(rf"{command.name}: no such option:? '?--no-such-option.*\n", result.err)


@every_command
def test_a_bad_value_is_a_usage_error_in_one_line(command, tmp_path):
    result = command.run(tmp_path, "--log", "xml")
    assert (result.rc, result.out) == (2, b"")
    assert re.fullmatch(rf"{command.name}: .*--log.*\n", result.err)


@every_command
def test_show_config_is_toml_that_config_accepts(command, tmp_path):
    shown = command.run(tmp_path, "--show-config")
    assert (shown.rc, shown.err) == (0, "")
    settings = tomllib.loads(shown.out.decode())[command.name]
    assert settings["log"] == "text"
    path = tmp_path / "settings.toml"
    path.write_bytes(shown.out)
    again = command.run(tmp_path, "--config", path, "--show-config")
    assert (again.rc, again.err) == (0, "")
    found = tomllib.loads(again.out.decode())[command.name]
    fresh = {name for name, value in settings.items() if "/new-" in str(value)}  # names made anew each time
    assert {**found, **{name: settings[name] for name in fresh}} == settings


@pytest.mark.parametrize("command", frame.STREAMERS, ids=str)
def test_a_shown_configuration_gives_the_same_bytes(command, tmp_path):
    path = tmp_path / "settings.toml"
    path.write_bytes(command.run(tmp_path, "--show-config").out)
    rows = command.lines(3)
    configured = command.run(tmp_path, "--config", path, stdin=rows)
    assert configured.rc == 0
    assert configured.out == command.run(tmp_path, stdin=rows).out


@every_reader
def test_flag_beats_environment_beats_config_beats_default(command, tmp_path):
    path = tmp_path / "settings.toml"
    path.write_text(f'[{command.name}]\non-error = "keep"\n')
    environment = {"TOOLROLL_ON_ERROR": "skip"}
    config = ("--config", path)
    for arguments, env, value, source in (
        ((), {}, "stop", "default"),
        (config, {}, "keep", "config"),
        (config, environment, "skip", "environment"),
        ((*config, "--on-error", "stop"), environment, "stop", "flag"),
    ):
        shown = command.run(tmp_path, *arguments, "--show-config", env=env).out.decode()
        assert f'on_error = "{value}"  # {source}\n' in shown


def test_settings_reach_the_command(tmp_path):
    tag = frame.own("tag")
    (tmp_path / "c.toml").write_text("factor = 3\n[tag]\nseed = 7\n")
    rows = tag.lines(2)
    configured = tag.run(tmp_path, "--config", "c.toml", stdin=rows, env={"TOOLROLL_LABEL": "x"})
    assert configured.out == tag.run(tmp_path, "--factor", 3, "--seed", 7, "--label", "x", stdin=rows).out
    assert [row["tag"] for row in configured.rows] == [0, 3]


@pytest.mark.parametrize("value", ['🦀 "q" \\ \x7f\ttab', "é", ""])
def test_show_config_quotes_any_text(value, tmp_path):
    shown = frame.own("tag").run(tmp_path, "--label", value, "--factor", "1e300", "--show-config")
    settings = tomllib.loads(shown.out.decode())["tag"]
    assert (settings["label"], settings["factor"]) == (value, 1e300)


@pytest.mark.parametrize("command", frame.COMMANDS, ids=str)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_no_option_that_is_a_number_takes_what_is_none(command, value, tmp_path):
    """Before anything is done; an option with a least or greatest value may say that instead."""
    for param in command.tool.params:
        if isinstance(param.type, click.types.FloatParamType):
            line = command.line(tmp_path, param.opts[-1], *[value] * param.nargs)
            with pytest.raises(click.BadParameter, match=r"expected a finite number|is not in the range") as refused:
                command.tool.make_context(command.name, line[len(command.argv) :])
            assert refused.value.param is param


def test_a_number_that_is_none_is_a_usage_error_wherever_it_stands(tmp_path):
    tag = frame.own("tag")
    (tmp_path / "c.toml").write_text("[tag]\nfactor = nan\n")
    told = "tag: invalid value for '--factor': expected a finite number (see tag --help)\n"
    for args, env in ((("--factor", "nan"), {}), ((), {"TOOLROLL_FACTOR": "inf"}), (("--config", "c.toml"), {})):
        result = tag.run(tmp_path, *args, "-o", "out", stdin=tag.lines(1), env=env)
        assert (result.rc, result.out, result.err) == (2, b"", told)
    assert [path.name for path in tmp_path.iterdir()] == ["c.toml"]


def test_settings_outside_the_command_line_are_checked_too(tmp_path):
    command = frame.own("tag")
    path = tmp_path / "c.toml"
    for text in ("[tag]\nnonesuch = 1\n", "tag = 3\n", "[tag\n", '[tag]\nfactor = "x"\n', "[tag]\nfactor = '\xff'\n"):
        path.write_bytes(text.encode("latin-1"))
        result = command.run(tmp_path, "--config", path, stdin=command.lines(1))
        assert (result.rc, result.out, len(result.err.splitlines())) == (2, b"", 1), text
    result = command.run(tmp_path, stdin=command.lines(1), env={"TOOLROLL_FACTOR": "x"})
    assert (result.rc, result.out, len(result.err.splitlines())) == (2, b"", 1)
    result = command.run(tmp_path, "--config", "missing.toml")
    assert (result.rc, result.err) == (2, "tag: missing.toml: No such file or directory\n")


def test_a_shared_settings_file_may_hold_other_commands_settings(tmp_path):
    (tmp_path / "c.toml").write_text('retriever = "none"\nfactor = 5\n[step-parse]\ndialect = "auto"\n')
    command = frame.own("tag")
    assert command.run(tmp_path, "--config", "c.toml", stdin=command.lines(2)).rows[1]["tag"] == 5


def test_an_environment_variable_never_asks_for_version_or_schema(tmp_path):
    command = frame.own("tag")
    env = {f"TOOLROLL_{name}": "1" for name in ("VERSION", "SCHEMA", "SHOW_CONFIG", "HELP", "JSON", "VERSION_JSON")}
    assert (
        command.run(tmp_path, stdin=command.lines(1), env=env).out == command.run(tmp_path, stdin=command.lines(1)).out
    )
