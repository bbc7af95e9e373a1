"""clip-score: say how well texts fit their images, by a contrastive encoder.

Sentences and windows: toolroll.preference.sentences. Scores: toolroll.preference.scores. Encoders:
toolroll.preference.encoders.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import GroupedOption, command, option_group, uses_images
from toolroll.errors import RowError
from toolroll.preference.scoring import ScoringOptions, image_paths, scored, scoring_options
from toolroll.records import IMAGE_FIELDS, field_types, view
from toolroll.records.preference import ImageTexts
from toolroll.run.blocks import in_blocks

if TYPE_CHECKING:
    from toolroll.io.rows import Row
    from toolroll.preference.scores import Job, TextScore
    from toolroll.run.log import Log
    from toolroll.run.rows import Rows

EXAMPLES = """
  Texts about rendered scenes, by the embedded encoder:
    pair-make scenes -n 2 --size 96x72 --out pictures -o pairs.jsonl
    jq -c '{id, image: .original, text: "A red cube. A small ball."}' pairs.jsonl | clip-score > scored.jsonl
  The sentence that fits its image least:
    jq -c '[.id, (.sentences | min_by(.score) | .text)]' scored.jsonl
  Many runs over the same photos, whose vectors are kept; the better answers of pairs:
    clip-score PAIRS.jsonl --text-field chosen --images PHOTOS --clip NAME --clip-cache photos.cache
"""

NOTES = """
A text is split into sentences by rule, and each sentence is scored by itself: encoders of this kind read 77 tokens (64
of SigLIP), and take their vector from the end token. A longer sentence is read in windows: it is split at ; , and
"and", then in equal stretches, each with an end token of its own; its score is their mean by length. Nothing is cut
off. Of several images the best counts.

100 times the cosine equals `logits_per_image` of OpenAI's models. SigLIP's cosines are on another scale, and margins
for CLIP do not fit them. CLIPScore is 2.5 times the cosine where it is above 0.

A text without a sentence, that is without a letter, has score null.

--clip-cache keeps vectors by the content of files and the encoder's weights. Scores do not depend on --clip-batch but
for rounding.
"""


@command(
    "clip-score",
    system="Judge-free",
    reads=view(ImageTexts, "id", *IMAGE_FIELDS, "response", "text", "caption"),
    adds=field_types(ImageTexts, "clip_score", "sentences"),
    slow=True,
    epilog="See caption-eval(1), toolroll-records(5).",
)
@click.option("--text-field", metavar="FIELD", help="The text's field; else response, text or caption.")
@uses_images
@option_group("scoring", ScoringOptions, scoring_options(GroupedOption))
def main(
    rows: Rows[Any], *, scoring: ScoringOptions, text_field: str | None, images: Path | None, log: Log
) -> Iterator[Row[Any]]:
    """Say how well texts fit their images, by a contrastive encoder.

    Reads rows with the path of an image and a text, or a list of texts. Adds the text's score, and the scores of its
    sentences.
    """
    many: dict[int, bool] = {}

    def job_of(row: Row[Any]) -> Job:
        from toolroll.preference.scores import Job

        texts, many[row.index] = _texts(row, text_field)
        return Job(image_paths(row.view, row.place, images), texts)

    def add(row: Row[Any], found: list[TextScore]) -> Row[Any]:
        scores = [one.score for one in found]
        parts = [one.record()["sentences"] for one in found]
        if many.pop(row.index):
            return row.add(clip_score=scores, sentences=parts)
        return row.add(clip_score=scores[0], sentences=parts[0])

    def fail(row: Row[Any], why: str) -> Row[Any]:
        return row.fail(why)

    scorer = cache(lambda: scoring.open(log))
    for block in in_blocks(rows, lambda: scoring.clip_batch, rows.ready):
        yield from scored(block, scorer, job_of, add, fail)


def _texts(row: Row[Any], name: str | None) -> tuple[list[str], bool]:
    """The texts of a row, and whether they are a list."""
    from toolroll.preference.texts import text_of

    seen = row.view
    known = (seen.response, seen.text, seen.caption)
    given = row.fields().get(name) if name else next((text for text in known if text is not None), None)
    if given is None:
        raise RowError(f"no `{name}`" if name else "no `response`, `text` or `caption` (or --text-field FIELD)")
    if isinstance(given, list) and all(isinstance(text, str) for text in given):
        return given, True
    return [text_of(given, name or "text")], False
