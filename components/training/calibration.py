"""Calibration of pCVR: an increasing function of its logit, fitted on the clicked impressions of the validation split.

Ranking by pCTCVR = pCTR x pCVR and bidding by it need probabilities. A network's are off where its loss changed the
rate of conversions (AMAN's sampled negatives), where it overfits, or where clicks and conversions share what no
feature shows. Platt scaling (Platt, "Probabilistic outputs for support vector machines", 1999) mends the level and the
spread of the log odds, isotonic regression (Zadrozny and Elkan, KDD 2002) any monotone bend, given data enough.

Whether a click would convert is observed of clicked impressions alone, so calibrated is P(conversion | click) among
impressions *that get clicked*: what pCTR x pCVR needs, and no repair of pCVR over all impressions.

Letters of shapes: N clicked impressions, B impressions. Everything is float64 but what `Curve` puts into the graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression
from scipy.special import expit, logit
from torch import Tensor, nn

from components.contracts.calibration import Calibration
from components.training.data import CHUNK, Rows

Array = NDArray[np.float64]
Wanted = Literal["auto", "platt", "isotonic", "none"]

SCALE_DEVIATION = 0.5
"""Standard deviation of the prior of Platt's scale around 1."""
SHIFT_DEVIATION = 1.0
"""Of the prior of the shift at the mean logit around 0. It weighs as much as about one conversion."""
SMALLEST_SCALE = 0.05
"""Where pCVR ranks clicks no better than the reverse, the scale ends here: rankings are kept, differences are not."""
LARGEST_SCALE = 10.0
"""A steeper function would blow float32 rounding of a logit up to another probability."""
BINS = 50
"""An isotonic calibration is fitted on so many bins of equal numbers of clicks, each with 20 conversions on average."""
ISOTONIC_CONVERSIONS = 1000
"""Isotonic only above so many: it has a parameter a bin, and fewer conversions it would learn by heart."""
FOLDS = 5
STANDARD_ERRORS = 2.0
""" "auto" takes isotonic if its cross-validated log loss is lower by more than this many standard errors."""


@dataclass(frozen=True)
class Clicks:
    """Clicked impressions: logits of pCVR, whether they converted, and a fold of cross-validation; [N] each."""

    logits: Array
    converted: NDArray[np.bool_]
    fold: NDArray[np.int64]

    def where(self, rows: NDArray[np.bool_]) -> Clicks:
        return Clicks(self.logits[rows], self.converted[rows], self.fold[rows])

    @property
    def conversions(self) -> int:
        return int(self.converted.sum())


def calibrate(clicks: Clicks, wanted: Wanted) -> Calibration:
    """The calibration of a model, with the reason for its kind.

    "auto" is Platt, or above ISOTONIC_CONVERSIONS conversions isotonic if it proves better on folds it was not fitted
    on. Without conversions, or without clicks that did not convert, nothing can be fitted and pCVR stays as it is.
    Equal input gives equal output.
    """
    facts = {"clicks": len(clicks.logits), "conversions": clicks.conversions}
    if wanted == "none":
        return Calibration(note="the recipe asks for none", **facts)
    lacking = _lacking(clicks)
    if lacking:
        return Calibration(note=lacking, **facts)
    if wanted == "platt":
        return platt(clicks)
    if clicks.conversions <= ISOTONIC_CONVERSIONS:
        few = f"isotonic only above {ISOTONIC_CONVERSIONS:,} conversions" if wanted == "isotonic" else ""
        return platt(clicks).model_copy(update={"note": few})
    bent = isotonic(clicks)
    if bent.kind != "isotonic" or wanted == "isotonic":
        return bent
    gains = held_out_losses(clicks, platt) - held_out_losses(clicks, isotonic)
    gain, error = float(gains.mean()), float(gains.std(ddof=1) / np.sqrt(len(gains)))
    found = f"isotonic changes log loss by {-gain:+.1e} (standard error {error:.0e}) on clicks held out of the fit"
    chosen = bent if gain > STANDARD_ERRORS * error else platt(clicks)
    return chosen.model_copy(update={"note": found})


def refit(clicks: Clicks, kind: str) -> Calibration:
    """As `calibrate`, of a kind that is decided already: for the folds of a cross-fit."""
    if kind == "none" or _lacking(clicks):
        return Calibration()
    return isotonic(clicks) if kind == "isotonic" else platt(clicks)


def _lacking(clicks: Clicks) -> str:
    if not len(clicks.logits):
        return "the validation split has no clicks"
    if not clicks.conversions:
        return "none of its clicks on validation converted, so there is nothing to fit"
    if clicks.conversions == len(clicks.logits):
        return "all of its clicks on validation converted, so there is nothing to fit"
    if not np.isfinite(clicks.logits).all():
        return "some of its logits are not finite"
    return ""


def platt(clicks: Clicks) -> Calibration:
    """Platt scaling with a positive scale: scale, bias = argmin of the log loss of sigmoid(scale * logit + bias).

    Platt smooths the targets, by (N+ + 1) / (N+ + 2) and 1 / (N- + 2), against clicks that are separated perfectly. A
    weak normal prior around leaving the logits alone does that and more: with five conversions it keeps scale and level
    near the network's, which knows more than five conversions do, and it sets the scale where all logits are equal. It
    sits on the scale and on the shift *at the mean logit*, which hardly depend on each other; with n conversions it
    moves the mean prediction by about 1/n of itself. The problem is strictly convex, so its one solution is found by
    Newton's method from any start; where its scale is outside of SMALLEST_SCALE to LARGEST_SCALE, the solution within
    them lies on the nearer bound.
    """
    centre = float(clicks.logits.mean())
    spread = clicks.logits - centre
    scale, shift = _newton(spread, centre, clicks.converted, None)
    if not SMALLEST_SCALE <= scale <= LARGEST_SCALE:
        bound = min(max(scale, SMALLEST_SCALE), LARGEST_SCALE)
        scale, shift = _newton(spread, centre, clicks.converted, bound)
    return Calibration(
        kind="platt",
        scale=scale,
        bias=centre + shift - scale * centre,
        clicks=len(spread),
        conversions=clicks.conversions,
    )


def _newton(spread: Array, centre: float, converted: NDArray[np.bool_], fixed: float | None) -> tuple[float, float]:
    """Scale and shift of least penalised log loss, the scale held where it is `fixed`. Newton's method, damped."""
    design = np.stack([spread, np.ones_like(spread)])
    precision = np.array([SCALE_DEVIATION**-2, SHIFT_DEVIATION**-2])
    start = np.array([1.0, 0.0])
    free = np.array([fixed is None, True])

    def loss(at: Array) -> float:
        z = at @ design + centre
        prior = 0.5 * (precision * (at - start) ** 2).sum()
        return float((np.logaddexp(0, z) - z * converted).sum() + prior)

    point = start if fixed is None else np.array([fixed, 0.0])
    now = loss(point)
    for _ in range(100):
        p = expit(point @ design + centre)
        gradient = design @ (p - converted) + precision * (point - start)
        curvature = (design * (p * (1 - p))) @ design.T + np.diag(precision)
        step = np.zeros(2)
        step[free] = -np.linalg.solve(curvature[np.ix_(free, free)], gradient[free])
        # At the solution rounding alone decides whether a step gains anything, so such small ones are not tried.
        if np.abs(step).max() < 1e-9:
            break
        while (then := loss(point + step)) > now:
            step /= 2
            if np.abs(step).max() < 1e-12:
                break
        point, now = point + step, then
    return float(point[0]), float(point[1])


def isotonic(clicks: Clicks) -> Calibration:
    """Isotonic regression of the rate of conversions on the logit, as straight lines that rise everywhere.

    Isotonic regression itself is a step function, which would give all clicks of a step one pCVR: its ranking would
    collapse into ties. Here each step is one knot, at the mean logit of its clicks, and straight lines between the
    knots (in log odds) rise from step to step; beyond the knots the slope is Platt's. So that no single click makes a
    step, rates are those of BINS bins, each with one conversion added at the rate that Platt scaling gives the bin.
    Knots between which a line would be flatter than SMALLEST_SCALE or steeper than LARGEST_SCALE are pooled. If that
    leaves one, the answer is Platt's.
    """
    straight = platt(clicks)
    edges = np.unique(np.quantile(clicks.logits, np.linspace(0, 1, BINS + 1)[1:-1]))
    _, bins = np.unique(np.searchsorted(edges, clicks.logits, side="right"), return_inverse=True)
    prior = expit(apply(straight, clicks.logits)).clip(1e-6, 1 - 1e-6)
    rows = np.bincount(bins).astype(np.float64)
    where = np.bincount(bins, clicks.logits) / rows
    weight = rows + rows / np.bincount(bins, prior)
    rate = (np.bincount(bins, clicks.converted) + 1) / weight
    steps = isotonic_regression(rate, weights=weight).blocks
    rows, where, rate, weight = (np.asarray(a) for a in _pooled(steps, rows, where, rate, weight))
    while len(rate) > 1:
        slopes = np.diff(logit(rate)) / np.diff(where)
        wrong = np.flatnonzero((slopes < SMALLEST_SCALE) | (slopes > LARGEST_SCALE))
        if not len(wrong):
            break
        kept = np.delete(np.arange(len(rate) + 1), wrong[0] + 1)
        rows, where, rate, weight = _pooled(kept, rows, where, rate, weight)
    if len(rate) < 2:
        return straight.model_copy(update={"note": "isotonic found one step only"})
    return straight.model_copy(
        update={"kind": "isotonic", "bias": 0.0, "knots": tuple(zip(where.tolist(), logit(rate).tolist(), strict=True))}
    )


def _pooled(
    steps: NDArray[np.intp], rows: Array, where: Array, rate: Array, weight: Array
) -> tuple[Array, Array, Array, Array]:
    """Bins joined into steps: `steps` holds where each begins and, last, where the last one ends."""
    begins = steps[:-1]
    total, mass = np.add.reduceat(rows, begins), np.add.reduceat(weight, begins)
    return (
        total,
        np.add.reduceat(rows * where, begins) / total,
        np.add.reduceat(weight * rate, begins) / mass,
        mass,
    )


def apply(calibration: Calibration, logits: Array) -> Array:
    """Calibrated logits, [B] -> [B], in float64."""
    if calibration.kind != "isotonic":
        return calibration.scale * logits + calibration.bias
    x, y = np.array(calibration.knots).T
    outside = calibration.scale * (logits - logits.clip(x[0], x[-1]))
    return np.asarray(np.interp(logits, x, y) + outside)


def held_out_losses(clicks: Clicks, fit: Callable[[Clicks], Calibration]) -> Array:
    """Log loss in nats of each click, [N], calibrated by a fit on the other folds."""
    losses = np.empty(len(clicks.logits))
    for fold in np.unique(clicks.fold):
        held = clicks.fold == fold
        z = apply(fit(clicks.where(~held)), clicks.logits[held])
        losses[held] = np.logaddexp(0, z) - z * clicks.converted[held]
    return losses


class Curve(nn.Module):
    """A calibration for eager and graph alike: float32 logits [B] -> [B].

    The isotonic one is a sum of rising pieces, added in one order, so that rounding cannot make it fall.
    """

    def __init__(self, calibration: Calibration) -> None:
        super().__init__()
        self.kind, self.scale, self.bias = calibration.kind, calibration.scale, calibration.bias
        x, y = (np.array(calibration.knots) if calibration.knots else np.zeros((2, 2))).T
        pieces = {"begin": x[:-1], "width": np.diff(x), "slope": np.diff(y) / np.diff(x).clip(1e-300)}
        for name, values in {**pieces, "first": x[0], "last": x[-1], "start": y[0]}.items():
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)

    def forward(self, logits: Tensor) -> Tensor:
        if self.kind == "none":
            return logits
        if self.kind == "platt":
            return self.scale * logits + self.bias
        get = self.get_buffer
        inside = (logits.unsqueeze(1) - get("begin")).clamp(min=0).minimum(get("width")) * get("slope")
        below = (logits - get("first")).clamp(max=0) * self.scale
        above = (logits - get("last")).clamp(min=0) * self.scale
        return get("start") + below + inside.sum(1) + above

    @torch.no_grad()
    def over(self, logits: Tensor) -> Tensor:
        """As `forward`, for a whole split: its pieces would take a float a knot and row."""
        return torch.cat([self(part) for part in torch.split(logits, CHUNK)])


def on_validation(logits: Tensor, rows: Rows, wanted: Wanted) -> tuple[Calibration, Tensor]:
    """Calibrates by a validation split on the CPU.

    Args:
        logits: of pCVR, [B].

    Returns:
        The calibration, and the logits [B], float64, of each impression by a calibration of the same kind that was
        fitted without its fold. Candidates are compared by those: a calibration that follows the noise of the split
        looks better on that split than it is.
    """
    z = logits.double().numpy()
    clicked = rows.click.numpy() > 0
    fold = np.arange(len(z)) % FOLDS
    clicks = Clicks(z[clicked], rows.conversion.numpy()[clicked] > 0, fold[clicked])
    calibration = calibrate(clicks, wanted)
    held_out = np.empty_like(z)
    for number in range(FOLDS):
        held = fold == number
        held_out[held] = apply(refit(clicks.where(clicks.fold != number), calibration.kind), z[held])
    return calibration, torch.from_numpy(held_out)


class Calibrated(nn.Module):
    """A network and its calibration, as evaluated, exported and served: its inputs -> logits of (pCTR, pCVR), [B]."""

    def __init__(self, network: nn.Module, calibration: Calibration) -> None:
        super().__init__()
        self.network = network
        self.curve = Curve(calibration)

    def forward(self, ids: Tensor, dense: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        logit_ctr, logit_cvr = self.network(ids, dense, weights)
        return logit_ctr, self.curve(logit_cvr)
