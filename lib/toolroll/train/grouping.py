"""Rows to groups, groups to advantages: what group-advantage does."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from toolroll.errors import RowError, ToolrollError, UsageError
from toolroll.io.filesystem import put
from toolroll.io.rows import Row
from toolroll.run.log import Log
from toolroll.run.rows import Rows
from toolroll.train.advantage import RoleBaselines, centred, grpo, leave_one_out

Key = tuple[Any, ...]
_GAMES = 100_000  # whose baselines are remembered


@dataclass(slots=True)
class Group:
    """The rows of a group so far, and the reward and role of each that has not failed."""

    rows: list[Row[Any]] = field(default_factory=list)
    rewards: list[float | None] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    held_bytes: int = 0


class RoleState:
    """Baselines of roles in a file, and what each game of the last ones got, so that no game counts twice."""

    def __init__(self, path: Path | None, roles: RoleBaselines) -> None:
        self.path = path
        self.roles = roles
        self.games: dict[str, dict[str, float]] = {}
        if path is not None and path.exists():
            self._read(path)

    def baselines(self, name: str | None, game: list[tuple[str, float]]) -> dict[str, float]:
        """What the players (role, reward) of the game `name` are compared with. One without a name always counts."""
        if name is not None and name in self.games:
            return self.games[name]
        before = dict(self.roles.baselines or {})
        self.roles.advantages(game)
        used = dict(self.roles.baselines or {}) if self.roles.order == "post" else before
        if name is not None:
            self.games[name] = used
            while len(self.games) > _GAMES:
                del self.games[next(iter(self.games))]
        return used

    def advantages(self, name: str, game: list[tuple[str, float]]) -> list[float]:
        """Advantages of the players (role, reward) of the game `name`."""
        return self.roles.given(game, self.baselines(name, game))

    def save(self) -> None:
        """Write the file, whole or not at all."""
        if self.path is None:
            return
        record = {
            "alpha": self.roles.alpha,
            "order": self.roles.order,
            "baselines": self.roles.baselines or {},
            "games": self.games,
        }
        put(self.path, msgspec.json.encode(record) + b"\n")

    def _read(self, path: Path) -> None:
        try:
            record = msgspec.json.decode(path.read_bytes(), type=_RoleRecord)
        except (OSError, msgspec.MsgspecError) as error:
            raise ToolrollError(f"cannot be read as baselines: {error}", place=str(path)) from error
        for name in ("alpha", "order"):
            was, now = getattr(record, name), getattr(self.roles, name)
            if was != now:
                raise UsageError(f"was {was} in {path}, is {now} now", place=f"--{name}")
        self.roles.baselines = record.baselines
        self.games = record.games


class _RoleRecord(msgspec.Struct):
    alpha: float
    order: str
    baselines: dict[str, float]
    games: dict[str, dict[str, float]]


class Grouping:
    """One run of group-advantage; the options are the command's."""

    def __init__(self, rows: Rows[Any], *, log: Log, **options: Any) -> None:
        self.rows = rows
        self.log = log
        self.options = options
        self.names = tuple(filter(None, options["group"].split(",")))
        self.path = options["reward_path"].split(".")
        self.open: dict[Key, Group] = {}
        self.held_bytes = 0
        self.incomplete = self.dropped = 0
        self.is_rae = options["estimator"] == "rae"
        if options["state"] and not self.is_rae:
            raise UsageError("goes with --estimator rae", place="--state")
        if options["group_size"] and options["consecutive"]:
            raise UsageError("a group is complete by its size or by its neighbour", place="--consecutive")
        roles = RoleBaselines(options["alpha"], options["order"])
        self.roles = RoleState(options["state"], roles) if self.is_rae else None

    def run(self) -> Iterator[Row[Any]]:
        """Rows with advantages, a group at a time."""
        try:
            yield from self._released()
        finally:
            if self.roles is not None:
                self.roles.save()
        for count, what in ((self.incomplete, "incomplete groups"), (self.dropped, "groups of equal rewards left out")):
            if count:
                self.log.warn(f"{count} {what}")

    def _released(self) -> Iterator[Row[Any]]:
        size = self.options["group_size"]
        current: Key | None = None
        for row in self.rows:
            key = self._key(row)
            if self.options["consecutive"] and current is not None and key != current and current in self.open:
                yield from self._release(current)
            current = key
            group = self.open.setdefault(key, Group())
            try:
                self._put(group, row)
            except RowError as error:
                self._put(group, row.fail(error.why), failed=True)
            if len(group.rows) == size:
                yield from self._release(key)
            self._check_memory()
        if self.rows.cut:
            return
        for key in list(self.open):
            if size:
                self.incomplete += 1
                if self.options["incomplete"] == "drop":
                    continue
            yield from self._release(key)

    def _put(self, group: Group, row: Row[Any], *, failed: bool = False) -> None:
        failed = failed or row.failed
        reward = None if failed else self._reward(row)
        role = self._role(row) if self.is_rae and not failed else ""
        group.rows.append(row)
        group.rewards.append(reward)
        group.roles.append(role)
        group.held_bytes += len(row.raw)
        self.held_bytes += len(row.raw)

    def _release(self, key: Key) -> Iterator[Row[Any]]:
        group = self.open.pop(key)
        self.held_bytes -= group.held_bytes
        good = [(role, reward) for role, reward in zip(group.roles, group.rewards, strict=True) if reward is not None]
        found = self._advantages(key, good)
        if self.options["zero_variance"] == "drop" and not any(found):
            self.dropped += 1
            return
        advantages = iter(found)
        for row, reward in zip(group.rows, group.rewards, strict=True):
            made = row if reward is None else row.add(advantage=next(advantages), group_size=len(good))
            if row.failed or not self.rows.written(row):  # the frame has looked at failed ones already
                yield made

    def _advantages(self, key: Key, good: list[tuple[str, float]]) -> list[float]:
        rewards = [reward for _, reward in good]
        if self.roles is not None:
            return self.roles.advantages("\x1f".join(map(str, key)), good)
        estimator = self.options["estimator"]
        if estimator == "grpo":
            return grpo(rewards, spread=self.options["std"], eps=self.options["eps"])
        if estimator == "raw":
            return rewards
        return centred(rewards) if estimator == "dr-grpo" else leave_one_out(rewards)

    def _key(self, row: Row[Any]) -> Key:
        if not row.failed and self.names == ("prompt_id", "draw"):
            seen = row.view
            return (seen.id if seen.prompt_id is None else seen.prompt_id, seen.draw)
        try:
            fields = row.fields()
        except msgspec.MsgspecError:
            fields = {}
        key = tuple(fields.get(name, fields.get("id") if name == "prompt_id" else None) for name in self.names)
        return tuple(msgspec.json.encode(part) if isinstance(part, list | dict) else part for part in key)

    def _reward(self, row: Row[Any]) -> float:
        value: Any = row.view.reward if self.path == ["reward"] else _at(row.fields(), self.path)
        if isinstance(value, dict):
            value = value.get("total")
        if value is None or isinstance(value, bool) or not isinstance(value, int | float):
            raise RowError(f"no number at `{'.'.join(self.path)}`")
        if not math.isfinite(value):
            raise RowError(f"the reward at `{'.'.join(self.path)}` is not finite")
        return float(value)

    def _role(self, row: Row[Any]) -> str:
        role = _at(row.fields(), self.options["role"].split("."))
        if not isinstance(role, str):
            raise RowError(f"no role at `{self.options['role']}`")
        return role

    def _check_memory(self) -> None:
        most = self.options["max_memory"]
        if most and self.held_bytes > most * 1_000_000:
            raise ToolrollError(
                f"the groups under way hold more than {most} MB; --group-size or --consecutive releases them sooner"
            )


def _at(fields: dict[str, Any], path: list[str]) -> Any:
    value: Any = fields
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
