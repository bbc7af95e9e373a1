"""kk-reward: score answers to Knights and Knaves puzzles.

One row in, one row out, in order, nothing held back: memory stays flat.
Paper: arXiv:2504.09710, section 4.1; the rules are in toolroll.curriculum.knights_reward.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import command, each
from toolroll.records import view
from toolroll.records.curriculum import AnsweredPuzzle, PuzzleReward

if TYPE_CHECKING:
    from toolroll.curriculum.knights_reward import Credit, Form
    from toolroll.io.rows import Row

EXAMPLES = """
  The reward of an answer that names a liar rightly, and has not the form that is asked for:
    kk-make --people 2 -n 1 | jq -c '.response = .answer' | kk-reward > scored.jsonl
  The paper's reward of eight answers to each puzzle, and their advantages:
    text-rollout TRAIN.jsonl --prompt-file PROMPT.txt --samples 8 | kk-reward | group-advantage --group-size 8
  A small model, which writes an answer block at most, is paid for every person it gets right:
    kk-reward --credit people ROLLOUTS.jsonl > scored.jsonl
  The prompt ends with the tag that opens the thought:
    kk-reward --opening '<think>' ROLLOUTS.jsonl > scored.jsonl
"""

NOTES = """
`total` is format + outcome, from -3 to 3:

  format   1 if the response has the form, else -1
  outcome  2 if each person is named once, and rightly; -1.5 if one is named
           wrongly; -2 if the answer cannot be read or the form is wrong

So a response is worth 3, -0.5, -1 or -3. With --credit people the outcome is -1.5 + 3.5 c / n for c of n people named
rightly, and -2 if nobody is named. With --answer-format none, format is 0 and `total` goes from -2 to 2.

The form think-answer: each of <think>, </think>, <answer>, </answer> is there exactly once, in this order, and nothing
but white space, or one <|im_end|>, follows. What stands before and between the blocks does not matter. The form answer
asks the same of the answer block alone. The answer is what the block holds. With none, it is what the last answer block
holds; without one that is closed, what follows the first <answer>; without that, what follows the last </think>; else
all of the response.

An answer is read as claims. A claim is a name; `is`, `was`, `must be`, perhaps with `not`, or one of the signs : = - ->
and (; perhaps a word like `indeed`; perhaps an article; and `knight` or `knave`. Case, quotation marks and emphasis do
not matter, nor do numbers before the name. `a knight or a knave` claims nothing. The answer can be read if every person
is claimed to be one thing and `knight` and `knave` stand there no more often than there are people. Otherwise, by
--credit people, a person counts who is claimed to be one thing and never the other.

`problem` is null or the first of these that holds:

  no_think multi_think think_unclosed no_answer multi_answer answer_unclosed
  wrong_order text_after_answer contradiction missing extra

The first eight are of the form. contradiction: a person is called both; missing: a person is not named; extra: someone
else is, or someone twice.

A row may have `names` and `solution`, as kk-make and the paper's generator write them, or verl's `reward_model` with
`ground_truth`, as the paper's training files have it. A row with neither is an error, never a zero. In `response` is
what text-rollout writes, the text of --prefill included.
"""


@command(
    "kk-reward",
    system="DUMP",
    reads=view(AnsweredPuzzle, "id", "response", "names", "solution", "reward_model"),
    adds={"reward": PuzzleReward},
    epilog="See kk-make(1), text-rollout(1), group-advantage(1), toolroll-records(5).",
)
@click.option(
    "--credit",
    type=click.Choice(["all", "people"]),
    default="all",
    show_default=True,
    help="Pay for an answer that is right about all people, or for each person it is right about.",
)
@click.option(
    "--answer-format",
    type=click.Choice(["think-answer", "answer", "none"]),
    help="The form that is asked for: a thought and an answer, an answer, or none. [default: think-answer; none with "
    "--credit people]",
)
@click.option(
    "--opening",
    default="",
    metavar="TEXT",
    help="Text that belongs before every response, because the prompt ends with it; not added where it is there.",
)
def main(rows: Iterator[Row[Any]], *, credit: Credit, opening: str, **options: Any) -> Iterator[Row[Any]]:
    """Score answers to Knights and Knaves puzzles.

    Reads `response` and the puzzle's `names` and `solution`, adds `reward` with its parts and what the answer was read
    as. By default it is the paper's reward.
    """
    from toolroll.curriculum.knights_reward import reward
    from toolroll.curriculum.knights_rows import known_puzzle

    form: Form = options["answer_format"] or ("think-answer" if credit == "all" else "none")

    def scored(row: Row[Any]) -> Row[Any]:
        names, solution, _ = known_puzzle(row.view)
        response = row.view.response
        if not response.startswith(opening):
            response = opening + response
        return row.add(reward=reward(response, names, solution, form=form, credit=credit))

    return each(rows, scored)
