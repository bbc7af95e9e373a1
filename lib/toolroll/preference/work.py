"""A record on its way through the stages: what it has, what was set, how it failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from toolroll.errors import RowError
from toolroll.io.rows import Row
from toolroll.preference.foreign import Form, out_of_form, replaced

#: The fields of pairs, by the names that toolroll, TRL, RLAIF-V and POVID have for them.
FIELDS = frozenset(
    [
        *("id", "sample", "prompt", "question", "chosen", "rejected", "conversations", "rejected_conversations"),
        *("images", "image", "image_path", "images_sha256", "made", "clip", "action", "reason", "delta", "reversed"),
        *("ref_chosen_logps", "ref_rejected_logps", "prompt_tokens", "chosen_tokens", "rejected_tokens"),
    ]
)


@dataclass(slots=True)
class Work:
    """A row, its fields as they are now, the names of those that were set, and why it could not be processed.

    One that is `written` stands in the output already, and is worked on only to keep others company.
    """

    row: Row[Any]
    fields: dict[str, Any]
    new: dict[str, None] = field(default_factory=dict)
    error: str | None = None
    dropped: bool = False
    written: bool = False

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

    def result(self, form: Form = "trl") -> Row[Any]:
        """The row to be written, in one of the forms pairs have."""
        row = self.row
        made = {name: self.fields[name] for name in self.new}
        gone = replaced(self.fields)
        if self.error is None and form != "trl" and not self.dropped:
            try:
                return _changed(row.add(**made), {**gone, **out_of_form(self.fields, form)})
            except RowError as error:
                self.error = error.why
        if self.error is not None:
            return row.fail(self.error, **made)
        row = (_changed(row, gone) if gone else row).add(**made)
        row.dropped = self.dropped
        return row


def known_fields(row: Row[Any]) -> dict[str, Any]:
    """The fields of a row that pairs have; no other is looked at. RowError for one that cannot be read."""
    raw: dict[str, msgspec.Raw] = msgspec.json.decode(row.raw, type=dict[str, msgspec.Raw])
    try:
        return {name: msgspec.json.decode(value) for name, value in raw.items() if name in FIELDS}
    except (msgspec.MsgspecError, RecursionError) as error:
        raise RowError(f"a field cannot be read: {error}") from error


def _changed(row: Row[Any], changes: Mapping[str, Any]) -> Row[Any]:
    """A row with some fields set, those that are to be None left out; the others stay as they are written."""
    fields: dict[str, msgspec.Raw] = msgspec.json.decode(row.encode(), type=dict[str, msgspec.Raw])
    for name, value in changes.items():
        fields.pop(name, None)
        if value is not None:
            fields[name] = msgspec.Raw(msgspec.json.encode(value))
    made = row.bare()
    made.raw = msgspec.json.encode(fields)
    return made
