"""spy-replay: show games of who is the spy on a page.

The page: toolroll.spygame.replay.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from toolroll.cli import command, uses_images
from toolroll.errors import RowError
from toolroll.records import field_types, view
from toolroll.records.spygame import SpyGame, SpyPair, SpyTurn, SpyTurnRow, SpyVote
from toolroll.records.world import Boxes, ImagePair

if TYPE_CHECKING:
    from toolroll.io.rows import Row
    from toolroll.run.log import Log
    from toolroll.run.rows import Rows

EXAMPLES = """
  A page about a game without a model, to open in a browser:
    pair-make scenes -n 1 --size 96x72 --out . | spy-game --model rules --spy-image modified -o games.jsonl
    spy-replay games.jsonl > games.html
  With what clues and votes were worth:
    spy-reward --advantages games.jsonl | spy-replay --images . > worth.html
"""

NOTES = """
The page is one file that loads nothing and runs no script, light or dark as the browser is. On top: how many games,
who won, how good the votes were, for each pair of models that played. Then each game: what the civilians and the spy
saw, the clues round by round, what each player thought (folded), the votes against the truth, the tally, and rewards
and advantages where spy-reward has added them. In scenes with a modified picture, frames mark what differs.

All that models wrote is escaped.

Paths of pictures are relative to the folder of the games' file, or to --images. What comes from stdin is in the current
folder. A picture that is missing or broken is told on the page and on stderr; the page is made all the same.

Games that failed are shown as far as they were played, and so are rows that fail here under --on-error skip or keep.
"""

_TURN = view(
    SpyTurn, *("stage", "round", "player", "role", "images", "response", "thinking", "clue", "vote", "vote_number")
)
_GAME = view(
    SpyGame,
    *("id", "sample", "n_players", "spy", "spy_image", "spy_model", "civ_model", "policy_version", "seed", "winner"),
    *("rewards", "advantages", "baselines"),
)
_READS = msgspec.defstruct(
    "SpyGame",
    [
        ("votes", list[SpyVote] | None, None),
        ("turns", list[_TURN] | None, None),  # type: ignore[valid-type]
        ("stage", field_types(SpyTurnRow, "stage")["stage"] | None, None),
        *((name, field_types(SpyPair, name)[name], None) for name in ("original", "modified")),
        *((name, field_types(ImagePair, name)[name] | None, None) for name in ("width", "height")),
        ("boxes", Boxes | None, None),
    ],
    bases=(_GAME,),
    kw_only=True,
    frozen=True,
    gc=False,
)


class _Failed(msgspec.Struct):
    error: dict[str, Any] = {}


@command(
    "spy-replay",
    system="Vision-Zero",
    reads=_READS,
    reducer=True,
    document=True,
    sees_errors=True,
    epilog="See spy-game(1), spy-reward(1), spy-stats(1), toolroll-records(5).",
)
@uses_images
@click.option("--no-images", is_flag=True, help="A page without pictures.")
@click.option(
    "--shown",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    metavar="N",
    help="Show at most N games; the summary is of all.",
)
def main(rows: Rows[Any], *, images: Path | None, no_images: bool, shown: int, log: Log) -> Iterator[str]:
    """Show games of who is the spy on a page.

    Reads games as spy-game writes them, with rewards or without; writes one HTML page with pictures, clues, thoughts,
    votes and who won.
    """
    from toolroll.spygame.replay import Replay
    from toolroll.spygame.replay_game import Album

    replay = Replay(Album(images, not no_images, log.warn), shown)
    for row in rows:
        if row.failed:
            replay.add_failed(*_failed(row))
            continue
        try:
            replay.add(row.view, row.place)
        except RowError as error:
            rows.refuse(row, error.why)
            replay.add_failed(row.view, error.why, row.place)
    yield from replay.page()


def _failed(row: Row[Any]) -> tuple[Any, str, str]:
    """What is known of a game that failed, which may be nothing, why it did, and where it was read."""
    try:
        error = msgspec.json.decode(row.raw, type=_Failed).error
    except msgspec.MsgspecError:
        error = {}
    try:
        seen = msgspec.json.decode(row.raw, type=_READS)
    except msgspec.MsgspecError:
        seen = None
    return seen, str(error.get("why", "failed")), row.place
