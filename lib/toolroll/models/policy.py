"""The policy directory, as a rollout reads it: versions of a model, and which one is current.

    DIR/v000012/    a Hugging Face folder, or a LoRA adapter
    DIR/current     a symbolic link to the version in use, swapped by rename

A trainer publishes a version by making its folder complete before it moves the link, so that whoever
follows the link always finds a whole model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from toolroll.errors import ToolrollError
from toolroll.models.adapters import is_adapter


@dataclass(frozen=True, slots=True)
class PolicyVersion:
    """One published version: its folder and its name, "v000012"."""

    path: Path
    name: str


def current_policy(directory: Path) -> PolicyVersion:
    """The version that `DIR/current` points at. ToolrollError when there is none, or it is not whole."""
    link = directory / "current"
    try:
        path = link.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        why = "no such folder" if not directory.is_dir() else "has no version yet (no `current` in it)"
        raise ToolrollError(why, place=str(directory)) from error
    if not (path / "config.json").is_file() and not is_adapter(path):
        raise ToolrollError("`current` is not a whole model (no config.json in it)", place=str(directory))
    return PolicyVersion(path, path.name)
