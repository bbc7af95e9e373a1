"""What a packed cache changes: the model's answers, and how probable the same tokens are to it.

Every cache reads the same prompts. Then the tokens of a reference, or those that the model writes with a dense cache,
are read behind them, and at each the probabilities are compared with those by the dense cache.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from toolroll.errors import RowError
from toolroll.io.rows import Row
from toolroll.kvcache.cache import cache_name, packed_attention
from toolroll.kvcache.caches import Compared, compared, held_bytes
from toolroll.kvcache.running import Prompts, Read
from toolroll.kvcache.spans import Mask
from toolroll.models.padded import Asked, Written

if TYPE_CHECKING:
    from toolroll.run.log import Log
    from toolroll.run.rows import Rows


@dataclass(frozen=True, slots=True)
class Wanted:
    """A prompt, its tokens to pack, and the tokens behind it that are compared; None: those the model writes."""

    asked: Asked
    mask: Mask
    reference: Sequence[int] | None = None


@dataclass(frozen=True, slots=True)
class Comparing:
    """Compares `caches` over rows. `read` gives a row's prompt and its tokens to pack; RowError where it cannot."""

    prompts: Prompts
    read: Callable[[Row[Any]], tuple[Asked, Mask]]
    caches: Sequence[Compared]
    beams: int = 1
    timings: bool = False

    def run(self, rows: Rows[Any], count: int, stopped: Callable[[], bool], log: Log) -> Iterator[Row[Any]]:
        """A row for each prompt and cache, `count` prompts at a time; one that cannot be read fails once.

        A batch of which an earlier run wrote some is read again, so that padding is the same.
        """
        dense = next((one for one in self.caches if one.name == "dense"), None)
        dense = dense or compared("dense", self.prompts.model.config)
        while batch := list(islice(rows, count)):
            wanted = [self._wanted(row) for row in batch]
            names = [one.name for one in self.caches]
            new = [[name for name in names if not rows.done(row.view.id, name)] for row in batch]
            log.counts.skipped += len(names) * len(batch) - sum(map(len, new))
            jobs = [one for one in wanted if isinstance(one, Wanted)]
            made: list[dict[str, Any]] = []
            if jobs and any(new):
                if stopped():
                    return
                made = list(
                    evaluate(self.prompts, jobs, self.caches, dense=dense, beams=self.beams, timings=self.timings)
                )
                if len(made) < len(jobs) * len(names):
                    return  # it was stopped
            place = 0
            for row, one, missing in zip(batch, wanted, new, strict=True):
                if isinstance(one, str):
                    if names[0] in missing:
                        yield row.fail(one, cache=names[0])
                    continue
                for fields in made[place :: len(jobs)]:
                    if fields["cache"] in missing:
                        failed = fields.get("failed")
                        yield row.fail(failed, cache=fields["cache"]) if failed else row.add(**fields)
                place += 1

    def _wanted(self, row: Row[Any]) -> Wanted | str:
        """What is asked of the model, or why nothing can be."""
        try:
            asked, mask = self.read(row)
        except RowError as error:
            return error.why
        if row.view.reference is None:
            return Wanted(asked, mask)
        given = self.prompts.encode(row.view.reference)
        if not given:
            return "the reference is empty"
        longest = len(asked.ids) + len(given)
        if self.prompts.most is not None and longest > self.prompts.most:
            return f"prompt and reference have {longest} tokens: the model's limit is {self.prompts.most}"
        return Wanted(asked, mask, given)


def evaluate(
    prompts: Prompts, batch: Sequence[Wanted], caches: Sequence[Compared], *, dense: Compared, beams: int, timings: bool
) -> Iterator[dict[str, Any]]:
    """For each cache, and for each prompt of a batch, fields of a row. Ends early when the prompts are stopped.

    A prompt that gives what is no number has `failed` in place of them, which says so. `dense` is what others are
    compared with, whether among `caches` or not.
    """
    prompts.masks = [one.mask for one in batch]
    asked = [one.asked for one in batch]
    with packed_attention(prompts.model):
        prompts.make = dense.make
        first = prompts.read(asked)
        again = dense in caches and beams == 1 and not timings  # times are taken when all is warm
        own: list[Written] | None = [Written()] * len(batch)
        if again or any(one.reference is None for one in batch):
            own = prompts.write_behind(first.forked(), asked)
        if own is None:
            return
        given = [list(two.ids if one.reference is None else one.reference) for one, two in zip(batch, own, strict=True)]
        exact, dense_bytes = logits_at(prompts, first, given)
        for cache in caches:
            prompts.make = cache.make
            made: tuple[list[Written], list[Tensor], int, float] | None = (own, exact, dense_bytes, 0.0)
            if cache is not dense or not again:
                with cache.at_work():
                    made = _with(prompts, cache, asked, given, beams)
            if made is None:
                return
            answers, found, held, seconds = made
            if cache is dense:
                found, held = exact, dense_bytes
            steps = sum(len(one.ids) for one in answers)
            for place, one in enumerate(batch):
                sound = not any(bool(part[place].isnan().any()) for part in (exact, found))
                if own[place].failed or answers[place].failed or not sound:
                    yield {"cache": cache.name, "failed": "the model's output is not a number"}
                    continue
                row = {
                    "cache": cache.name,
                    "response": prompts.text(answers[place].ids),
                    "n_tokens": len(answers[place].ids),
                    **compare(exact[place], found[place], given[place]),
                    "kv_tokens": len(one.asked.ids),
                    "kv_visual_tokens": int(one.mask.sum()),
                    "kv_bytes": round(held / len(batch)),
                    "kv_ratio": held / dense_bytes,
                }
                yield {**row, "ms_per_token": 1000 * seconds / max(1, steps)} if timings else row


def _with(
    prompts: Prompts, cache: Compared, asked: Sequence[Asked], given: Sequence[Sequence[int]], beams: int
) -> tuple[list[Written], list[Tensor], int, float] | None:
    """Answers, `logits_at` and the seconds that the answers took, reading included; None when it was stopped.

    Prompts are read once for both, but for beams and for a foreign cache, which are not to be forked.
    """
    once = beams == 1 and not cache.foreign
    started = time.perf_counter()
    read = prompts.read(asked) if once else None
    answers = write(prompts, asked, beams) if read is None else prompts.write_behind(read.forked(), asked)
    seconds = time.perf_counter() - started
    if answers is None:
        return None
    return answers, *logits_at(prompts, read or prompts.read(asked), given), seconds


def logits_at(prompts: Prompts, read: Read, given: Sequence[Sequence[int]]) -> tuple[list[Tensor], int]:
    """Logits [t, V] by which each of the given tokens is chosen, and the bytes of the cache behind the prompts."""
    held = held_bytes(read.cache)
    longest = max(map(len, given))
    if longest < 2:
        return [read.logits[b : b + 1, :][: len(one)] for b, one in enumerate(given)], held
    ids = torch.tensor([[*one[:-1], *[0] * (longest - max(1, len(one)))] for one in given], device=read.mask.device)
    logits = torch.cat([read.logits[:, None], prompts.follow(read, ids)], 1)
    return [logits[b, : len(one)] for b, one in enumerate(given)], held


def write(prompts: Prompts, asked: Sequence[Asked], beams: int) -> list[Written] | None:
    """Answers, greedy or by the best of some beams; None when it was stopped."""
    if beams == 1:
        return prompts.write(asked)
    ids, mask, features = prompts.prepared(asked)
    ends = sorted(prompts.ends)
    with torch.inference_mode():
        made = prompts.model.generate(
            input_ids=ids,
            attention_mask=mask,
            **{cache_name(prompts.model): prompts.new_cache()},
            **features,
            num_beams=beams,
            do_sample=False,
            max_new_tokens=asked[0].sampling.max_tokens,
            pad_token_id=0,
            eos_token_id=ends or None,
        )
    answers = [row[ids.shape[1] :] for row in made.tolist()]
    return [Written(ids=_cut(one, prompts.ends)) for one in answers]


def _cut(ids: list[int], ends: frozenset[int]) -> list[int]:
    """Up to the token that ends it."""
    last = next((place for place, one in enumerate(ids) if one in ends), len(ids) - 1)
    return ids[: last + 1]


def compare(exact: Tensor, found: Tensor, ids: Sequence[int]) -> dict[str, Any]:
    """Logits [t, V] by a dense cache and by another, at tokens `ids` [t], as numbers; null without tokens.

    kl is KL(exact || found) in nats, perplexity exp of the mean negative log-probability of the tokens.
    """
    if not ids:
        return dict.fromkeys(("kl", "top1_frac", "nll", "perplexity", "nll_dense"))
    p, q = (one.double().log_softmax(-1) for one in (exact, found))
    at = torch.tensor(ids, device=p.device)[:, None]
    nll, nll_dense = (-float(one.gather(1, at).mean()) for one in (q, p))
    return {
        "kl": max(0.0, float((p.exp() * (p - q)).sum(-1).mean())),
        "top1_frac": float((exact.argmax(-1) == found.argmax(-1)).double().mean()),
        "nll": nll,
        "perplexity": math.exp(min(nll, 700.0)),
        "nll_dense": nll_dense,
    }
