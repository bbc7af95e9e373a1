"""What games of who is the spy cost: scripted ones, their rewards, and those of an image-text model.

    python bench/spygame.py [--games 5000] [--runs 3] [--model sprite] [--model-games 32] [--json FILE]

Scripted games and rewards: CPU time of the whole command, beside an orjson loop that decodes and encodes these games.
A model's games: the wall clock, in one process on the same pairs, the model loaded and warmed up. In one batch, each
turn of all games is; one after the other, a game's votes are one batch still, and its clues come one by one.
The games are the paper's, but with the modified image; answers have at most 60 tokens.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import common
import msgspec
import orjson
import rows
from common import Line

from toolroll.io.rows import Row
from toolroll.models.base import Sampling
from toolroll.models.open import open_image_text
from toolroll.spygame.game import Game, Rules
from toolroll.spygame.pictures import Pictures
from toolroll.spygame.play import Match, Seats, play
from toolroll.spygame.players import ModelPlayer
from toolroll.spygame.prompts import Templates
from toolroll.tools.spy_game import main as spy_game
from toolroll.world import game

PAIRS = 25
RULES = ("--model", "rules", "--spy-image", "modified", "--no-meta", "-q")


def made_pairs(folder: Path) -> Path:
    """Pairs of scenes with their pictures."""
    pairs = folder / "pairs.jsonl"
    argv = ["scenes", "-n", PAIRS, "--size", "128x96", "--out", folder, "-o", pairs, "-q"]
    common.cost([common.BIN / "pair-make", *argv], runs=1)
    return pairs


def scripted(pairs: Path, folder: Path, asked: argparse.Namespace) -> Iterator[Line]:
    """Games by rules, and what spy-reward makes of them."""
    samples = max(1, asked.games // PAIRS)
    games = samples * PAIRS
    for preset in ("code", "paper"):
        out = folder / "games.jsonl"
        argv = [*RULES, "--preset", preset, "--samples", samples, pairs, "-o", out]
        used = common.cost([common.BIN / "spy-game", *argv], runs=asked.runs)
        yield Line(f"scripted games, {preset}", "games/CPU s", games / used.cpu_s)
    loop = common.cost([*rows.ORJSON_LOOP, out], runs=asked.runs)
    for more in ((), ("--advantages",)):
        used = common.cost([common.BIN / "spy-reward", *more, out], runs=asked.runs)
        what = " ".join(["spy-reward", *more])
        yield Line(what, "CPU µs/game", 1e6 * used.cpu_s / games, "orjson loop", 1e6 * loop.cpu_s / games)


def modelled(pairs: Path, asked: argparse.Namespace) -> Line:
    """Games of a model: one after the other, and each turn of all at once."""
    engine = open_image_text(model=asked.model, device="cpu")
    player = ModelPlayer(engine, Templates(game.CLUE, game.VOTE), Sampling(temperature=0.8, max_tokens=60, seed=0))
    seats = Seats({"spy": player, "civilians": player}, {"spy": None, "civilians": None})

    def played(count: int) -> list[Match]:
        found = matches(pairs, count)
        play(found, seats, status=lambda _: None, stopped=lambda: False)
        if failed := [match.why for match in found if match.why]:
            raise SystemExit(f"{len(failed)} of {count} games failed: {failed[0]}")
        return found

    played(2)
    few = max(1, asked.model_games // 8)
    start = time.perf_counter()
    for match in matches(pairs, few):
        play([match], seats, status=lambda _: None, stopped=lambda: False)
    alone_s = time.perf_counter() - start
    start = time.perf_counter()
    played(asked.model_games)
    together_s = time.perf_counter() - start
    seats.close()
    rate, alone = asked.model_games / together_s, few / alone_s
    return Line("a model's games, each turn one batch", "games/s", rate, "one game after the other", alone)


def matches(pairs: Path, count: int) -> list[Match]:
    """Games to play, of each pair one until there are enough."""
    pictures, view = Pictures("modified", pairs.parent), spy_game.contract.reads
    found: list[Match] = []
    lines: Sequence[bytes] = pairs.read_bytes().splitlines()
    for number in range(count):
        line = lines[number % len(lines)]
        row: Row[Any] = Row(line, msgspec.convert(orjson.loads(line), view), number, str(pairs), 1)
        match = Match(row, number, Game(Rules(n_players=5), seed=number))
        match.pair = pictures.pair(row.view, row.place)
        found.append(match)
    return found


def measure(asked: argparse.Namespace) -> list[Line]:
    """All lines."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pairs = made_pairs(folder)
        return [*scripted(pairs, folder, asked), modelled(pairs, asked)]


if __name__ == "__main__":
    common.run(__doc__, measure, games=5000, runs=3, model="sprite", model_games=32)
