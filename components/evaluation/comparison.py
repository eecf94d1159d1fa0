"""Candidate against champion on the same impressions: a paired bootstrap over users.

Pairing: both models score the same rows, so what varies is the *difference* of their losses, which is far narrower
than either loss. Users rather than rows are drawn, since one user's impressions are alike; drawing rows would give
intervals that are too narrow.

Sources: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), percentile interval of section 13; Field
and Welsh, "Bootstrapping clustered data" (2007); non-inferiority by the bound of the two-sided interval, as in the
CONSORT extension (Piaggio et al., 2012): the candidate passes if even the worst end is within the margin.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.contracts.config import Config
from components.evaluation.metrics import Array, Outcome, Predicted, Ranking, losses


class Interval(Config):
    """A difference, candidate minus champion, and its confidence interval [low, high]."""

    champion: float
    candidate: float
    difference: float
    low: float
    high: float


class Comparison(Config):
    """`*_log_loss`: difference of mean log losses as a share of the champion's (0.01 = 1% worse); `champion` and
    `candidate` there are the mean losses in nats. `*_auc`: plain differences; None when one class is absent."""

    users: int
    replicates: int
    confidence: float
    ctr_log_loss: Interval
    ctcvr_log_loss: Interval
    ctr_auc: Interval | None = None
    ctcvr_auc: Interval | None = None


@dataclass(frozen=True)
class Scored:
    """One model's predictions of the test rows: log losses are compared at the logged position (where the labels
    happened), AUCs at the reference position (how serving ranks)."""

    logged: Predicted
    reference: Predicted


def compare(
    candidate: Scored,
    champion: Scored,
    outcome: Outcome,
    users: NDArray[np.generic],
    replicates: int = 1000,
    auc_replicates: int = 200,
    confidence: float = 0.95,
    seed: int = 0,
) -> Comparison:
    """Compares two models on the same rows.

    Args:
        users: [B] whose impression each row is.
        replicates: bootstrap draws for the log losses (sums per user: cheap); `auc_replicates` for the AUCs (0: none).

    Returns:
        The same for the same seed and rows.
    """
    index = np.unique(users, return_inverse=True)[1].astype(np.int64)
    count = int(index.max()) + 1
    heads = {"ctr": (outcome.click, "pctr"), "ctcvr": (outcome.conversion, "pctcvr")}
    sums: list[Array] = []
    for label, name in heads.values():
        for model in (champion, candidate):
            loss = losses(getattr(model.logged, name), label)
            sums.append(np.bincount(index, weights=loss, minlength=count).astype(np.float64))
    per_user = np.stack(sums, axis=1)  # [users, 4]: champion and candidate of each head
    draws = np.stack([_weights(seed, draw, count) @ per_user for draw in range(replicates)])  # [replicates, 4]

    intervals: dict[str, Interval | None] = {}
    for head, column in (("ctr", 0), ("ctcvr", 2)):
        total_champion, total_candidate = per_user[:, column].sum(), per_user[:, column + 1].sum()
        drawn = draws[:, column + 1] / draws[:, column] - 1
        intervals[f"{head}_log_loss"] = Interval(
            champion=total_champion / len(index),
            candidate=total_candidate / len(index),
            difference=total_candidate / total_champion - 1,
            **_bounds(drawn, confidence),
        )
    for head, (label, name) in heads.items():
        pair = (getattr(champion.reference, name), getattr(candidate.reference, name))
        intervals[f"{head}_auc"] = _auc_interval(pair, label, index, auc_replicates, confidence, seed)
    return Comparison.model_validate(
        {"users": count, "replicates": replicates, "confidence": confidence, **intervals},
    )


def _weights(seed: int, draw: int, count: int) -> Array:
    """How often each of `count` users is in draw number `draw` (with replacement, `count` in all)."""
    drawn = np.random.default_rng((seed, draw)).integers(0, count, size=count)
    return np.bincount(drawn, minlength=count).astype(np.float64)


def _bounds(drawn: Array, confidence: float) -> dict[str, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return {"low": float(low), "high": float(high)}


def _auc_interval(
    pair: tuple[Array, Array],
    label: NDArray[np.bool_],
    index: NDArray[np.int64],
    draws: int,
    confidence: float,
    seed: int,
) -> Interval | None:
    """The same draws of users as for the log losses; a draw that lost a whole class is skipped."""
    rankings = [Ranking(scores) for scores in pair]
    ones = label.astype(np.int64)
    champion, candidate = (ranking.auc(ones, 1 - ones) for ranking in rankings)
    if champion is None or candidate is None or draws <= 0:
        return None
    count = int(index.max()) + 1
    drawn: list[float] = []
    for draw in range(draws):
        weight = _weights(seed, draw, count)[index]
        positive = weight * ones
        first, second = (ranking.auc(positive, weight - positive) for ranking in rankings)
        if first is not None and second is not None:
            drawn.append(second - first)
    if not drawn:
        return None
    return Interval(
        champion=champion, candidate=candidate, difference=candidate - champion, **_bounds(np.array(drawn), confidence)
    )
