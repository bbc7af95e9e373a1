"""A record on its way through the stages: what it has, what was set, how it failed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec

from toolroll.errors import RowError
from toolroll.io.rows import Row

#: The fields of pairs, by the names that toolroll, TRL, RLAIF-V and POVID have for them.
FIELDS = frozenset(
    [
        *("id", "sample", "prompt", "question", "chosen", "rejected", "conversations", "rejected_conversations"),
        *("images", "image", "image_path", "images_sha256", "made", "clip", "action", "reason", "delta", "reversed"),
        *("ref_chosen_logps", "ref_rejected_logps", "chosen_tokens", "rejected_tokens"),
    ]
)


@dataclass(slots=True)
class Work:
    """A row, its fields as they are now, the names of those that were set, and why it could not be processed."""

    row: Row[Any]
    fields: dict[str, Any]
    new: dict[str, None] = field(default_factory=dict)
    error: str | None = None
    dropped: bool = False

    @classmethod
    def of(cls, row: Row[Any]) -> Work:
        """A row as it was read."""
        return cls(row, known_fields(row))

    def set(self, **fields: Any) -> Work:
        """Set fields; what is there already and the same stays as it was written."""
        for name, value in fields.items():
            if name not in self.fields or self.fields[name] != value:
                self.fields[name] = value
                self.new[name] = None
        return self

    def fail(self, why: str) -> Work:
        """Tell why the record could not be processed."""
        self.error = why
        return self

    def result(self) -> Row[Any]:
        """The row to be written."""
        made = {name: self.fields[name] for name in self.new}
        row = self.row
        if self.error is None and "image" in self.fields and "images" in self.fields:
            row = _without(row, "image")  # TRL would take it instead of `images`
        row = row.fail(self.error, **made) if self.error is not None else row.add(**made)
        row.dropped = self.dropped and self.error is None
        return row


def known_fields(row: Row[Any]) -> dict[str, Any]:
    """The fields of a row that pairs have; no other is looked at. RowError for one that cannot be read."""
    raw: dict[str, msgspec.Raw] = msgspec.json.decode(row.raw, type=dict[str, msgspec.Raw])
    try:
        return {name: msgspec.json.decode(value) for name, value in raw.items() if name in FIELDS}
    except (msgspec.MsgspecError, RecursionError) as error:
        raise RowError(f"a field cannot be read: {error}") from error


def _without(row: Row[Any], name: str) -> Row[Any]:
    """A row without one of its fields; the others stay as they are written."""
    fields: dict[str, msgspec.Raw] = msgspec.json.decode(row.raw, type=dict[str, msgspec.Raw])
    fields.pop(name, None)
    made = row.bare()
    made.raw = msgspec.json.encode(fields)
    return made
