"""caption-eval: compare what texts name with what there is.

Reading texts and counting: toolroll.preference.mentions. Measures: arXiv:1809.02156 (CHAIR).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import command, offers_table
from toolroll.errors import RowError, UsageError
from toolroll.records import field_types, view
from toolroll.records.preference import CaptionScores, CaptionSummary

if TYPE_CHECKING:
    from toolroll.io.rows import Row
    from toolroll.preference.mentions import Reader
    from toolroll.run.rows import Rows

EXAMPLES = """
  A text about an image, and what there is:
    echo '{"id": "a", "response": "A red cube beside a dog.", "objects": ["red cube", "ball"]}' | caption-eval
  Two models side by side:
    caption-eval --summary --table --by model CAPTIONS.jsonl
  Captions of photos, with the objects of COCO's annotation; the better answers of pairs:
    caption-eval --synonyms coco --text-field chosen --objects-field labels PAIRS.jsonl
"""

NOTES = """
precision and recall are of the distinct things a text names and of those there are; chair_i counts a thing as often as
it is named. chair_s, the share of texts that name something that there is not, is in --summary, where each mention
weighs alike: with `refined`, of those texts that name anything, as RLAIF-V counts. A share of nothing is null: a text
that names nothing has no precision, and recall 0. No model takes part, so that the scores do not move with one.

Without --synonyms, texts are read as words about CLEVR's objects: a noun and the size, colour and material right before
it, with CLEVR's synonyms. What a text does not say is not held against it. Each distinct thing named stands for one
that is there: "a cube" finds one of two cubes of different colours.

With --synonyms coco, or FILE with one JSON object {"name": ["another word", ...]}, texts are searched for the words of
the table, the longest first, plurals too; of Chinese, Japanese and Korean wherever their characters stand. Objects
that the table does not know are looked for by their own words.
Everything else that a text says is not looked at, attributes and relations among it.
"""


@command(
    "caption-eval",
    system="Judge-free",
    reads=view(CaptionScores, "id", "response", "text", "caption", "objects", "scene"),
    adds=field_types(
        CaptionScores,
        *("mentions", "hallucinated", "missed", "precision", "recall", "f1", "chair_i", "chair_i_unique"),
    ),
    epilog="See clip-score(1), toolroll-records(5).",
)
@click.option("--text-field", metavar="FIELD", help="The text's field; else response, text or caption.")
@click.option("--objects-field", metavar="FIELD", help="Field with what there is; else objects or scene.")
@click.option(
    "--synonyms",
    default="clevr",
    show_default=True,
    metavar="clevr|coco|FILE",
    help="The words for things: CLEVR's, COCO's 80 classes, or a JSON object of names, each with a list of words.",
)
@click.option("--summary", is_flag=True, help="Write the measures of all texts together instead of the rows.")
@click.option("--by", metavar="FIELD,...", help="--summary: a row for each combination of these fields.")
@offers_table
def main(
    rows: Rows[Any],
    *,
    text_field: str | None,
    objects_field: str | None,
    synonyms: str,
    summary: bool,
    by: str | None,
    table: bool,
) -> Iterator[Row[Any] | dict[str, Any]]:
    """Compare what texts name with what there is: precision, recall, F1 and CHAIR.

    Reads rows with a text and a list of objects, or a scene as CLEVR's JSON. Adds what is named, what of it there is
    not, what is missed, and the measures.
    """
    from toolroll.preference.mentions import Sums, compared, for_people
    from toolroll.run.groups import Groups, read_names, values_of

    for name, given in (("--table", table), ("--by", by is not None)):
        if given and not summary:
            raise UsageError("goes with --summary", place=name)
    if summary and click.get_current_context().params["resume"]:
        raise UsageError("a summary cannot be resumed", place="--summary")
    names = read_names(by, CaptionSummary.__struct_fields__)
    reader = _reader(synonyms)
    sums = Groups(Sums)
    if not names:
        sums.of(())
    for row in rows:
        try:
            fields = row.fields() if text_field or objects_field or names else {}
            values = values_of(fields, names)
            found = compared(reader, _text(row, fields, text_field), _objects(row, fields, objects_field))
        except RowError as error:
            yield row.fail(error.why)
            continue
        if summary:
            sums.of(values).add(found)
        else:
            yield row.add(mentions=found.named, hallucinated=found.wrong, missed=found.missed, **found.scores())
    if summary and not rows.cut:
        for values, one in sums:
            record = {**dict(zip(names, values, strict=True)), **one.report()}
            yield for_people(record, names) if table else record


def _reader(synonyms: str) -> Reader:
    from toolroll.preference import coco
    from toolroll.preference.mentions import Scenes, Synonyms, read_synonyms

    if synonyms == "clevr":
        return Scenes()
    if synonyms == "coco":
        return Synonyms(coco.table(), coco.OTHER)
    return read_synonyms(Path(synonyms))


def _text(row: Row[Any], fields: dict[str, Any], name: str | None) -> str:
    from toolroll.preference.texts import text_of

    seen = row.view
    given = (
        fields.get(name) if name else next((t for t in (seen.response, seen.text, seen.caption) if t is not None), None)
    )
    if given is None:
        raise RowError(f"no `{name}`" if name else "no `response`, `text` or `caption` (or --text-field FIELD)")
    return text_of(given, name or "text")


def _objects(row: Row[Any], fields: dict[str, Any], name: str | None) -> list[Any]:
    given = fields.get(name) if name else row.view.objects if row.view.objects is not None else row.view.scene
    if isinstance(given, dict):
        given = given.get("objects")
    if not isinstance(given, list):
        raise RowError(f"`{name}` is no list of objects and no scene" if name else "no `objects` and no `scene`")
    return given
