"""Differences of two models over the same seeds: mean, t interval, p value; and a correction for asking many times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Paired:
    """Mean difference over n seeds with its 95% t interval and the two-sided p value of "no difference"."""

    mean: float
    low: float
    high: float
    p: float
    n: int


def paired(model: Sequence[float], other: Sequence[float]) -> Paired:
    """`model` less `other`, seed by seed (Student's paired t).

    Raises:
        ValueError: for fewer than two seeds, or unequal numbers of them.
    """
    differences = np.asarray(model, dtype=np.float64) - np.asarray(other, dtype=np.float64)
    n = len(differences)
    if n < 2:
        raise ValueError("a difference over fewer than two seeds has no spread")
    mean, error = float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(n))
    if error == 0:
        return Paired(mean, mean, mean, 1.0 if mean == 0 else 0.0, n)
    half = float(stats.t.ppf(0.975, n - 1)) * error
    return Paired(mean, mean - half, mean + half, float(2 * stats.t.sf(abs(mean) / error, n - 1)), n)


def holm(ps: Sequence[float]) -> list[float]:
    """p values corrected for being several, in the order given (Holm, Scandinavian Journal of Statistics 1979)."""
    order = np.argsort(ps, kind="stable")
    adjusted = np.empty(len(ps))
    worst = 0.0
    for rank, at in enumerate(order):
        worst = max(worst, min(1.0, (len(ps) - rank) * ps[at]))
        adjusted[at] = worst
    return [float(value) for value in adjusted]
