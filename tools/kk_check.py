"""kk-check: check that the stored solution of a Knights and Knaves puzzle is its only one.

One row in, one row out, in order, nothing held back: memory stays flat.
Grammar and solving: toolroll.curriculum.knights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from toolroll.cli import command, each
from toolroll.errors import RowError
from toolroll.records import field_types, view
from toolroll.records.curriculum import StoredPuzzle

if TYPE_CHECKING:
    from toolroll.io.rows import Row

EXAMPLES = """
  Is a file of puzzles sound?
    kk-make --people 3 -n 20 -o puzzles.jsonl
    kk-check puzzles.jsonl > checked.jsonl
  Keep the sound ones, collect the others with what is wrong with them:
    kk-check --on-error skip -e unsound.jsonl puzzles.jsonl > sound.jsonl
"""

NOTES = """
A puzzle is sound if exactly one assignment of knights and knaves fits all of its `statements` and that is its
`solution`. All 2^n assignments of n people are looked at, up to 20 people. A row that is not sound fails; where its
statements could be read it has `n_solutions` all the same. The words of the puzzle are not looked at.

The grammar of the statements is in kk-make(1). Their text is read token by token against it and never evaluated;
anything else in it, more than 16 levels or more than 50,000 characters make the row fail.

A row may have `names`, `solution` and `statements`, as kk-make and the paper's generator write them, or verl's
`reward_model` with `ground_truth`, as the paper's training files have it.
"""


@command(
    "kk-check",
    system="DUMP",
    reads=view(StoredPuzzle, "id", "names", "solution", "statements", "reward_model"),
    adds=field_types(StoredPuzzle, "n_solutions"),
    epilog="See kk-make(1), kk-reward(1), toolroll-records(5).",
)
def main(rows: Iterator[Row[Any]]) -> Iterator[Row[Any]]:
    """Check that the stored solution of a Knights and Knaves puzzle is its only one.

    Adds `n_solutions`, which is 1; a puzzle with no solution, with several, or with another than the stored one fails.
    """
    from toolroll.curriculum.knights import parse_statements, solution_table, unsound
    from toolroll.curriculum.knights_rows import known_puzzle

    def checked(row: Row[Any]) -> Row[Any]:
        known = known_puzzle(row.view)
        text = row.view.statements if row.view.statements is not None else known.statements
        if text is None:
            raise RowError("no `statements`")
        table = solution_table(parse_statements(text, len(known.names)))
        row = row.add(n_solutions=table.bit_count())
        why = unsound(table, known.names, known.solution)
        return row.fail(why) if why else row

    return each(rows, checked)
