"""How far quantized keys and values are from what they were, and what that does to attention."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolroll.kvcache.ranges import F32, spread_out
from toolroll.kvcache.scheme import Scheme

TOP = 8  #: tokens that are compared besides the first


def of_head(x: F32, found: F32, lo: F32, scale: F32, scheme: Scheme) -> dict[str, Any]:
    """A head x [T, D] and x^ as numbers.

    nmse is the mean over channels of squared error / variance, of channels that vary; None without any. Dividing by the
    variance, not by the mean square, keeps an offset from hiding the error. snr_db = -10 log10(nmse). clip_frac is the
    share of values outside lo .. hi, ones_frac (1 bit) the share of values with code 1.
    """
    error = found - x
    squared = np.square(error, dtype=np.float64).mean(0)
    variance = x.var(0, dtype=np.float64)
    varies = x.max(0) > x.min(0)
    low, wide = (spread_out(one, scheme, *x.shape) for one in (lo, scale))
    outside = (x < low) | (x > low + wide * np.float32(scheme.levels))
    nmse = float((squared[varies] / variance[varies]).mean()) if varies.any() else None
    lengths = math.sqrt(_product(x, x)) * math.sqrt(_product(found, found))
    return {
        "mse": float(squared.mean()),
        "nmse": nmse,
        "snr_db": -10 * math.log10(nmse) if nmse else None,
        "cosine": _product(x, found) / lengths if lengths else None,
        "max_error": float(np.abs(error).max(initial=0)),
        "clip_frac": float(outside.mean()),
        "ones_frac": float((found > low + wide / 2).mean()) if scheme.bits == 1 else None,
        "constant_channels": int((~varies).sum()),
    }


def _product(x: F32, y: F32) -> float:
    return float(np.multiply(x, y, dtype=np.float64).sum())


@dataclass(frozen=True, slots=True)
class Looks:
    """Where N queries look: probabilities [N, T] by the keys as they were and as they are."""

    exact: NDArray[np.float64]
    found: NDArray[np.float64]


def scores_of(queries: F32, keys: F32, places: NDArray[Any], scaling: float) -> NDArray[np.float64]:
    """Scores [N, T] of queries [N, D] at `places` [N]; -inf where a token comes later than the query."""
    with np.errstate(over="ignore", invalid="ignore"):
        made = (queries @ keys.T).astype(np.float64)
    if not np.isfinite(made).all():  # too large for fp32
        made = queries.astype(np.float64) @ keys.T.astype(np.float64)
    made *= scaling
    made[np.arange(len(keys))[None] > places[:, None]] = -np.inf
    return made


def log_softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-probabilities along the last axis; -inf where a score is."""
    made: NDArray[np.float64] = scores - scores.max(-1, keepdims=True)
    made -= np.log(np.exp(made).sum(-1, keepdims=True))
    return made


def softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities along the last axis."""
    made: NDArray[np.float64] = np.exp(scores - scores.max(-1, keepdims=True))
    made /= made.sum(-1, keepdims=True)
    return made


def divergence(exact: NDArray[np.float64], found: NDArray[np.float64]) -> NDArray[np.float64]:
    """KL(exact || found) in nats of the probabilities that scores [..., T] make, [...]; -inf at the same places.

    Of the logarithms, so that it is finite where a probability is too small for its type.

    >>> float(divergence(np.array([2000.0, 0, -np.inf]), np.array([0.0, 2000, -np.inf])))
    2000.0
    """
    p, q = log_softmax(exact), log_softmax(found)
    with np.errstate(invalid="ignore"):
        made: NDArray[np.float64] = np.where(np.isfinite(p), np.exp(p) * (p - q), 0.0).sum(-1)
    return made


def of_scores(
    exact: NDArray[np.float64], found: NDArray[np.float64], visual: NDArray[np.bool_]
) -> tuple[Looks, dict[str, Any]]:
    """Scores [N, T] by the keys as they were and as they are, as numbers; `visual` [T].

    score_rmse leaves out the mean difference of each query, which a softmax does not see. kl is KL(exact || found) in
    nats. top1_frac and top8_frac are the shares of the tokens looked at most that are the same. mass_shift is how much
    more attention visual tokens get.
    """
    seen = np.isfinite(exact)
    apart = np.where(seen, found, 0.0) - np.where(seen, exact, 0.0)
    count = seen.sum(-1, keepdims=True)
    apart = np.where(seen, apart - apart.sum(-1, keepdims=True) / count, 0.0)
    p, q = softmax(exact), softmax(found)
    top = min(TOP, exact.shape[1])
    best = [np.argsort(-one, -1, kind="stable")[:, :top] for one in (exact, found)]
    same = [len(np.intersect1d(a, b)) / top for a, b in zip(*best, strict=True)]
    return Looks(p, q), {
        "score_rmse": float(np.sqrt(np.square(apart).sum() / count.sum())),
        "kl": max(0.0, float(divergence(exact, found).mean())),
        "top1_frac": float((best[0][:, 0] == best[1][:, 0]).mean()),
        "top8_frac": float(np.mean(same)),
        "mass_shift": float((q - p)[:, visual].sum(-1).mean()),
    }


def of_outputs(looks: Looks, values: F32, found: F32) -> dict[str, Any]:
    """What attention gives, [N, D], with values [T, D] as they were and as they are: the relative error."""
    exact = looks.exact @ values.astype(np.float64)
    length = float(np.linalg.norm(exact))
    apart = float(np.linalg.norm(looks.found @ found.astype(np.float64) - exact))
    return {"output_error": apart / length if length else None}


def made_up(rng: np.random.Generator, keys: F32, count: int, scaling: float) -> F32:
    """Queries [count, D] of no model: normal, and as long as gives scores over these keys [T, D] a deviation of 1."""
    queries = rng.standard_normal((count, keys.shape[1])).astype(np.float32)
    spread = float(np.std(queries @ keys.T * scaling - (queries @ keys.T * scaling).mean(-1, keepdims=True)))
    return queries / np.float32(spread) if spread > 0 else queries
