"""A small model that sees, learning from games of who is the spy and from questions, all in one process.

What spy-game, spy-reward, pair-quiz, image-rollout, answer-check, group-advantage and policy-train do one after the
other in pipelines/vision-zero.sh, on the same code and without a restart between them.
"""

from __future__ import annotations

import fcntl
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import orjson

from toolroll.checking.plain import normal
from toolroll.errors import RowError
from toolroll.io.rows import Row
from toolroll.models.base import Sampling
from toolroll.models.device import choose_device
from toolroll.models.picture_rollouts import answer_fields
from toolroll.models.pictures import Request
from toolroll.models.pictures_hf import HFPictures
from toolroll.models.vision import load_image_text
from toolroll.run.seeds import record_seed
from toolroll.spygame.game import Game, Rules, Voters
from toolroll.spygame.pictures import Pictures
from toolroll.spygame.play import Match, Seats, game_fields, play
from toolroll.spygame.players import ModelPlayer
from toolroll.spygame.prompts import Templates
from toolroll.spygame.scoring import Scorer, Worth, checked_votes
from toolroll.spygame.stats import Sums
from toolroll.tools.spy_game import main as spy_game
from toolroll.tools.spy_reward import main as spy_reward
from toolroll.train.advantage import RoleBaselines, grpo
from toolroll.train.grouping import RoleState
from toolroll.train.objective import Objective
from toolroll.train.options import TrainOptions
from toolroll.train.sample import Demands
from toolroll.train.setup import open_reference, open_trainer
from toolroll.train.update import PolicyUpdate
from toolroll.world import game
from toolroll.world.quiz import KINDS, Quiz

IGNORED = frozenset(("case", "punctuation"))
Fields = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """How games are played and questions asked."""

    civilians: int
    rounds: int
    judge_votes: int  #: of a judge; 0 lets the civilians vote
    spy_image: str
    tokens: int  #: longest answer
    temperature: float
    questions: int  #: about each pair
    samples: int  #: answers to each question, in training


def pictures(folder: Path, count: int, held_out: int, size: str) -> tuple[Sequence[bytes], Sequence[bytes]]:
    """Rows of pairs to train on and of others to examine with, made where they are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    made = []
    with open(folder / "lock", "w") as lock:  # several runs may begin at once
        fcntl.flock(lock, fcntl.LOCK_EX)
        for name, number, seed in (("train", count, 0), ("held-out", held_out, 1)):
            rows = folder / f"{name}-{size}-{number}.jsonl"
            if not rows.exists():
                settings = ["-n", str(number), "--size", size, "--name", f"{name}-{size}", "--seed", str(seed), "-q"]
                make = [str(Path(sys.executable).with_name("pair-make")), "scenes", *settings]
                subprocess.run([*make, "--out", "images", "-o", rows.name, "--no-meta"], cwd=folder, check=True)
            made.append(rows.read_bytes().splitlines())
    return made[0], made[1]


class Pupil:
    """A model in training, and the frozen one that it began as; both play, one learns."""

    def __init__(self, source: str, table: Table, folder: Path, *, rate: float, kl: float, seed: int) -> None:
        self.table, self.folder, self.seed = table, folder, seed
        objective = Objective(temperature=table.temperature, kl_coef=kl)
        self.trainer = open_trainer(TrainOptions(lr=rate, device="cpu"), source, seed=seed)
        reference = open_reference(self.trainer, source, table.temperature) if kl else None
        self.update = PolicyUpdate(self.trainer, objective, seed=seed, reference=reference)
        self.demands = Demands(objective, self.trainer.vocabulary, processor=self.trainer.processor)
        frozen = load_image_text(source, replace(choose_device("cpu"), dtype="float32"))
        self.engine = HFPictures(replace(frozen, model=self.trainer.model))
        self.players = {"pupil": self._player(self.engine), "start": self._player(HFPictures(frozen))}
        self.steps = self.left_out = 0

    def _player(self, engine: HFPictures) -> ModelPlayer:
        sampling = Sampling(temperature=self.table.temperature, max_tokens=self.table.tokens, seed=0)
        return ModelPlayer(engine, Templates(game.CLUE, game.VOTE), sampling)

    def games(self, lines: Iterable[bytes], seed: int, *, spy: str = "pupil", civilians: str = "pupil") -> list[Fields]:
        """A game for each pair, as rows of spy-game."""
        seats = Seats(
            {"spy": self.players[spy], "civilians": self.players[civilians]}, {"spy": None, "civilians": None}
        )
        table = self.table
        voters: Voters = "judge" if table.judge_votes else "civilians"
        rules = Rules(table.civilians + 1, table.rounds, voters, max(1, table.judge_votes))
        finder = Pictures(table.spy_image, self.folder)  # type: ignore[arg-type]
        matches = []
        for number, line in enumerate(lines):
            row: Row[Any] = Row(line, msgspec.convert(orjson.loads(line), spy_game.contract.reads), number)
            matches.append(Match(row, 0, Game(rules, record_seed(seed, row.view.id)), finder.pair(row.view, "")))
        play(matches, seats, status=lambda _: None, stopped=lambda: False)
        rows = [
            {
                "id": match.row.view.id,
                **game_fields(match, seats, spy_image=table.spy_image, undecided="spy"),
                "why": match.why,
            }
            for match in matches
        ]
        if failed := next((row["why"] for row in rows if row["why"]), None):
            raise SystemExit(f"a game failed: {failed}")
        return rows

    def answers(self, lines: Iterable[bytes], seed: int, *, count: int, samples: int, greedy: bool) -> list[Fields]:
        """Answers to `count` questions about each pair, `samples` to each, with `correct`."""
        quiz = Quiz(count, KINDS["scenes"], "original", seed)
        reads = spy_game.contract.reads
        items = [item for line in lines for item in quiz.about(msgspec.convert(orjson.loads(line), reads))]
        asked, requests = [], []
        for item in items:
            for sample in range(samples):
                sampling = Sampling(
                    temperature=0.0 if greedy else self.table.temperature,
                    max_tokens=16,
                    seed=record_seed(seed, item["id"], sample),
                )
                files = [self.folder / name for name in item["images"]]
                requests.append(Request([{"role": "user", "content": item["prompt"]}], sampling, files))
                asked.append(item)
        made = []
        for item, request, answer in zip(asked, requests, self.engine.answer(requests), strict=True):
            if isinstance(answer, Exception):
                raise answer
            right = normal(answer.text, IGNORED) == normal(item["answer"], IGNORED)
            made.append({**item, **answer_fields(self.engine, request, answer), "correct": int(right)})
        return made

    def learn(self, rows: Sequence[Fields]) -> dict[str, float | None]:
        """One update from rows with advantages; its figures."""
        blank = dict.fromkeys(("reward", "images", "prompt", "logprobs", "ref_logprobs"))
        samples = []
        for row in rows:
            try:
                samples.append(self.demands.sample(SimpleNamespace(**{**blank, **row}), self.folder))
            except RowError:  # as policy-train: a row that cannot be trained on is left out
                self.left_out += 1
        self.steps += 1
        return self.update.run(samples, self.steps)

    def close(self) -> None:
        """Free the models."""
        for player in self.players.values():
            player.close()


class Values:
    """Turns games and answers into rows to learn from; the baselines of roles go on from step to step."""

    def __init__(self, *, rae: bool) -> None:
        self._clues = Scorer(
            Worth(advantages=True, clues="rae" if rae else "raw"), RoleState(None, RoleBaselines(alpha=0.95))
        )
        self._votes = Scorer(Worth(advantages=True, clues="raw"), RoleState(None, RoleBaselines()))

    def of_games(self, games: Iterable[Fields], stage: str) -> list[Fields]:
        """The turns of a stage, with their advantages."""
        scorer = self._clues if stage == "clue" else self._votes
        rows = []
        for fields in games:
            seen = msgspec.convert(fields, spy_reward.contract.reads)
            rows += [turn for turn in scorer.turns(seen, fields) if turn["stage"] == stage]
        return rows

    @staticmethod
    def of_answers(answers: Sequence[Fields], samples: int) -> list[Fields]:
        """The answers with the advantages of their groups of `samples`."""
        rows = []
        for start in range(0, len(answers), samples):
            group = answers[start : start + samples]
            worth = grpo([float(row["correct"]) for row in group], spread="population")
            rows += [{**row, "advantage": advantage} for row, advantage in zip(group, worth, strict=True)]
        return rows


def summed(games: Iterable[Fields]) -> dict[str, Any]:
    """The games in numbers, as spy-stats tells them."""
    sums = Sums()
    for fields in games:
        seen = msgspec.convert(fields, spy_reward.contract.reads)
        sums.add(seen.n_players, seen.spy, [(voter, vote) for voter, vote, _ in checked_votes(seen)])
    return sums.report()
