"""repro-report: how far the answers of one model differ between configurations that should give the same.

Metrics: toolroll.numerics.divergence. Paper: arXiv:2506.09501.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import click
import msgspec

from toolroll.cli import GroupedOption, command, offers_table, option_group
from toolroll.errors import RowError, ToolrollError, UsageError
from toolroll.records import field_types, view
from toolroll.records.base import said
from toolroll.records.numerics import BatchLine, ReproStats, RunRecord

if TYPE_CHECKING:
    from toolroll.numerics.runs import Runs
    from toolroll.run.log import Log
    from toolroll.run.rows import Rows

EXAMPLES = """
  Answers of one model in batches of two sizes:
    printf '{"id": "q", "config": {"batch_size": %s}, "tokens": [5, %s], "top1_prob": [0.9, 0.5]}\\n' 1 7 2 8 > b.jsonl
    repro-report --table b.jsonl
  Run a model, and see how far it is the same model:
    layercast-run PROMPTS.jsonl --grid batch=1,8,16 precision=bf16,fp32 -o RUNS.jsonl
    repro-report --table RUNS.jsonl
  Pictures, and a page on which the answers stand side by side from where they part:
    repro-report RUNS.jsonl --plot runs.png --html runs.html --tokenizer embedded
  Two runs of the same configuration:
    repro-report --by-file MONDAY.jsonl TUESDAY.jsonl
  The outputs of vLLM's batches, and the tensors that the paper's authors save:
    repro-report BATCH-1.jsonl BATCH-16.jsonl
    repro-report OUTPUTS/vllm_main/*/*/*/*.pt
"""

NOTES = """
What is compared. A configuration is the field `config` of a row: an object, a text such as `precision=bf16 tp=2`, or
any other text. Those with the same --by fields are a group, and each group is a row of the result. A configuration's
name has only the fields in which those of its group differ. Answers are compared with those of the same id and sample.
Problems that not all configurations of a group have are left out, and a note says so. An answer that is there twice is
an error.

Rows need an `id`. What cannot be computed from the other fields is null: lengths need n_tokens or tokens, divergence
needs tokens, std_acc needs correct, avg_std_top1_prob needs tokens and top1_prob (or logprobs, the same where decoding
is greedy), gaps need top2_prob too. With several samples std_acc is the stability of Pass@1.

Metrics. std_acc and mean_accuracy are fractions, div_percent is in percent, lengths and indices are in tokens,
avg_std_top1_prob is a probability; --table has the units of the paper's tables. Standard deviations have n - 1 below
them, which reproduces the paper's tables. Equal values give exactly 0. A problem whose `correct` is null in some
answer counts for no accuracy. Div_Index is the number of tokens that all answers to a problem begin with.
avg_std_top1_prob can only be compared between runs with the same scale of logits: the authors' LayerCast multiplies
them by 1.2, which sharpens every probability.

Other inputs. A line with `custom_id` and `response` is one of an OpenAI batch: it has no ids, so its tokens' texts are
compared, and its configuration is the model and the file's name, in which words field=value are fields. The authors'
.pt files come in pairs, *_token_ids_* and *_logprobs_*; give both or one of them. Their configuration is in their names
and folders. Only tensors are loaded from them: a pickle that does anything else is refused.

--html writes one page that needs no network and runs no script. For each problem that diverges it shows two answers:
those of the configurations that --left and --right choose by their fields, or the first and one that parts from it at
Div_Index. The token at which they part is marked, found by their token ids; --tokenizer has them shown as text. Without
it and without texts of tokens, the mark is at the first character in which the texts differ.

Memory: 16 bytes for each token before a divergence, so a quarter of a GB for 12 configurations of 500 problems of 2,000
tokens that never diverge, and little where they do. --html holds all tokens and texts.
"""

_READS = msgspec.defstruct(
    "Answer",
    [
        ("id", Annotated[str | int | None, said("Names the problem.")], None),
        (
            "config",
            Annotated[dict[str, Any] | str | None, said("How it was computed: an object, or its name.")],
            None,
        ),
        (
            "tokens",
            Annotated[list[int | str] | None, said("Token ids as written, or the tokens' texts.")],
            None,
        ),
        (
            "correct",
            Annotated[bool | Literal[0, 1] | None, said("Whether the answer is right; null where that is not known.")],
            None,
        ),
        *((name, kind, None) for name, kind in field_types(BatchLine, "custom_id", "response").items()),
    ],
    bases=(
        view(
            RunRecord,
            *("sample", "text", "logprobs", "top1_prob", "top2_prob", "n_tokens"),
            *("weight_bytes", "kv_bytes", "ms", "peak_rss_bytes"),
        ),
    ),
    kw_only=True,
    frozen=True,
    gc=False,
)


@dataclass(frozen=True, slots=True)
class PageOptions:
    """What the page of answers shows."""

    html: str | None = None
    left: str | None = None
    right: str | None = None
    tokenizer: str | None = None
    shown: int = 200

    def check(self) -> None:
        """UsageError for options of a page that is not asked for."""
        unused = next((name for name in ("left", "right", "tokenizer") if getattr(self, name) is not None), None)
        if self.html is None and unused is not None:
            raise UsageError("goes with --html", place=f"--{unused}")


def _page_option(*names: str, **settings: Any) -> click.Option:
    return GroupedOption(names, section="A page of answers", **settings)


_PAGE_OPTIONS = [
    _page_option("--html", type=click.Path(), metavar="FILE", help="Write a page with the answers that diverge."),
    _page_option("--left", metavar="'FIELD=VALUE ...'", help="The configuration on the left, by some of its fields."),
    _page_option("--right", metavar="'FIELD=VALUE ...'", help="The configuration on the right."),
    _page_option("--tokenizer", metavar="NAME", help="A folder, hub id or `embedded`: show tokens as its texts."),
    _page_option(
        "--shown",
        type=click.IntRange(min=1),
        default=200,
        show_default=True,
        metavar="N",
        help="Show at most N problems of a group.",
    ),
]


@command(
    "repro-report",
    system="LayerCast",
    reads=_READS,
    adds=field_types(ReproStats, *ReproStats.__struct_fields__),
    key=("group",),
    reducer=True,
    opens={".pt": "toolroll.numerics.authors:lines"},
    epilog="See layercast-run(1), toolroll-records(5).",
)
@click.option(
    "--by",
    default="precision",
    show_default=True,
    metavar="FIELD,...",
    help="Fields of `config`: only configurations with the same values are compared. '' compares all.",
)
@click.option(
    "--ignore",
    default="",
    metavar="FIELD,...",
    help="Fields of `config` that make no other configuration, as versions.",
)
@click.option("--by-file", is_flag=True, help="Make the file that a row is from a field of its configuration.")
@click.option("--same-problems", is_flag=True, help="Fail if a configuration lacks a problem that another has.")
@click.option(
    "--ddof",
    type=click.IntRange(0, 1),
    default=1,
    show_default=True,
    help="For avg_std_top1_prob: divide by n minus this. The paper does not say which.",
)
@click.option(
    "--plot",
    type=click.Path(),
    metavar="FILE",
    help="Draw where answers diverge, gaps and lengths (.png, .svg, .pdf).",
)
@option_group("page", PageOptions, _PAGE_OPTIONS)
@offers_table
def main(
    rows: Rows[Any],
    *,
    by: str,
    ignore: str,
    by_file: bool,
    same_problems: bool,
    ddof: int,
    plot: str | None,
    page: PageOptions,
    table: bool,
    log: Log,
) -> Iterator[dict[str, Any]]:
    """Say how far the answers of a model differ between configurations that should give the same.

    Prints Std@Acc, Avg_Std@Output_Length, Div_Index, Div_Percent, Avg_Std@top1_prob and more, a row a group of
    configurations.
    """
    from toolroll.numerics.answers import answers_of
    from toolroll.numerics.report import for_people, rows_of_report
    from toolroll.numerics.runs import Runs

    page.check()
    runs = Runs(_words(by), _words(ignore), whole=page.html is not None)
    for row in rows:
        try:
            for answer in answers_of(row.view, row.place.rpartition(":")[0], by_file=by_file):
                runs.add(answer, row.place)
        except RowError as error:
            rows.refuse(row, error.why)
    _check(runs, log, same_problems=same_problems)
    report = list(rows_of_report(runs, ddof=ddof))
    if plot is not None:
        from toolroll.numerics.picture import draw

        draw(runs, plot)
    if page.html is not None:
        from toolroll.numerics.page import write_page

        sides = (page.left, page.right)
        write_page(runs, report, page.html, sides=sides, tokenizer=page.tokenizer, most=page.shown, notify=log.note)
    yield from for_people(report) if table else report


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _check(runs: Runs, log: Log, *, same_problems: bool) -> None:
    """Say what the numbers leave out, or fail."""
    for group in runs.groups:
        named = " ".join(f"{name}={value}" for name, value in group.shared.items() if value is not None)
        here = f"{named}: " if named else ""
        if left_out := group.left_out():
            (problem, (sample, lacking)), count = next(iter(left_out.items())), len(left_out)
            which = f"sample {sample} of {problem!r}" if sample else f"{problem!r}"
            some = "1 problem is" if count == 1 else f"{count} problems are"
            why = f"{here}{some} not in all configurations: {which} is not in {runs.names(group)[lacking]}"
            if same_problems:
                raise ToolrollError(why, place="--same-problems")
            log.note(f"{why}; left out")
        if len(group.configs) == 1:
            log.note(f"{here}one configuration only, so nothing is compared (--by-file makes each file one)")
        elif len({dict(config).get("model") for config in group.configs}) > 1 and "model" not in runs.by:
            log.warn(f"{here}answers of several models are compared (--by model,... keeps them apart)")
