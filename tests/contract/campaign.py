"""Kills commands at random moments, has them go on, and compares what comes out with a run that nobody killed.

    make faults                                   500 kills over all commands that can go on
    python tests/contract/campaign.py --kills 40 --seed 3 text-rollout pmp-train

A *round* is one output: some kills, each at a moment drawn from as long as a whole run takes, then a run to the end.
All that is left must have the bytes of the whole run, and nothing else may lie there. The moments come from the seed,
what they hit from how busy the machine is. It says what differed, and ends with 1 if anything did.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import frame

ROWS = 40
FEWER = {"dpo-train": 12, "policy-train": 12, "kv-eval": 8, "kv-dump": 8, "layercast-run": 8, "pmp-seg": 4, "vprune": 8}
IDLE = 20  #: rounds without a kill, after which no more are tried
A_ROUND = 4  #: most kills of one output
GOES_ON = {"pmp-train", "nvs-train"}  #: by the folder that they train in, without --resume
MORE = {
    "dpo-train": ("--batch-rows", "2"),
    "image-rollout": ("--samples", "3"),
    "nvs-train": ("--save-every", "1"),
    "pmp-train": ("--steps", "4", "--save-every", "1"),
    "policy-train": ("--batch-rows", "2"),
    "text-rollout": ("--samples", "3"),
}  #: so that there is more than one thing to do


def subjects() -> list[frame.Command]:
    """The commands that can go on where they were killed."""
    return [
        command
        for command in frame.COMMANDS
        if command.name in GOES_ON or any(param.name == "resume" for param in command.tool.params)
    ]


def line(command: frame.Command, folder: Path) -> list[str]:
    """The same line each time, so that it goes on, where the command can."""
    made = str(folder / "made")
    own = [arg.replace("{dir}", str(folder)).replace("{new}", made) for arg in command.specimen.args]
    more = [*MORE.get(command.name, ())]
    if command.name not in GOES_ON:
        more += [command.rows_option, "out.jsonl"]
    if any(param.name == "resume" for param in command.tool.params):
        more += ["--resume"]
    inputs = ["in.jsonl"] if command.specimen.row is not None else []
    return [*command.argv, *own, *more, *inputs, *([made] if command.specimen.names_output else [])]


def furnish(command: frame.Command, folder: Path) -> None:
    """An empty folder with what the command reads."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, data in command.specimen.files:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    if command.specimen.row is not None:
        (folder / "in.jsonl").write_bytes(command.lines(FEWER.get(command.name, ROWS)))


def found(command: frame.Command, folder: Path) -> dict[str, bytes]:
    """The files that a finished run has left, but for what tells when it ran, and where training stands."""
    given = {name for name, _ in command.specimen.files} | {"in.jsonl"}
    files = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        aside = name in given or name.endswith(".meta.json") or "state" in path.relative_to(folder).parts
        if path.is_file() and not aside:
            files[name] = path.read_bytes()
    return files


@dataclass
class Tally:
    """What happened to a command."""

    kills: int = 0
    rounds: int = 0
    differed: tuple[str, ...] = ()

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.kills + other.kills, self.rounds + other.rounds, self.differed + other.differed)


class Campaign:
    """Rounds in folders below `room`; what a whole run of a command gives is kept."""

    def __init__(self, room: Path, seed: int) -> None:
        self.room, self.seed = room, seed
        self._whole: dict[str, tuple[float, dict[str, bytes]]] = {}

    def whole(self, command: frame.Command) -> tuple[float, dict[str, bytes]]:
        """How long a run takes that nobody kills, in seconds, and what it leaves."""
        if command.name not in self._whole:
            folder = self.anew(command)
            start = time.monotonic()
            result = frame.run(line(command, folder), cwd=folder)
            assert result.rc == 0, f"{command.name}: {result.err}"
            self._whole[command.name] = time.monotonic() - start, found(command, folder)
        return self._whole[command.name]

    def anew(self, command: frame.Command) -> Path:
        """The folder that a whole run had, as it was before."""
        folder = self.room / command.name / "work"  # always the same: paths stand in what some commands write
        furnish(command, folder)
        return folder

    def round(self, command: frame.Command, number: int, most: int) -> Tally:
        """Up to `most` kills of one output, and what became of it."""
        seconds, wanted = self.whole(command)
        moments = random.Random(f"{self.seed} {command.name} {number}")
        folder = self.anew(command)
        kills = 0
        for _ in range(most):
            start = time.monotonic()
            if not self._killed(command, folder, moments.uniform(0, seconds)):
                self._whole[command.name] = min(seconds, time.monotonic() - start), wanted  # it was quicker this time
                break
            kills += 1
        last = frame.run(line(command, folder), cwd=folder)
        place = f"{command.name} round {number}"
        if last.rc != 0:
            return Tally(kills, 1, (f"{place}: {last.err.strip()}",))
        left = found(command, folder)
        names = sorted(name for name in {*wanted, *left} if wanted.get(name) != left.get(name))
        return Tally(kills, 1, (f"{place}: {', '.join(names)}",) if names else ())

    def _killed(self, command: frame.Command, folder: Path, after: float) -> bool:
        with frame.started(line(command, folder), cwd=folder, stdin=None) as process:
            end = time.monotonic() + after
            while process.poll() is None and time.monotonic() < end:
                time.sleep(min(0.01, max(0.0, end - time.monotonic())))
            process.kill()
            return process.wait() == -9


def waged(campaign: Campaign, commands: Sequence[frame.Command], kills: int, until: float) -> Iterator[Tally]:
    """Rounds over all commands in turn, until there were so many kills, or the clock says `until`."""
    done = number = idle = 0
    while done < kills:
        before = done
        for command in commands:
            if done >= kills or time.monotonic() > until:
                return
            tally = campaign.round(command, number, min(A_ROUND, kills - done))
            done += tally.kills
            yield tally
        number += 1
        idle = idle + 1 if done == before else 0
        assert idle < IDLE, "nothing could be killed"


def main() -> int:
    """Wage it and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("names", nargs="*", metavar="COMMAND")
    asked = parser.parse_args()
    chosen = [one for one in subjects() if not asked.names or one.name in asked.names]
    total = Tally()
    with tempfile.TemporaryDirectory(prefix="campaign-") as room:
        campaign = Campaign(Path(room), asked.seed)
        for tally in waged(campaign, chosen, asked.kills, time.monotonic() + 60 * asked.minutes):
            total += tally
            for told in tally.differed:
                print(f"differs: {told}", flush=True)
            if total.rounds % len(chosen) == 0:
                print(f"{total.kills} kills, {total.rounds} rounds, {len(total.differed)} differ", flush=True)
    print(
        f"in all: {total.kills} kills over {len(chosen)} commands, {total.rounds} rounds, {len(total.differed)} differ"
    )
    return int(bool(total.differed) or total.kills < asked.kills)


if __name__ == "__main__":
    sys.exit(main())
