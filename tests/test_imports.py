"""Imports run downward only, and nothing heavy is loaded before it is needed."""

from __future__ import annotations

import ast
import importlib
import json
import sys
from pathlib import Path

import frame
import pytest

HEAVY = {"torch", "transformers", "numpy", "vllm", "gsplat", "accelerate", "numba", "tqdm", "scipy", "httpx2", "gguf"}
LIGHT = [
    "toolroll.cli",
    "toolroll.records",
    "toolroll.io.rows",
    "toolroll.io.inputs",
    "toolroll.io.outputs",
    "toolroll.run.loop",
]
TOOLS = sorted((frame.ROOT / "tools").glob("*.py"))
every_tool = pytest.mark.parametrize("tool", TOOLS, ids=lambda path: path.stem)


def loaded_by(module):
    """The top-level packages that importing a module loads, in a fresh process."""
    code = f"import sys, json, {module}; print(json.dumps([name for name in sys.modules if '.' not in name]))"
    return set(json.loads(frame.run([sys.executable, "-c", code]).out))


def imported(path):
    """The modules a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", [*LIGHT, *(f"toolroll.tools.{path.stem}" for path in TOOLS)])
def test_nothing_heavy_is_loaded(module):
    assert not HEAVY & loaded_by(module)


def test_the_layers_of_the_library():
    lint = Path(sys.executable).with_name("lint-imports")
    result = frame.run([str(lint), "--no-cache", "--no-logo"], cwd=frame.ROOT)
    assert result.rc == 0, result.out.decode() + result.err
    assert b"0 broken" in result.out


@every_tool
def test_no_tool_imports_a_tool(tool):
    assert not [name for name in imported(tool) if name.startswith((".", "toolroll.tools"))]


@every_tool
def test_every_tool_is_an_entry_point_of_its_name(tool):
    module = f"toolroll.tools.{tool.stem}"
    assert module in {entry.split(":")[0] for entry in frame.entry_points().values()}
    assert importlib.import_module(module).main.name == tool.stem.replace("_", "-")
