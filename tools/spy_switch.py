"""spy-switch: say which stage of the game of who is the spy to train next, clues or decisions.

Holds two averages and a count. Rule: toolroll.spygame.switch. Paper: arXiv:2509.25541, equations 7 to 10, algorithm 1.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import command
from toolroll.errors import RowError, ToolrollError
from toolroll.records import field_types, view
from toolroll.records.spygame import SpyIteration, SpyStage

if TYPE_CHECKING:
    from toolroll.run.log import Log
    from toolroll.run.rows import Rows
    from toolroll.spygame.switch import Switch

EXAMPLES = """
  After each iteration of a training loop, by its accuracy and its share of N/A:
    printf '{"step": %s, "accuracy": %s, "na_share": 0.05}\\n' 1 0.7 2 0.95 3 0.97 | spy-switch --state stage.json
  Where it stands, before the first iteration or later:
    spy-switch --state stage.json --current < /dev/null
  By the games it was trained on, or by others:
    spy-stats GAMES.jsonl | spy-switch --state stage.json | jq -r .stage
"""

NOTES = """
A row is an iteration: `accuracy`, the share of games in which the spy got more votes than any other, and `na_share`,
the share of votes for nobody, as spy-stats writes them. Both are averaged, e <- rho e + (1 - rho) x from e = 0.
Training begins with decisions (--first-stage).

--rule threshold: from decisions to clues when the average accuracy is at least --clue-accuracy and that of N/A at most
--clue-na; back when 1 minus the average accuracy is at least --decision-error or that of N/A at least --decision-na;
neither before --min-dwell iterations in a stage. After --patience iterations in a stage it changes in any case; 0
never does that. The averages go on when the stage changes. `why` tells what changed it: accuracy, error, na, patience,
cycle. `dwell` counts the iterations in the stage that the row belongs to.

As the averages begin at 0, the first change by accuracy comes at iteration 45 or later with the default numbers, and
not at all where the accuracy stays at 0.9 or below; --ema-debias divides them by 1 - rho^t.

The paper's algorithm applies the dwell time to both conditions for leaving clues in its text and to one in its listing;
here it is both. Its table has a patience of 20 that its listing does not use; what that does here is a guess.

--rule cycle: --cycle-length iterations of each stage in turn, as the authors' code does; the shares change nothing.

--state keeps all that in a file, so that a process for each row gives the same as one for all. A row whose `step` is
not above the last one's changes nothing and gives no row, so the rows of a process that was killed may be sent again; a
row without `step` always counts. The state is written behind the output, and refuses another rule than it began with.
"""

_SHARE = click.FloatRange(0, 1)


@command(
    "spy-switch",
    system="Vision-Zero",
    reads=view(SpyIteration, "step", "accuracy", "na_share"),
    adds=field_types(SpyStage, *SpyStage.__struct_fields__),
    key=("step",),
    slow=True,
    consumes=True,
    epilog="See spy-stats(1), spy-reward(1), policy-train(1), toolroll-records(5).",
)
@click.option(
    "--rule",
    type=click.Choice(["threshold", "cycle"]),
    default="threshold",
    show_default=True,
    help="When to switch. threshold: by accuracy and N/A; cycle: after so many iterations. See NOTES.",
)
@click.option(
    "--first-stage",
    "start",
    type=click.Choice(["decision", "clue"]),
    default="decision",
    show_default=True,
    help="The stage that training begins with.",
)
@click.option(
    "--rho",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.95,
    show_default=True,
    help="Share of the old average that an iteration leaves.",
)
@click.option(
    "--clue-accuracy",
    type=_SHARE,
    default=0.9,
    show_default=True,
    help="Go to clues where the accuracy is at least this.",
)
@click.option(
    "--clue-na", type=_SHARE, default=0.1, show_default=True, help="Go to clues where the share of N/A is at most this."
)
@click.option(
    "--decision-error",
    type=_SHARE,
    default=0.4,
    show_default=True,
    help="Go to decisions where 1 - accuracy is at least this.",
)
@click.option(
    "--decision-na",
    type=_SHARE,
    default=0.5,
    show_default=True,
    help="Go to decisions where the share of N/A is at least this.",
)
@click.option(
    "--min-dwell", type=click.IntRange(min=1), default=5, show_default=True, help="Fewest iterations in a stage."
)
@click.option(
    "--patience",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="Most iterations in a stage; 0 is any.",
)
@click.option("--ema-debias", is_flag=True, help="Make up for averages that begin at 0.")
@click.option(
    "--cycle-length",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="With cycle: iterations of a stage.",
)
@click.option("--state", type=click.Path(path_type=Path), metavar="FILE", help="Go on from here, and keep it here.")
@click.option("--current", is_flag=True, help="Also write where it stands when the input has ended.")
def main(rows: Rows[Any], *, state: Path | None, current: bool, log: Log, **options: Any) -> Iterator[dict[str, Any]]:
    """Say which stage of the game of who is the spy to train next, clues or decisions.

    Reads a row for each iteration, with `accuracy` and `na_share`; writes the stage to train next.
    """
    switch = _begun(options, state)
    for row in rows:
        seen = row.view
        try:
            told = switch.take(seen.accuracy, seen.na_share, seen.step)
        except RowError as error:
            rows.refuse(row, error.why)
            continue
        if told is None:
            continue
        if rows.done(told.step):
            log.counts.skipped += 1
        else:
            yield told._asdict()
        _save(switch, state)
    if current and not rows.cut:
        yield switch.now()._asdict()
    _save(switch, state)


def _begun(options: dict[str, Any], state: Path | None) -> Switch:
    from toolroll.spygame.switch import Rule, Switch

    rule = Rule(**options)
    if state is None or not state.exists():
        return Switch.begun(rule)
    try:
        return Switch.resumed(json.loads(state.read_bytes()), rule)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ToolrollError("no state of spy-switch", place=str(state)) from error
    except ToolrollError as error:
        raise ToolrollError(error.why, place=str(state)) from error


def _save(switch: Switch, state: Path | None) -> None:
    if state is not None:
        from toolroll.io.filesystem import write_atomically

        write_atomically(state, json.dumps(switch.as_dict()).encode() + b"\n")
