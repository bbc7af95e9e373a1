"""dpo-train: train a policy on pairs of answers, and publish it.

All pairs are held in memory as token ids, because every epoch has its own order.
Loss: toolroll.train.losses; pairs to tokens: toolroll.train.pairs; updates: toolroll.train.dpo.
Papers: arXiv:2305.18290 (DPO), arXiv:2310.12036 (IPO); presets of RLAIF-V and CSR, arXiv:2405.17220, arXiv:2405.14622.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from toolroll.cli import GroupedOption, command, declares, option_group, uses_images, uses_seed
from toolroll.errors import RowError, ToolrollError
from toolroll.records import IMAGE_FIELDS, field_types, view
from toolroll.records.training import DpoStep, Pair
from toolroll.train.options import PublishOptions, length_options, publish_options, train_options
from toolroll.train.preference import PRESETS, EpochTraining, Preference, preference_options, with_preset

if TYPE_CHECKING:
    from toolroll.run.log import Log
    from toolroll.run.rows import Rows
    from toolroll.run.signals import StopFlag
    from toolroll.train.dpo import PairUpdate, Reference
    from toolroll.train.pairs import Encoded, Encoder
    from toolroll.train.session import Session

EXAMPLES = """
  A pair, and the smaller of the embedded models; the result is policy/current:
    echo '{"id": "sum", "prompt": "What is 2 + 2?", "chosen": "4", "rejected": "five, or so"}' > pairs.jsonl
    dpo-train --policy policy --model sprite --lr 5e-6 pairs.jsonl > steps.jsonl
  With reference log-probabilities made once, for many runs:
    pair-logps PAIRS.jsonl --model NAME -o ready.jsonl
    dpo-train --policy POLICY --model NAME --beta .05 ready.jsonl
  Pairs with images, low-rank adapters, CSR's settings:
    dpo-train --preset csr --policy POLICY --model NAME --images PHOTOS --publish 50 PAIRS.jsonl
"""

NOTES = """
All pairs are read before the first update and held as token ids: some 10 kB for a pair of 1,000 tokens. Images are
read when their turn comes.

The form is TRL's: `prompt`, `chosen` and `rejected` are text or messages, with `images` as paths. An answer that is
text ends with the end-of-text token; messages end as the chat template has it. Where tokens change at the seam of
prompt and answer, the answer begins where they do. Image tokens are never cut: a pair of more than --max-tokens fails,
or is left out and counted, and only pairs without images can be shortened.

Pairs with `ref_chosen_logps` and `ref_rejected_logps`, as pair-logps and TRL write them, need no reference model; the
sums must be those of the same tokens. For pairs without, the model at the start (or --reference) is asked once, before
the first update, and what it says is kept in the policy directory. `weight` multiplies a pair's loss.

The same command goes on after a kill: the number of updates says which pairs come next, and the weights come out as if
nothing had happened. It refuses to go on with other pairs. With -o FILE add --resume for a curve without gaps. At most
--publish updates are lost to a kill -9. SIGUSR1 and SIGTERM end the run after the update in hand, with exit code 75.

--preset sets what the released scripts of RLAIF-V and CSR set; an option that is given wins. Their learning rate of
the projector (CSR) and their limit of 2,672 updates (RLAIF-V) have no place here.

ipo measures by means over tokens, as TRL does, and so do `margin` and the rewards it reports. All weights of an
image-text model are trained, also those of its image encoder; --lora-targets can choose.
"""

_FIRM = frozenset(["beta", "loss", "label_smoothing", "batch_rows", "seed", "lora", "lora_alpha", "lora_targets"])
_FREE = frozenset(["device", "micro_tokens", "gradient_checkpointing"])


def _publishing() -> list[click.Option]:
    options = publish_options(GroupedOption)
    for option in options:
        if option.name == "publish":
            option.default = 100  # nobody follows this policy update by update
    return options


@command(
    "dpo-train",
    system="Training",
    reads=view(
        Pair, "id", "prompt", "chosen", "rejected", *IMAGE_FIELDS, "weight", "ref_chosen_logps", "ref_rejected_logps"
    ),
    adds=field_types(DpoStep, *DpoStep.__struct_fields__),
    key=("step",),
    slow=True,
    consumes=True,
    distributed=True,
    epilog="See pair-logps(1), policy-train(1), toolroll-records(5).",
)
@option_group("publishing", PublishOptions, _publishing())
@option_group("preference", Preference, preference_options(GroupedOption))
@click.option("--preset", type=click.Choice(list(PRESETS)), help="Defaults as in the scripts of these works.")
@click.option(
    "--reference", metavar="NAME", help="Where pairs have no reference log-probabilities: ask this model, not --model."
)
@uses_images
@declares(*length_options(GroupedOption))
@option_group("training", EpochTraining, train_options(GroupedOption, lr=1e-6))
@uses_seed
def main(rows: Rows[Any], *, log: Log, stop: StopFlag, **options: Any) -> Iterator[dict[str, Any]]:
    """Train a policy on pairs of answers, and publish it.

    Reads pairs of a better and a worse answer to one prompt, with images or without, raises the probability of the
    one against the other (DPO), and publishes the result as a policy directory. Writes a row an update.
    """
    from toolroll.train.session import Session

    options = _with_preset(options)
    with Session(options["publishing"], options["training"], seed=options["seed"], notify=log.note) as session:
        pairs, given = session.team.share(_read(rows, log, session, **options) if session.team.is_main else ([], []))
        if not pairs:
            return
        update = _prepare(session, log, pairs, given, **options)
        if session.team.is_main:
            yield from _unsaid(rows, session.last)
        for row in _updates(session, update, stop, options["publishing"].publish):
            if not rows.done(row["step"]):
                yield row


def _updates(session: Session, update: PairUpdate, stop: StopFlag, publish: int) -> Iterator[dict[str, Any]]:
    """Update the policy to the end of the last epoch; a row each time, once the version it tells of is saved."""
    from toolroll.train.dpo import digest_of
    from toolroll.train.policy import version_name

    pairs, began = digest_of(update.pairs), session.last.get("began", session.step)
    while session.step - began < update.steps and not session.team.share(bool(stop)):
        figures = update.run(session.step - began + 1)
        session.step += 1
        row = {"step": session.step, "version": version_name(session.step), **figures}
        session.last = {"pairs": pairs, "began": began, "row": row}
        if session.step % publish == 0 or session.step - began == update.steps:
            session.save()
        yield row


def _unsaid(rows: Rows[Any], last: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The row that a run which was killed right after saving may not have written."""
    if last and click.get_current_context().params["resume"] and not rows.done(last["row"]["step"]):
        yield last["row"]


def _with_preset(options: dict[str, Any]) -> dict[str, Any]:
    from click.core import ParameterSource

    context = click.get_current_context()

    def given(name: str) -> bool:
        return context.get_parameter_source(name) not in (ParameterSource.DEFAULT, None)

    groups = ("preference", "training")
    return {**options, **{name: with_preset(options["preset"], options[name], given) for name in groups}}


def _read(
    rows: Rows[Any],
    log: Log,
    session: Session,
    *,
    max_tokens: int,
    on_long: Any,
    images: Path | None,
    **_: Any,
) -> tuple[list[Encoded], list[Reference | None]]:
    """All pairs as token ids, and the reference log-probabilities they bring."""
    from toolroll.train.pairs import Encoder, TooLong

    encoder = Encoder.of(session.trainer.tokenizer, max_tokens=max_tokens, on_long=on_long)
    pairs: list[Encoded] = []
    given: list[Reference | None] = []
    counts: Counter[str] = Counter()
    for row in rows:
        try:
            pair, reference = _pair(encoder, row, images)
        except TooLong as error:
            if on_long == "fail":
                rows.refuse(row, error.why)
            counts["long"] += 1
            continue
        except RowError as error:
            rows.refuse(row, error.why)
            continue
        pairs.append(pair)
        given.append(reference)
        counts["equal"] += pair.chosen == pair.rejected
        counts["shortened"] += pair.shortened
    if rows.cut:
        return [], []
    _tell(log, counts, max_tokens, skipped=on_long != "fail")
    return pairs, given


def _pair(encoder: Encoder, row: Any, images: Path | None) -> tuple[Encoded, Reference | None]:
    """A row as token ids, and its reference log-probabilities."""
    from toolroll.train.pairs import encode_row

    pair = encode_row(encoder, row, images)
    known = (row.view.ref_chosen_logps, row.view.ref_rejected_logps)
    if (known[0] is None) != (known[1] is None):
        raise RowError("one of `ref_chosen_logps` and `ref_rejected_logps` is missing")
    return pair, None if known[0] is None else known


def _tell(log: Log, counts: Counter[str], max_tokens: int, *, skipped: bool) -> None:
    if counts["long"] and skipped:
        log.warn(f"{counts['long']} pairs were left out: longer than --max-tokens {max_tokens}")
    if counts["equal"]:
        log.warn(f"{counts['equal']} pairs have the same answer twice: there is nothing to learn from them")
    if counts["shortened"]:
        log.warn(f"in {counts['shortened']} pairs tokens change where prompt and answer meet; the answer begins there")


def _prepare(
    session: Session, log: Log, pairs: list[Encoded], given: list[Reference | None], **options: Any
) -> PairUpdate:
    """Give the session all that was saved of it; what updates its policy."""
    from toolroll.train.dpo import PairUpdate, digest_of, known_references

    preference: Preference = options["preference"]
    references = known_references(session, pairs, given, options["reference"], preference.micro_tokens, log.info)
    update = PairUpdate(session.trainer, preference, pairs, references, seed=options["seed"])
    training = options["training"].whole(update.steps)
    session.trainer.learner.rate = training.rate
    settings = {**asdict(preference), **asdict(training), "seed": options["seed"]}
    settings = {name: value for name, value in settings.items() if name not in _FREE}
    session.resume(settings, _FIRM, again=False, warn=log.warn)
    if session.last and session.last.get("pairs") != digest_of(pairs):
        what = "other pairs, or the same in another order" if "pairs" in session.last else "something else"
        raise ToolrollError(
            f"was trained on {what}; name another folder to start anew", place=str(session.options.policy)
        )
    if session.last:
        log.note(f"going on after update {session.step}")
    return update
