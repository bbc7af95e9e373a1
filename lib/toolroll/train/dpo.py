"""Direct preference optimisation of a policy: the order of pairs, reference log-probabilities, updates.

The pairs of an epoch stand in an order that the seed and the epoch determine, so that the number of updates made says
which pairs come next: a run that was killed goes on where its checkpoint stands.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from toolroll.errors import ToolrollError
from toolroll.io.filesystem import write_atomically
from toolroll.run.seeds import record_seed
from toolroll.train.batch import deal
from toolroll.train.head import Scorer
from toolroll.train.losses import dpo_loss
from toolroll.train.pairs import Encoded, answer_logprobs, measured, parts
from toolroll.train.policy import version_name
from toolroll.train.preference import Preference
from toolroll.train.setup import Trainer, frozen_model
from toolroll.train.update import scoring

if TYPE_CHECKING:
    from toolroll.train.session import Session

_STATS = ("loss", "margin", "accuracy", "rewards_chosen", "rewards_rejected")
Reference = tuple[float, float]  #: log-probabilities of the chosen and the rejected answer


def batch_of(step: int, count: int, size: int, seed: int) -> list[int]:
    """Which of `count` pairs update `step`, from 1, is made of: the last of an epoch may have less than `size`.

    >>> sorted(batch_of(1, 5, 3, 0) + batch_of(2, 5, 3, 0)), len(batch_of(4, 5, 3, 0))
    ([0, 1, 2, 3, 4], 2)
    """
    epoch, place = divmod(step - 1, ceil(count / size))
    order = sorted(range(count), key=lambda index: (record_seed(seed, "epoch", epoch, index), index))
    return order[place * size : (place + 1) * size]


def digest_of(pairs: Sequence[Encoded]) -> str:
    """16 hex digits that tell these pairs, in this order, from others."""
    digest = blake2b(digest_size=8)
    for pair in pairs:
        digest.update(repr((pair.prompt, pair.chosen, pair.rejected, [str(p) for p in pair.images])).encode())
        digest.update(repr(pair.weight).encode())
    return digest.hexdigest()


class PairUpdate:
    """Updates of one policy on pairs of which the reference's log-probabilities are known."""

    def __init__(
        self,
        trainer: Trainer,
        preference: Preference,
        pairs: Sequence[Encoded],
        references: Sequence[Reference],
        *,
        seed: int = 0,
    ) -> None:
        self.trainer = trainer
        self.preference = preference
        self.pairs = pairs
        self.references = references
        self.seed = seed
        self.per_epoch = ceil(len(pairs) / preference.batch_rows)
        self.steps = self.per_epoch * preference.epochs

    def run(self, step: int) -> dict[str, Any]:
        """Make update `step`, from 1, of these pairs; its figures."""
        trainer, preference = self.trainer, self.preference
        torch.manual_seed(record_seed(self.seed, "update", step, trainer.team.rank))
        rate = trainer.learner.set_rate(step)
        chosen = batch_of(step, len(self.pairs), preference.batch_rows, self.seed)
        sums = dict.fromkeys(_STATS, 0.0)
        norm = trainer.learner.minimise(self._losses(chosen, sums))
        total = torch.tensor([sums[name] for name in _STATS], dtype=torch.float64, device=trainer.team.device)
        trainer.team.add_up([total])
        means = {name: value / len(chosen) for name, value in zip(_STATS, total.tolist(), strict=True)}
        epoch = ceil(step / self.per_epoch)
        return {"epoch": epoch, "pairs": len(chosen), **means, "grad_norm": norm, "lr": rate}

    def _losses(self, chosen: list[int], sums: dict[str, float]) -> Iterator[Tensor]:
        trainer, preference = self.trainer, self.preference
        for group in own_parts(trainer.team, [self.pairs[i] for i in chosen], preference.micro_tokens):
            pairs = [self.pairs[chosen[place]] for place in group]
            known = torch.tensor([self.references[chosen[place]] for place in group], device=trainer.team.device)
            with trainer.team.autocast():
                current = answer_logprobs(trainer.model, trainer.scorer, trainer.tokenizer, pairs)
            lengths = torch.tensor([[len(p.chosen) for p in pairs], [len(p.rejected) for p in pairs]]).to(known.device)
            loss, stats = dpo_loss(
                *measured(current, (known[:, 0], known[:, 1]), lengths, preference.loss),
                beta=preference.beta,
                loss=preference.loss,
                label_smoothing=preference.label_smoothing,
                weight=torch.tensor([pair.weight for pair in pairs], device=known.device),
                count=float(len(chosen)),
            )
            stats["loss"] = loss.detach() * len(chosen)
            for name in _STATS:
                sums[name] += float(stats[name])
            yield loss


def own_parts(team: Any, pairs: Sequence[Encoded], micro_tokens: int) -> Iterator[list[int]]:
    """This process's share of some pairs: indices in groups of at most `micro_tokens` tokens."""
    mine = deal([pair.longest for pair in pairs], team.world)[team.rank]
    for group in parts([pairs[i] for i in mine], micro_tokens):
        yield [mine[place] for place in group]


def known_references(
    session: Session,
    pairs: Sequence[Encoded],
    given: Sequence[Reference | None],
    name: str | None,
    micro_tokens: int,
    notify: Callable[[str], None],
) -> list[Reference]:
    """Every pair's reference log-probabilities: `given` ones, or those of the model `name` or of the start.

    What a model says is kept in the policy directory: later the model of the start may be gone.
    """
    wanted = [i for i, known in enumerate(given) if known is None]
    found: list[Reference] | None = []
    if wanted:
        asked = [pairs[i] for i in wanted]
        path, key = session.directory.state / "reference.safetensors", f"{digest_of(asked)} {name or 'start'}"
        found = session.team.share(load_references(path, key) if session.team.is_main else None)
        if found is None and name is None and not _is_start(session):
            why = "does not have the reference log-probabilities of these pairs; name another folder, or --reference"
            raise ToolrollError(why, place=str(session.options.policy))
        if found is None:
            notify(f"reference log-probabilities of {len(wanted)} pairs, once")
            found = references_of(session.trainer, asked, name, micro_tokens, notify)
            if session.team.is_main:
                save_references(path, key, found)
    made = iter(found or ())
    return [next(made) if known is None else known for known in given]


def _is_start(session: Session) -> bool:
    """Whether the session's model, before it takes up a checkpoint, is the one that training on pairs began with."""
    about = session.directory.state / "current" / "about.json"
    base = Path(session.source).name == version_name(0)
    return session.team.share(base or not about.is_file() or not json.loads(about.read_text())["last"])


def references_of(
    trainer: Trainer, pairs: Sequence[Encoded], name: str | None, micro_tokens: int, notify: Callable[[str], None]
) -> list[Reference]:
    """Log-probabilities of the answers under the model `name`, or under the trainer's as it is now.

    All processes work on it; all know the result.
    """
    team = trainer.team
    if name is None:
        model, scorer, processor = trainer.model, trainer.scorer, trainer.tokenizer
    else:
        loaded = frozen_model(name, team, notify)
        model, scorer, processor = loaded.model, Scorer(loaded.model), loaded.processor
    found: dict[int, Reference] = {}
    with torch.no_grad(), scoring(model):
        for group in own_parts(team, pairs, micro_tokens):
            with team.autocast():
                chosen, rejected = answer_logprobs(model, scorer, processor, [pairs[i] for i in group])
            found |= dict(zip(group, zip(chosen.tolist(), rejected.tolist(), strict=True), strict=True))
    found = team.merged(found)
    return [found[i] for i in range(len(pairs))]


def load_references(path: Path, key: str) -> list[Reference] | None:
    """The reference log-probabilities kept in a file for the pairs and model of `key`, None when there are none."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            return [(float(one), float(other)) for one, other in file.get_tensor("logps").tolist()]
    except (OSError, SafetensorError) as error:
        raise ToolrollError("is damaged; remove it to have it made anew", place=str(path)) from error


def save_references(path: Path, key: str, references: Sequence[Reference]) -> None:
    """Keep reference log-probabilities, so that they are those of the start however far training has gone."""
    from safetensors.torch import save

    tensor = torch.tensor(references, dtype=torch.float32).reshape(-1, 2)
    write_atomically(path, save({"logps": tensor}, metadata={"key": key}))
