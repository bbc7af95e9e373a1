"""answer-check: tell whether the answers of a model are right.

One row in, one row out, in order. What is taken as the answer and how it is compared: toolroll.checking.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from toolroll.checking.kinds import IGNORED, KINDS
from toolroll.cli import command, each
from toolroll.errors import RowError, UsageError
from toolroll.records import field_types, view
from toolroll.records.checking import CheckedAnswer

if TYPE_CHECKING:
    from toolroll.checking.kinds import Ignored, Kind
    from toolroll.io.rows import Row
    from toolroll.run.log import Log

EXAMPLES = """
  Is an answer right?
    echo '{"id": "a", "text": "That makes 42 in all.", "answer": 42}' | answer-check --kind number
  How many answers to mathematics problems are right:
    text-rollout PROBLEMS.jsonl --prompt-file PROMPT.txt | answer-check | jq -s 'map(.correct) | add / length'
  What was taken as the answer where it is wrong:
    answer-check ANSWERS.jsonl | jq -c 'select(.correct == 0) | [.id, .extracted, .answer, .correct_why]'
  Multiple choice, the options in the row or not:
    answer-check --kind choice GPQA.jsonl > checked.jsonl
  Rewards of 0 and 1 for training:
    answer-check ROLLOUTS.jsonl | group-advantage --reward-field correct --group-size 8 > train.jsonl
"""

NOTES = r"""
What a model thought is no answer: only what follows the last </think> counts, and of this the last <answer> block if
there is one. A text that ends within its thoughts has no answer. No answer is wrong: `correct` is 0, `extracted` null.

`correct` is null, and `correct_why` says why, where the row has no right answer, or one that cannot be read; an answer
that is the same text is right even so. The right answers are `golden_answers`, `answers`, `reward_model.ground_truth`
or `answer`, the first that is there; of several, one has to be met. A row without a text is an error.

math: the answer is what the last \boxed{} holds that is closed. Where the only box is open the text was cut off, and
there is no answer. Without a box it is the formula or number behind the last "answer is", "Answer:" or the like; else
all of the text if that is a formula; else the last formula or number. Numbers and equal texts are compared here,
exactly; all else by math-verify. What that takes as equal:

  1/2, \frac{1}{2}, 0.5 and 50\%; 0.333333 and 1/3, by six places
  12, 12\%, 12 cm, \$12 and x = 12: units do not count
  1,234 and 1234; {1, 2}, {2, 1} and 2, 1
  what SymPy can simplify to the same; letters whatever their case

and as different: 0.333 and 1/3; (1, 2) and (2, 1); [1, 2) and [1, 2]; x = 5 and y = 5; 1 and 1, 2. Not known to it:
the base of a number, so that 101_2 is 101; whether (1, 2) is a point or an interval; that x \le 2 is right where
(-\infty, 2] was asked for, though it knows the reverse; two equations of one line.

A comparison runs in a process of its own with 2 GB of memory, and has --cpu-time seconds of CPU time, whatever else the
machine does; what does not end by then is wrong. A right answer that cannot even be read in that time gives null.
Formulas are parsed by a grammar. No text of an answer is evaluated as Python.

number: the last number of the last box, or of the text. A fraction a/b is a number; units and percent signs do not
count. --tolerance 0.05 allows a relative difference of 5 %.

choice: a letter, from A to J or as many as there are `options` (or `choices`). The first of these that gives one:

  the last box, with a letter or with the text of an option
  "answer is B", "Answer: B", "option B", "choose B", "B is correct"
  a line that is a letter
  lines that begin with one, "B. 12" or "(B) 12", if all have the same
  the last letter in brackets
  all of the text, or its last line, if it is the text of an option

A small letter counts in a box, in brackets, or alone in a line. The right answer is a letter, the text of an option,
or, where there are options, the number of one from 0.

exact: what the last box holds, or all of the text, is the right answer, after Unicode normalisation (NFKC), white space
and what --ignore names aside. Punctuation is ignored at both ends only: -3.5 and 35 stay different.

contains: the right answer stands in the text, on whole words, without regard to case, articles and punctuation; the
rule cem-word of step-reward(1).
"""


@command(
    "answer-check",
    system="LayerCast",
    reads=view(
        CheckedAnswer,
        *("id", "text", "response", "golden_answers", "answers", "reward_model", "answer", "options", "choices"),
    ),
    adds=field_types(CheckedAnswer, "correct", "extracted", "correct_why"),
    key=("id", "sample", "config"),
    epilog="See text-rollout(1), group-advantage(1), toolroll-records(5).",
)
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    default="math",
    show_default=True,
    help="What the answers are: formulas and numbers; a number; the letter of an option; a text; a text that stands in "
    "the model's.",
)
@click.option("--field", metavar="NAME", help="The field with the model's text. [default: text, else response]")
@click.option(
    "--cpu-time",
    type=click.FloatRange(min=0, min_open=True, max=3600),
    default=5.0,
    show_default=True,
    metavar="SECONDS",
    help="math: CPU time of one comparison.",
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    metavar="FRACTION",
    help="number: relative difference that is allowed.",
)
@click.option(
    "--ignore",
    default="case,punctuation",
    show_default=True,
    metavar="WHAT,...",
    help="exact: what does not count: case, punctuation (at both ends), articles (a, an, the); none.",
)
def main(
    rows: Iterator[Row[Any]], *, kind: Kind, field: str | None, cpu_time: float, tolerance: float, ignore: str, log: Log
) -> Iterator[Row[Any]]:
    """Tell whether the answers of a model are right.

    Reads the model's `text` or `response` and the right `answer`, adds `correct`, `extracted` and `correct_why`.
    """
    from toolroll.checking import checker
    from toolroll.checking.golden import golden_answers

    unknown = 0
    with checker(kind, timeout_s=cpu_time, tolerance=tolerance, ignore=_ignored(ignore)) as check:

        def checked(row: Row[Any]) -> Row[Any]:
            nonlocal unknown
            seen = row.view
            options = seen.choices if seen.options is None else seen.options
            found = check(_text(row, field), golden_answers(seen), options)
            unknown += found.correct is None
            return row.add(correct=found.correct, extracted=found.extracted, correct_why=found.why)

        yield from each(rows, checked)
    if unknown:
        log.warn(f"rows without a right answer that can be compared with: {unknown} (`correct` is null)")


def _text(row: Row[Any], field: str | None) -> str:
    """The model's text."""
    if field is None:
        text = row.view.response if row.view.text is None else row.view.text
    else:
        text = row.fields().get(field)
    if not isinstance(text, str):
        raise RowError("no `text` and no `response`" if field is None else f"no text in `{field}`")
    return text


def _ignored(names: str) -> tuple[Ignored, ...]:
    wanted = [name for name in names.replace(" ", "").split(",") if name not in ("", "none")]
    for name in wanted:
        if name not in IGNORED:
            raise UsageError(f"`{name}` is none of {', '.join(IGNORED)}, none", place="--ignore")
    return tuple(name for name in IGNORED if name in wanted)
