"""How much scores depend on choices nobody can justify to the digit, and at which inputs hypotheses differ."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from toolroll.abduction.trial import Outputs, Trial
from toolroll.abduction.verdict import Rules, Verdict, judge

__all__ = ["FIGURES", "differences", "sweep"]

MAX_BAD = (1, 2, 3, 4, 5)
MIN_NEW = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
SPACE_FRAC = (0.1, 0.25, 0.5)
DRAWS = 5  #: subsamples of the space, of each size
EXAMPLES = 3  #: inputs shown of those at which two hypotheses differ
FIGURES = ("n", "valid", "consistency", "generalizability", "gamma_norm", "beta_struct")


def sweep(trials: Sequence[Trial], space: int, rules: Rules, seed: int) -> list[dict[str, Any]]:
    """The scores under other choices, one varied at a time; what is not varied is as in `rules`.

    max_bad, min_new: the two thresholds of the stop rule, hypotheses after its end left out. space_frac: a part of the
    sample space, drawn DRAWS times without replacement. seed: of the draws.
    """
    return [
        {"vary": name, "value": value, **({} if draw is None else {"draw": draw}), **_figures(verdict)}
        for name, value, draw, verdict in _varied(trials, space, rules, random.Random(seed))
    ]


def _varied(
    trials: Sequence[Trial], space: int, rules: Rules, rng: random.Random
) -> Iterator[tuple[str, float, int | None, Verdict]]:
    for name, values in (("max_bad", MAX_BAD), ("min_new", MIN_NEW)):
        for value in values:
            stop = replace(rules.stop, **{name: value})  # type: ignore[arg-type]
            yield name, value, None, judge(trials, space, replace(rules, stop=stop, truncate=True))
    for share in SPACE_FRAC:
        size = max(1, round(share * space))
        for draw in range(DRAWS):
            columns = sorted(rng.sample(range(space), size))
            part = [trial if trial.ids is None else replace(trial, ids=trial.ids[columns]) for trial in trials]
            yield "space_frac", share, draw, judge(part, size, rules)


def _figures(verdict: Verdict) -> dict[str, Any]:
    scores = verdict.scores
    return {
        "n": len(verdict.trials),
        "valid": len(verdict.valid),
        "consistency": verdict.consistency,
        "generalizability": scores.generalizability,
        "gamma_norm": scores.gamma_norm,
        "beta_struct": scores.beta_struct,
    }


def differences(verdict: Verdict, inputs: Sequence[bytes], outputs: Outputs) -> list[dict[str, Any]]:
    """For each pair of valid hypotheses: at how many inputs of the space they differ, and what they say at some.

    inputs: of the space. outputs: as JSON texts, null where undefined.
    """
    valid = verdict.valid
    if len(valid) < 2:
        return []
    import numpy as np

    from toolroll.abduction.matrix import differing

    rows = np.stack([verdict.trials[place].ids for place in valid])  # type: ignore[misc]
    return [
        {
            "pair": [a, b],
            "n_differ": len(places),
            "examples": [
                {
                    "input": json.loads(inputs[place]),
                    "outputs": [outputs.text(int(_ids(verdict, one)[place])) for one in (a, b)],
                }
                for place in places[:EXAMPLES]
            ],
        }
        for a, b, places in differing(rows, valid)
    ]


def _ids(verdict: Verdict, place: int) -> Any:
    return verdict.trials[place].ids
