"""What shells offer when TAB is pressed: real ones, on terminals of their own, with the scripts of the source tree."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import signal
import time
from pathlib import Path

import click
import frame
import pytest

from toolroll.cli.completing import files_of

SCRIPTS = frame.ROOT / "completions"
FILES = ("a.jsonl", "b.jsonl.gz", "c.jsonl.zst", "d.txt", "e.safetensors", "my rows.jsonl", "f.npy")
#: How a shell is started without anybody's settings.
SHELLS = {
    "bash": ("bash", "--rcfile", "{rc}", "--noprofile", "-i"),
    "zsh": ("zsh", "-i"),
    "fish": ("fish", "--no-config", "-i", "--init-command", "source {rc}"),
}
#: What it reads then.
SETTINGS = {
    "bash": """
PS1='READY> '
bind 'set show-all-if-ambiguous on'
bind 'set enable-bracketed-paste off'
for script in {scripts}/bash/*; do source $script; done
""",
    "zsh": """
PS1='READY> '
unset zle_bracketed_paste
fpath=({scripts}/zsh $fpath)
autoload -Uz compinit && compinit -u -D
""",
    "fish": """
function fish_prompt; echo 'READY> '; end
for script in {scripts}/fish/*; source $script; end
""",
}
_ESCAPES = re.compile(r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[[0-9;?<>=]*[a-zA-Z]|\x1b[=>()][0B]?|.\x08|[\r\x07]")


@pytest.fixture(params=SHELLS)
def shell(request):
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return request.param


def typed(shell: str, folder: Path, keys: str, until: str) -> str:
    """Start a shell in a folder with FILES and a folder, type, and wait until a text is there: what came behind it."""
    (folder / "sub dir").mkdir()
    for name in FILES:
        (folder / name).touch()
    rc = folder / "home" / ".zshrc"
    rc.parent.mkdir()
    rc.write_text(SETTINGS[shell].replace("{scripts}", str(SCRIPTS)))
    argv = [part.replace("{rc}", str(rc)) for part in SHELLS[shell]]
    home = {"HOME": str(rc.parent), "ZDOTDIR": str(rc.parent), "TERM": "xterm", "COLUMNS": "120", "LINES": "50"}
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execvpe(argv[0], argv, frame.environment(home))
    try:
        _read(terminal, "READY>")
        os.write(terminal, keys.encode())
        return _read(terminal, until)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(terminal)


def _read(terminal: int, until: str) -> str:
    """What is shown up to a text, and for a moment longer; a shell that asks what terminal this is gets an answer."""
    shown, end = b"", time.monotonic() + frame.PATIENCE_S
    while True:
        quiet = 0.5 if until in _ESCAPES.sub("", shown.decode(errors="replace")) else end - time.monotonic()
        if not select.select([terminal], [], [], max(0.0, quiet))[0]:
            break
        new = os.read(terminal, 65536)
        shown += new
        for question, answer in ((b"\x1b[6n", b"\x1b[1;1R"), (b"\x1b[c", b"\x1b[?1;2c"), (b"\x1b[0c", b"\x1b[?1;2c")):
            if question in new:
                os.write(terminal, answer)
    text = _ESCAPES.sub("", shown.decode(errors="replace"))
    assert until in text, f"waited in vain for {until!r} in {text!r}"
    return text


def test_choices_are_offered(shell, tmp_path):
    text = typed(shell, tmp_path, "spy-game --preset \t", "paper")
    assert "code" in text


def test_an_option_is_completed(shell, tmp_path):
    assert "--presets" not in typed(shell, tmp_path, "spy-game --pre\t", "--preset")


def test_rows_are_read_from_files_of_json_lines(shell, tmp_path):
    text = typed(shell, tmp_path, "step-parse \t", "c.jsonl.zst")
    assert all(name in text for name in ("a.jsonl", "b.jsonl.gz", "rows.jsonl", "dir/"))
    assert not any(name in text for name in ("d.txt", "e.safetensors", "f.npy"))


def test_files_of_other_kinds_are_told_by_their_suffixes(shell, tmp_path):
    text = typed(shell, tmp_path, "vprune --heads \t", "f.npy")
    assert "e.safetensors" in text
    assert not any(name in text for name in ("d.txt", "a.jsonl"))


def test_a_folder_is_offered_where_a_folder_is_wanted(shell, tmp_path):
    text = typed(shell, tmp_path, "spy-game --images s\t", "sub\\ dir/")
    assert "a.jsonl" not in text


def test_a_name_with_a_blank_is_completed(shell, tmp_path):
    typed(shell, tmp_path, "step-parse my\t", "my\\ rows.jsonl")


def test_toolroll_completes_commands_and_what_is_theirs(shell, tmp_path):
    text = typed(shell, tmp_path, "toolroll pair-\t", "pair-quiz")
    assert "pair-make" in text
    (tmp_path / "second").mkdir()
    text = typed(shell, tmp_path / "second", "toolroll spy-game --preset \t", "paper")
    assert "code" in text


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_a_value_behind_an_equals_sign(tmp_path):
    typed("bash", tmp_path, "spy-game --preset=p\t", "--preset=paper")


@pytest.mark.parametrize(
    ("metavar", "text", "offered"),
    [
        ("FILE", "Anything.", [("file", "")]),
        ("[FILE]...", "JSON lines. .gz, .png and .zst are read too.", [("file", ".jsonl .jsonl.gz .jsonl.zst .png")]),
        ("FILE", "Write here; .gz and .zst compress.", [("file", "")]),
        ("FILE.safetensors", "Keys.", [("file", ".safetensors")]),
        ("FILE|N", "A mask (.npy), or a number.", [("file", ".npy")]),
        ("none|vild|FILE", "Sentences.", [("plain", "none"), ("plain", "vild"), ("file", "")]),
        ("DIR", "A folder.", [("dir", "")]),
        ("NAME", "A folder or hub id, a .gguf file, or `embedded`.", [("plain", "embedded"), ("file", ".gguf")]),
        ("NAME", "A folder or hub id; with `words` of another kind.", [("dir", "")]),
        ("TEXT", "A text about a file.txt.", []),
    ],
)
def test_what_is_offered_follows_from_what_the_help_says(metavar, text, offered):
    option = click.Option(["--x"], metavar=metavar, help=text)
    assert [(item.type, item.value) for item in files_of(option)] == offered
