"""spy-reward: say what the clues and votes of games of who is the spy are worth.

Rewards: toolroll.spygame.rewards. Paper: arXiv:2509.25541, equations 1, 2, 4 and 5.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from toolroll.cli import command
from toolroll.errors import RowError, UsageError
from toolroll.records import field_types
from toolroll.records.spygame import SpyGame, SpyPair, SpyTurnRow, SpyVote

if TYPE_CHECKING:
    from toolroll.io.rows import Row
    from toolroll.run.rows import Rows

EXAMPLES = """
  What games were worth:
    pair-make scenes -n 2 --size 96x72 --out images -o pairs.jsonl
    spy-game --model rules --spy-image modified pairs.jsonl -o games.jsonl
    spy-reward games.jsonl > rewarded.jsonl
  Rows to train on, one a clue, each role's clues against its own running mean, kept from one run to the next:
    spy-reward --turns --stage clue --advantages --state roles.json games.jsonl > train.jsonl
  The same of rows that are turns already, with the authors' numbers:
    spy-game --model rules --turns pairs.jsonl | spy-reward --preset code --advantages > turns.jsonl
"""

NOTES = """
Clues. With v_s votes for the spy, v_j for civilian j of n, and v the mean of the v_j: the spy gets -beta (v_s - v),
civilian j beta (v_s - v) / n - lambda (v_j - v). All rewards of a game add up to 0. Votes for nobody and votes that
cannot be read count for nobody; a vote for oneself counts. All clues of a player have the same reward.

Votes. --preset paper: 1 for the spy, -0.5 for N/A, -1 for another, or if it cannot be read. code: with a that number
and f 1 or 0 for `format_ok`, 0.3 (2 f - 1) + 1.2 a + 0.99 [a > 0]; a vote without `format_ok` is taken for
well-formed. The spy's own vote, which only the authors' older game has, is 0.5 for another player, 0.2 for N/A, -1 for
itself; that one that cannot be read is -1, too, is a guess. A number that is no player's cannot be read, either.

--advantages: of a clue, its reward less the running mean b of its role's, which learns from each game by
b <- alpha b + (1 - alpha) mean reward of the role, before (--order post, paper and code) or after (pre, SPIRAL) it is
used. Of a vote, (r - mean) / (sd + 1e-8) over the votes of the game, only centred where all are within 1e-8; --lone
says what a vote gets that is alone. group-advantage can do both from rows of turns, too:
--estimator rae --group game_id for clues, --std population --eps 1e-8 for votes.

The last 100,000 games are known by id, sample, draw, seed and policy version, and count once each, so that rows of
turns and of games go together. A game without `id` is another one than any. --state keeps means and games in a file, so
that rows may be sent again; there, games need an `id`. It is written at the end, and whenever there is nothing to read
for the moment, and refuses another --alpha or --order than it began with.

A row with `stage` is a turn, as `spy-game --turns` writes it; any other is a game.

--also adds to `rewards` what the authors' code names but its game does not use: clevr_decision_accuracy (of each
vote), clevr_decision_format (of each vote), clevr_clue_format and clevr_clue_format_with_votes (of each clue),
calculate_game_rewards (of each player; wants a vote of every player). The clue formats look for words, of lists that
are not the authors'.
"""

_ALPHA = {"paper": 0.95, "code": 0.9}
_LONE = {"paper": "zero", "code": "reward"}
_HINTS = {**field_types(SpyTurnRow, *SpyTurnRow.__struct_fields__), **field_types(SpyPair, "draw")}
_READ = ("id", "sample", "draw", "seed", "policy_version", "n_players", "rounds", "spy", "player", "vote_number")
_READS = msgspec.defstruct(
    "SpyGame",
    [
        *((name, _HINTS[name] | None if name == "seed" else _HINTS[name], None) for name in _READ),
        ("votes", list[SpyVote] | None, None),
        ("stage", _HINTS["stage"] | None, None),
        *((name, _HINTS[name], None) for name in ("game_id", "game_seed", "game_version")),
    ],
    kw_only=True,
    frozen=True,
    gc=False,
)


@command(
    "spy-reward",
    system="Vision-Zero",
    reads=_READS,
    adds={
        **field_types(SpyGame, "rewards", "advantages", "baselines"),
        **field_types(SpyTurnRow, "role", "reward", "advantage", "group_size"),
    },
    expands=True,
    epilog="See spy-game(1), spy-switch(1), group-advantage(1), policy-train(1), toolroll-records(5).",
)
@click.option(
    "--preset",
    type=click.Choice(["paper", "code"]),
    default="paper",
    show_default=True,
    help="Rewards of votes, and defaults of other options, as in the paper or in its code.",
)
@click.option(
    "--beta",
    type=click.FloatRange(min=0),
    default=0.1,
    show_default=True,
    help="What a vote for the spy costs the spy, and brings the civilians together.",
)
@click.option(
    "--lambda",
    "lam",
    type=click.FloatRange(min=0),
    default=0.1,
    show_default=True,
    help="What a vote above the mean costs a civilian.",
)
@click.option("--turns", "as_turns", is_flag=True, help="Write the turns of games as rows of their own.")
@click.option(
    "--stage", type=click.Choice(["clue", "decision"]), help="With --turns: write the turns of this stage only."
)
@click.option("--advantages", is_flag=True, help="Also turn the rewards into advantages.")
@click.option(
    "--clue-advantage",
    "clues",
    type=click.Choice(["rae", "raw"]),
    default="rae",
    show_default=True,
    help="Of clues: the reward less the running mean of its role, or the reward itself.",
)
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1, max_open=True),
    help="Share of the old mean that a game leaves.  [default: 0.95; code 0.9]",
)
@click.option(
    "--order",
    type=click.Choice(["post", "pre"]),
    default="post",
    show_default=True,
    help="Subtract the mean after or before it has learned from the game.",
)
@click.option(
    "--std",
    "spread",
    type=click.Choice(["population", "sample", "none"]),
    default="population",
    show_default=True,
    help="Of votes: the standard deviation with G or with G - 1, or rewards as they are.",
)
@click.option(
    "--lone",
    type=click.Choice(["zero", "reward"]),
    help="The advantage of a vote that is alone in its game: 0, or its reward.  [default: zero; code reward]",
)
@click.option("--state", type=click.Path(path_type=Path), metavar="FILE", help="Keep the running means here.")
@click.option(
    "--also",
    multiple=True,
    type=click.Choice(
        [
            *("clevr_decision_accuracy", "clevr_decision_format", "clevr_clue_format", "clevr_clue_format_with_votes"),
            "calculate_game_rewards",
        ]
    ),
    help="A reward that the authors' code names, besides. Repeatable.",
)
def main(
    rows: Rows[Any],
    *,
    preset: Any,
    as_turns: bool,
    stage: str | None,
    alpha: float | None,
    order: Any,
    lone: str | None,
    state: Path | None,
    **options: Any,
) -> Iterator[Row[Any]]:
    """Say what the clues and votes of games of who is the spy are worth.

    Reads games with `n_players`, `spy` and `votes`, and adds `rewards`: `clue` of each player, `decision` of each vote.
    Reads turns, too, and adds their `reward`.
    """
    from toolroll.spygame.scoring import Scorer, Worth
    from toolroll.train.advantage import RoleBaselines
    from toolroll.train.grouping import RoleState

    if state is not None and not (options["advantages"] and options["clues"] == "rae"):
        raise UsageError("goes with --advantages and --clue-advantage rae", place="--state")
    if stage is not None and not as_turns:
        raise UsageError("goes with --turns", place="--stage")
    if as_turns and options["also"]:
        raise UsageError("is about games, not about turns", place="--also")
    keep_lone = (_LONE[preset] if lone is None else lone) == "reward"
    roles = RoleBaselines(_ALPHA[preset] if alpha is None else alpha, order)
    scorer = Scorer(Worth(rule=preset, keep_lone=keep_lone, **options), RoleState(state, roles))
    known = len(scorer.state.games)
    try:
        for row in rows:
            yield from _valued(row, scorer, rows, as_turns=as_turns, stage=stage)
            if state is not None and len(scorer.state.games) != known and not rows.ready():
                scorer.state.save()
                known = len(scorer.state.games)
    finally:
        scorer.state.save()


def _valued(row: Row[Any], scorer: Any, rows: Rows[Any], *, as_turns: bool, stage: str | None) -> Iterator[Row[Any]]:
    seen = row.view
    if stage is not None and seen.stage not in (None, stage):
        return
    try:
        if as_turns and seen.stage is None:
            from toolroll.spygame.turns import row_of

            for turn in scorer.turns(seen, row.fields()):
                if stage in (None, turn["stage"]) and not rows.done(turn["id"], turn["sample"]):
                    yield row_of(row, turn)
            return
        made = row.add(**(scorer.game(seen, row.fields) if seen.stage is None else scorer.turn(seen)))
    except RowError as error:
        made = row.fail(error.why)
    if not rows.written(row):
        yield made
