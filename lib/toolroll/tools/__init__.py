"""One file a command. In a source tree these files live in `tools/` at its top; in a wheel, here."""

from pathlib import Path

_source_tree = Path(__file__).resolve().parents[3]
if (_source_tree / "pyproject.toml").is_file() and (_source_tree / "tools").is_dir():
    __path__.append(str(_source_tree / "tools"))
