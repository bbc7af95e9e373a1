"""Pictures that matplotlib draws, written whole."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from toolroll.errors import UsageError
from toolroll.io.filesystem import put


def write_figure(figure: Any, path: Path, metadata: dict[str, Any] | None = None) -> None:
    """Write a figure in the format that the file's suffix says, as PNG where it has none.

    UsageError for a suffix that matplotlib has no format for, ToolrollError where the file cannot be written.
    """
    held = io.BytesIO()
    try:
        figure.savefig(held, format=path.suffix.lower().lstrip(".") or "png", dpi=150, metadata=metadata)
    except ValueError as error:
        raise UsageError(str(error).partition("(")[0].strip(), place="--plot") from error
    put(path, held.getvalue())
