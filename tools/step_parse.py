"""step-parse: take trajectories apart into steps and say what is wrong with them.

One row in, one row out, in order, nothing held back: memory stays flat.
Paper: arXiv:2510.07794, section 3.1 and algorithms 2 and 3; the checkers are in toolroll.rag.parse.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import command, each
from toolroll.records import field_types, view
from toolroll.records.rag import Parsed
from toolroll.records.rollouts import Trajectory

if TYPE_CHECKING:
    from toolroll.io.rows import Row
    from toolroll.rag.parse import Strictness

EXAMPLES = """
  What a trajectory is made of:
    echo '{"id": "q1", "response": "<think><step><reasoning>I know it.</reasoning><conclusion>Paris.</conclusion></step>
      </think><answer>Paris</answer>"}' | tr -d '\\n' | step-parse
  Parse rollouts, keep the well-formed ones:
    step-parse ROLLOUTS.jsonl | jq -c 'select(.format_valid)'
  Which checks would the authors' training code have failed?
    step-parse --strictness release ROLLOUTS.jsonl | jq -c '.format_problems'
"""

NOTES = """
The paper's algorithms 2 and 3 are known here by their verdicts on crafted cases, not by their text: that
paper-literal is what they say is inferred. release, eval and regex reproduce the released code.

A trajectory in which rag-rollout had to tell the model that a turn was neither a search nor an answer
(`invalid_actions`) is malformed, as it is for the released code, whose notice quotes tags.

The codes of `format_problems`:

  no_think multi_think think_unclosed text_before_think text_after_answer no_step
  step_unclosed stray_text unknown_tag stray_tag missing_reasoning missing_conclusion
  tag_unclosed duplicate_tag wrong_order nested_step empty_query empty_context
  search_without_context context_without_search no_answer answer_unclosed
  multi_answer empty_answer answer_in_think truncated invalid_action
"""


@command(
    "step-parse",
    system="HiPRAG",
    reads=view(Trajectory, "response", "finish", "dialect", "invalid_actions", required=("response",)),
    adds=field_types(Parsed, "steps", "answer", "format_valid", "format_strictness", "format_problems"),
    epilog="See toolroll-records(5), rag-rollout(1), step-reward(1).",
)
@click.option(
    "--strictness",
    type=click.Choice(["paper", "release", "regex", "eval", "paper-literal"]),
    default="paper",
    show_default=True,
    help="Which checker decides `format_valid`. paper: the paper's algorithms, and empty queries, contexts and answers "
    "are invalid; paper-literal: without that addition; release, eval, regex: the three in the released code.",
)
@click.option(
    "--dialect",
    type=click.Choice(["auto", "hiprag", "search-r1", "r1-searcher"]),
    default="auto",
    show_default=True,
    help="The tags in use; auto takes the row's own `dialect`, else hiprag.",
)
def main(rows: Iterator[Row[Any]], *, strictness: Strictness, dialect: str) -> Iterator[Row[Any]]:
    """Take trajectories apart into steps and say what is wrong with them.

    Reads `response`, adds `steps`, `answer`, `format_valid`, `format_strictness` and `format_problems`.
    Every problem is reported with its code and place, not just the first; steps that can be parsed
    are given also when the trajectory is malformed. Only the response is parsed, never the prompt.
    """
    from toolroll.rag.parse import parse

    def parsed(row: Row[Any]) -> Row[Any]:
        tags = (row.view.dialect or "hiprag") if dialect == "auto" else dialect
        result = parse(
            row.view.response, dialect=tags, strictness=strictness, truncated=row.view.finish == "token_limit"
        )
        if row.view.invalid_actions:
            result.problems.append({"code": "invalid_action", "span": [0, len(row.view.response)], "step": None})
        return row.add(
            steps=result.steps,
            answer=result.answer,
            format_valid=result.valid and not row.view.invalid_actions,
            format_strictness=strictness,
            format_problems=result.problems,
        )

    return each(rows, parsed)
