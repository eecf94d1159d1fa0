"""Why these metrics.

Ranking needs pCTR, pCVR and pCTCVR for *every* impression, so each is judged where its label exists:

- pCTR and pCTCVR over all impressions: a click, and a click followed by a conversion, are observed for each.
- pCVR over *clicked* impressions only: without a click there is no conversion to observe. Scoring pCVR against
  purchases over all impressions would reward it for predicting clicks, and overstates the true AUC by about .1.
  That pCVR also holds where nobody clicked (the entire space) can be measured only against a simulator's truth.

Three properties of each: **AUC** (Mann-Whitney: does a positive outrank a negative, ties count one half; computed
over all pairs, never as a mean of batches), **log loss** (nats; a proper score, so candidates are compared by it), and
**calibration** (sum predicted / sum observed; bids and budgets multiply probabilities, so a model that ranks well
but predicts twice the conversions is unfit). AUC at the *reference* position says how serving will rank. Log loss and
calibration mean something only at the *logged* position: the labels happened there, and clicks thin out down the page.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from components.contracts.decision import Candidate, Metrics

Array = NDArray[np.float64]

EPSILON = 1e-12
"""Probabilities are clipped to [1e-12, 1 - 1e-12]: one certain and wrong prediction costs 27.6 nats, not infinity."""


def auc(scores: Array, labels: NDArray[np.generic]) -> float | None:
    """Exact area under the ROC curve; a tie counts one half.

    Args:
        scores: [B], any order-preserving score.
        labels: [B], boolean or 0/1.

    Returns:
        AUC in [0, 1], or None when one class is absent.

    The rank form of Mann and Whitney (1947), as in Fawcett, "An introduction to ROC analysis" (2006).
    """
    positive = np.asarray(labels).astype(np.int64)
    return Ranking(scores).auc(positive, 1 - positive)


class Ranking:
    """Scores sorted once, to compute many weighted AUCs of them (bootstrap replicates) in linear time each."""

    def __init__(self, scores: Array) -> None:
        self.order = np.argsort(scores, kind="stable")
        ordered = scores[self.order]
        self.starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, int)

    def auc(
        self, positive: NDArray[np.generic], negative: NDArray[np.generic], self_pairs: float = 0.0
    ) -> float | None:
        """Share of (positive, negative) weight in the right order.

        Args:
            positive, negative: [B] weights of each row as a positive and as a negative (integers stay exact).
            self_pairs: total weight of pairs of a row with itself, to be left out (soft labels only).
        """
        if not len(self.starts):
            return None
        up = np.add.reduceat(positive[self.order], self.starts)
        down = np.add.reduceat(negative[self.order], self.starts)
        below = np.cumsum(down) - down
        twice = (up * (2 * below + down)).sum() - self_pairs
        pairs = up.sum() * down.sum() - self_pairs
        return float(twice / (2 * pairs)) if pairs > 0 else None


def losses(predicted: Array, observed: NDArray[np.generic]) -> Array:
    """Log loss of each row in nats, [B]; `observed` may be a probability (cross entropy against a soft label)."""
    p = np.clip(np.asarray(predicted, dtype=np.float64), EPSILON, 1 - EPSILON)
    y = np.asarray(observed).astype(np.float64)
    return np.asarray(-(y * np.log(p) + (1 - y) * np.log1p(-p)))


def log_loss(predicted: Array, observed: NDArray[np.generic]) -> float | None:
    """Mean log loss in nats, None over no rows."""
    return float(losses(predicted, observed).mean()) if len(predicted) else None


def calibration(predicted: Array, observed: NDArray[np.generic]) -> float | None:
    """Sum predicted / sum observed (1 is right, 2 promises twice what happens); None if nothing was observed."""
    total = float(np.asarray(observed).astype(np.float64).sum())
    return float(np.asarray(predicted, dtype=np.float64).sum()) / total if total > 0 else None


def constant_log_loss(positives: int, rows: int) -> float:
    """Log loss in nats of the best constant predictor: one that knows these rows' own rate."""
    rate = positives / rows
    return float(sum(-p * np.log(p) for p in (rate, 1 - rate) if p > 0))


@dataclass(frozen=True)
class Outcome:
    """What happened to the rows of a split; conversion implies click."""

    click: NDArray[np.bool_]
    conversion: NDArray[np.bool_]


@dataclass(frozen=True)
class Predicted:
    """A model's probabilities of the same rows, float64 [B]; pctcvr = pctr * pcvr."""

    pctr: Array
    pcvr: Array
    pctcvr: Array


def metrics(scores: Predicted, outcome: Outcome) -> Metrics:
    """All metrics of one model on one split. pCTR and pCTCVR over all rows, pCVR over clicked rows only.

    Raises:
        ValueError: over no rows (a split without rows is refused before).
    """
    click, conversion = outcome.click, outcome.conversion
    ctr_loss, ctcvr_loss = log_loss(scores.pctr, click), log_loss(scores.pctcvr, conversion)
    if ctr_loss is None or ctcvr_loss is None:
        raise ValueError("metrics over no rows")
    return Metrics(
        rows=len(click),
        clicks=int(click.sum()),
        conversions=int(conversion.sum()),
        ctr_auc=auc(scores.pctr, click),
        cvr_auc_clicked=auc(scores.pcvr[click], conversion[click]),
        ctcvr_auc=auc(scores.pctcvr, conversion),
        ctr_log_loss=ctr_loss,
        cvr_log_loss_clicked=log_loss(scores.pcvr[click], conversion[click]),
        ctcvr_log_loss=ctcvr_loss,
        ctr_calibration=calibration(scores.pctr, click),
        cvr_calibration_clicked=calibration(scores.pcvr[click], conversion[click]),
        ctcvr_calibration=calibration(scores.pctcvr, conversion),
    )


def expected_auc(scores: Array, probability: Array) -> float | None:
    """AUC expected if every row's label were drawn from its true probability.

    A row counts as a positive with weight q and as a negative with weight 1 - q; pairs of a row with itself, which no
    draw contains, are left out. `probability` scored against itself gives the most any model can reach.
    """
    q = np.asarray(probability, dtype=np.float64)
    return Ranking(scores).auc(q, 1 - q, self_pairs=float((q * (1 - q)).sum()))


def entire_space(pcvr: Array, do_click: Array) -> dict[str, float]:
    """pCVR of every impression against P(conversion | do(click)), the truth that only a simulator knows.

    Args:
        pcvr, do_click: [B] probabilities.

    Returns:
        entire_space_cvr_auc: expected AUC; entire_space_cvr_log_loss: cross entropy against the true probability, nats
        (the truth's own entropy included, so its floor is not zero); entire_space_cvr_excess: the same less that
        entropy, i.e. the mean Kullback-Leibler divergence, 0 for the truth; entire_space_cvr_ratio: mean predicted /
        mean true. What cannot be computed is left out.
    """
    found = {
        "entire_space_cvr_auc": expected_auc(pcvr, do_click),
        "entire_space_cvr_log_loss": log_loss(pcvr, do_click),
        "entire_space_cvr_excess": float((losses(pcvr, do_click) - losses(do_click, do_click)).mean()),
        "entire_space_cvr_ratio": calibration(pcvr, do_click),
    }
    return {name: value for name, value in found.items() if value is not None}


def reliability(predicted: Array, observed: NDArray[np.generic], bins: int = 12) -> list[dict[str, float]]:
    """Points of a reliability diagram, in `bins` bins of equal numbers of rows by rising prediction.

    Returns:
        Per bin: mean `predicted`, mean `observed`, `rows`. Fewer bins if there are fewer rows.

    Equal mass rather than equal width: nearly all probabilities of a funnel sit close to zero.
    """
    order = np.argsort(predicted, kind="stable")
    chunks = np.array_split(order, min(bins, len(order))) if len(order) else []
    y = np.asarray(observed).astype(np.float64)
    return [
        {"predicted": float(predicted[rows].mean()), "observed": float(y[rows].mean()), "rows": float(len(rows))}
        for rows in chunks
    ]


def headline(candidate: Candidate) -> dict[str, float]:
    """The metrics to quote: AUCs at the reference position, log losses and calibration at the logged one.

    What cannot be computed, and everything of an ineligible candidate, is left out.
    """
    if candidate.test is None or candidate.test_logged is None:
        return {}
    at = {"auc": candidate.test, "loss": candidate.test_logged, "calibration": candidate.test_logged}
    found = {}
    for name in Metrics.model_fields:
        for kind, source in at.items():
            value = getattr(source, name) if f"_{kind}" in name else None
            if value is not None:
                found[name] = float(value)
    return found
