"""toolroll-records(5): every record and every field, from `toolroll.records`."""

from __future__ import annotations

from toolroll import records
from toolroll.docs.fields import Field, fields_of
from toolroll.docs.roff import Page, bold, escape, inline, italic

_ABOUT = """
Commands exchange JSON lines: one JSON object a line, a record. What a field means, its type and its limits are the
same in all commands. A command checks the fields it reads, which its page names, and no others; fields that no record
here has are passed on as they are.

A field is required, or optional and then absent or null, or has a default that stands for it where it is absent. A row
that a command could not process has the field `error`, an object with `why` and `where`; toolroll(7) tells when.

`COMMAND --schema` prints what a command reads and adds as JSON Schema.
"""


def records_page() -> str:
    """The page."""
    page = Page("toolroll-records", 5, "the records that the commands of toolroll read and write")
    page.heading("DESCRIPTION")
    page.prose(_ABOUT)
    page.heading("RECORDS")
    for record in records.all_records():
        page.subheading(escape(record.__name__))
        page.prose(record.__doc__ or "")
        base = record.__bases__[0]
        if base is not records.Record:
            page.text(f"Has all fields of {italic(base.__name__)}, and:")
        for field in fields_of(record, own=True):
            add_field(page, field)
    page.heading("SEE ALSO")
    page.text(inline("toolroll(7)"))
    return page.render()


def add_field(page: Page, field: Field) -> None:
    """An entry for one field."""
    need = f"; {escape(field.need)}" if field.need else ""
    page.item(f"{bold(field.name)} ({escape(field.type)}{need})", inline(field.description))


def meaning_of(name: str) -> str:
    """What a field of that name means, in whichever record has it; "" when none has."""
    for record in records.all_records():
        for field in fields_of(record):
            if field.name == name:
                return field.description
    return ""
