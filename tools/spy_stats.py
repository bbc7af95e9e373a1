"""spy-stats: sum up games of who is the spy: who won, how good the votes were.

Sums: toolroll.spygame.stats.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click
import msgspec

from toolroll.cli import command, offers_table
from toolroll.errors import RowError
from toolroll.records import field_types, view
from toolroll.records.spygame import SpyGame, SpyStats, SpyTurn, SpyTurnRow, SpyVote

if TYPE_CHECKING:
    from toolroll.run.rows import Rows

EXAMPLES = """
  All games of an iteration, for spy-switch:
    pair-make scenes -n 2 --size 96x72 --out images |
      spy-game --model rules --spy-image modified -o games.jsonl
    spy-stats games.jsonl | spy-switch --state stage.json
  Win rates of a policy against the model that it began as, on either side:
    spy-stats --by spy_model,civ_model --table AS-SPY.jsonl AS-CIVILIANS.jsonl
  Iteration by iteration, where rows say of which they are:
    spy-stats --by step GAMES.jsonl
"""

NOTES = """
spy_win_rate, civilian_win_rate: shares of games. The civilians win when the spy has more votes than any other player,
the spy when another has; --undecided says who wins when several have most, or nobody any, which the paper leaves open.
accuracy: share of games in which the spy has most votes. vote_accuracy, na_share, invalid_share: shares of votes that
name the spy, name nobody (N/A), or cannot be read or name no player; the spy's own vote is not among them.
no_clue_share: share of clues that were missing or empty, in games with their `turns`. A share of nothing is null, and
the number of games, votes or clues stands beside it.

Games that failed are passed over and counted.
"""

_TURN = view(SpyTurn, "stage", "clue")
_READS = msgspec.defstruct(
    "SpyGame",
    [
        ("votes", list[view(SpyVote, "voter", "vote", "format_ok")] | None, None),  # type: ignore[misc]
        ("turns", list[_TURN] | None, None),  # type: ignore[valid-type]
        ("stage", field_types(SpyTurnRow, "stage")["stage"] | None, None),
    ],
    bases=(view(SpyGame, "id", "sample", "n_players", "spy"),),
    kw_only=True,
    frozen=True,
    gc=False,
)


@command(
    "spy-stats",
    system="Vision-Zero",
    reads=_READS,
    reducer=True,
    epilog="See spy-game(1), spy-switch(1), toolroll-records(5).",
)
@click.option("--by", metavar="FIELD,...", default="", help="A row for each combination of these fields of the games.")
@click.option(
    "--undecided",
    type=click.Choice(["spy", "civilians", "nobody"]),
    default="spy",
    show_default=True,
    help="Who wins a game in which no player has more votes than any other.",
)
@offers_table
def main(rows: Rows[Any], *, by: str, undecided: Any, table: bool) -> Iterator[dict[str, Any]]:
    """Sum up games of who is the spy: who won, how good the votes were.

    Reads games with `n_players`, `spy` and `votes`; prints a row over all, or one for each group of --by.
    """
    from toolroll.run.groups import Groups, read_names, values_of
    from toolroll.spygame.scoring import votes_of_game
    from toolroll.spygame.stats import Sums, for_people

    names = read_names(by, SpyStats.__struct_fields__)
    groups = Groups(Sums)
    if not names:
        groups.of(())
    for row in rows:
        seen = row.view
        try:
            votes = [(voter, vote) for voter, vote, _ in votes_of_game(seen)]
            sums = groups.of(values_of(row.fields() if names else {}, names))
        except RowError as error:
            rows.refuse(row, error.why)
            continue
        sums.add(seen.n_players, seen.spy, votes, undecided=undecided)
        sums.hear(turn.clue for turn in seen.turns or () if turn.stage == "clue")
    for values, sums in groups:
        record = {**dict(zip(names, values, strict=True)), **sums.report()}
        yield for_people(record, names) if table else record
