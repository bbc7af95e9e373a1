"""From the options of step-reward to its reward and its panel of judges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from toolroll.errors import UsageError
from toolroll.models.options import ModelOptions, SamplingOptions
from toolroll.rag.judges import JudgeSettings, Panel, open_judges
from toolroll.rag.judges.base import ROLES, Role
from toolroll.rag.judges.confidence import load_pieces
from toolroll.rag.scoring import Scheme
from toolroll.run.log import Log

__all__ = ["open_panel", "open_scheme"]


def open_scheme(options: Mapping[str, Any], model: ModelOptions) -> Scheme:
    """The reward that the options ask for; UsageError for beta-grpo without what it needs."""
    shared = options.keys() & {field.name for field in fields(Scheme)} - {"min_prob"}
    settings: dict[str, Any] = {name: options[name] for name in shared}
    if options["reward"] == "beta-grpo":
        if options["min_prob"] is None:
            raise UsageError("needs a threshold: --min-prob", place="--reward beta-grpo")
        if model.tokenizer is None:
            raise UsageError("needs the tokenizer of the model that wrote the rollouts", place="--tokenizer")
        settings["min_prob"] = options["min_prob"]
        settings["pieces"] = load_pieces(model.tokenizer, trust_remote_code=model.trust_remote_code)
    return Scheme(**settings)


def open_panel(
    options: Mapping[str, Any], scheme: Scheme, model: ModelOptions, draw: SamplingOptions, log: Log
) -> Panel | None:
    """The judges the options ask for; None when the verdicts in the rows are taken as they are.

    A reward that depends on no verdict opens no judge, unless all steps are to be judged.
    """
    roles: tuple[Role, ...] = ROLES if options["judge_all"] else scheme.roles
    shared = options.keys() & {field.name for field in fields(JudgeSettings)}
    sampling = draw.sampling(seed=options["seed"], max_tokens=options["closed_book_tokens"])
    settings = {name: options[name] for name in shared}
    return open_judges(
        options["judge"],
        roles,
        JudgeSettings(model=model, notify=log.note, warn=log.warn, sampling=sampling, **settings),
    )
