"""One file a command. In a source tree these files live in `tools/` at its top; in a wheel, here."""

from os import path as _path

_source_tree = _path.dirname(_path.dirname(_path.dirname(_path.dirname(_path.realpath(__file__)))))
if _path.isfile(f"{_source_tree}/pyproject.toml") and _path.isdir(f"{_source_tree}/tools"):
    __path__.append(f"{_source_tree}/tools")
