"""Rows to batches: what to train on, what came before, what failed, and what a curriculum is told."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec

from toolroll.errors import RowError
from toolroll.io.decoding import key_reader
from toolroll.io.rows import Row
from toolroll.models.images import folder_of
from toolroll.run.rows import Rows
from toolroll.train.checkpoint import Consumed
from toolroll.train.policy import version_number
from toolroll.train.sample import Demands, Sample

_read_prompt = key_reader(("prompt_id", "id", "draw"))


@dataclass
class Batch:
    """The rows of one update. `draws` counts the prompts they are answers to, failed ones included."""

    samples: list[Sample] = field(default_factory=list)
    groups: list[tuple[Any, str | None]] = field(default_factory=list)  #: (prompt id, draw) and arm of each sample
    digests: list[bytes] = field(default_factory=list)
    draws: int = 0
    n_failed: int = 0
    n_stale: int = 0
    n_long: int = 0

    @property
    def n_tokens(self) -> int:
        """Tokens the model wrote."""
        return sum(sum(sample.mask) for sample in self.samples)

    def feedback(self, step: int, *, rewards: bool = False) -> list[dict[str, Any]]:
        """What a curriculum learns from the batch (`records.Feedback`): a row for each prompt that has an arm."""
        found: dict[Any, dict[str, Any]] = {}
        for sample, (key, arm) in zip(self.samples, self.groups, strict=True):
            if arm is None:
                continue
            name = "#".join(str(part) for part in (*key, step) if part is not None)
            record = found.setdefault(
                key, {"id": name, "distribution": arm, "rewards" if rewards else "advantages": [], "step": step}
            )
            if rewards:
                record["rewards"].append(sample.reward)
            else:
                record["advantages"].append(sample.advantage)
        return list(found.values())


@dataclass
class Feed:
    """An iterator over batches of `size` rows. A row that failed or is left out counts, so that no loop waits for it.

    `step` is the number of updates made so far; whoever takes a batch keeps it up to date. Rows of a version more than
    `max_stale` updates older are left out; so are those of more than `max_tokens`, or they are refused. Images are in
    the folder `images`, else in that of their row's file.
    """

    rows: Rows[Any]
    size: int
    consumed: Consumed
    demands: Demands
    step: int = 0
    max_stale: int | None = None
    max_tokens: int = 8192
    on_long: Literal["skip", "fail"] = "skip"
    on_partial: Literal["train", "drop"] = "train"
    images: Path | None = None
    n_new: int = 0
    n_left: int = 0
    n_stale: int = 0
    n_long: int = 0

    def __iter__(self) -> Iterator[Batch]:
        before: set[Any] = set()
        batch, prompts = Batch(), set[Any]()
        for row in self.rows:
            digest = self.consumed.digest(row.raw)
            if self.consumed.knows(digest):
                continue
            self.n_new += 1
            batch.digests.append(digest)
            prompts |= self._take(row, batch)
            if len(batch.digests) == self.size:
                batch.draws = max(1, len(prompts - before))
                yield batch
                before, batch, prompts = prompts, Batch(), set()
        self.n_left = len(batch.digests)
        if batch.digests and self.on_partial == "train" and not self.rows.cut:
            self.n_left = 0
            batch.draws = max(1, len(prompts - before))
            yield batch

    def _take(self, row: Row[Any], batch: Batch) -> set[Any]:
        """Put a row into the batch, or count why not; the prompt it belongs to, as a set."""
        if row.failed:
            batch.n_failed += 1
            return _prompt_of(row.raw)
        view = row.view
        key = _key(view.prompt_id, view.id, view.draw)
        try:
            if self._is_stale(view.policy_version):
                batch.n_stale += 1
                self.n_stale += 1
            elif len(view.prompt_ids or ()) + len(view.response_ids or ()) > self.max_tokens:
                if self.on_long == "fail":
                    raise RowError(f"longer than --max-tokens {self.max_tokens}")
                batch.n_long += 1
                self.n_long += 1
            else:
                folder = self.images or folder_of(row.place)
                batch.samples.append(self.demands.sample(view, folder))
                batch.groups.append((key, view.distribution))
        except RowError as error:
            self.rows.refuse(row, error.why)
            batch.n_failed += 1
        return {key} if key[0] is not None else set()

    def _is_stale(self, version: str | None) -> bool:
        if self.max_stale is None or version is None:
            return False
        number = version_number(version)
        return number is not None and self.step - number > self.max_stale


def _key(prompt_id: Any, row_id: Any, draw: int | None) -> tuple[Any, int | None]:
    return (row_id if prompt_id is None else prompt_id, draw)


def _prompt_of(line: bytes) -> set[Any]:
    """The prompt of a row that failed, as far as it can be read."""
    try:
        found = [msgspec.json.decode(part) if part else None for part in _read_prompt(line)]
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return set()
    key = _key(*found)
    return {key} if isinstance(key[0], str | int) and isinstance(key[1], int | None) else set()
