"""Outcomes of impressions, and their exact probabilities given what the model sees.

P(click | x) = F_click * E[s(a + c z)], z standard normal, s the logistic function, a the click logit, c the strength
of the latent; P(conversion in the window | do(click), x) = F_conversion * E[s(b + c z)]; given a click that was
merely seen, z has the density of those who click: E[s(a + c z) s(b + c z)] / E[s(a + c z)]. F are the shares of
delays within the windows; delays do not depend on z. Expectations by Gauss-Hermite quadrature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.polynomial.hermite_e import hermegauss
from numpy.typing import NDArray

from components.ingestion.sources.simulator_world import Exposures, Floats, Ints, SimulatorConfig, World, logits

NODES = 24
CLICK_DELAY = ((0.98, 20.0), (0.02, 3_600.0))
"""Mixture of exponentials, (share, mean seconds): a few clicks come after any sensible click window."""
CONVERSION_DELAY = ((0.85, 4 * 3_600.0), (0.15, 3 * 86_400.0))

_OUTCOMES = 2
_CHUNK = 50_000


@dataclass(frozen=True)
class Outcomes:
    """N impressions' outcomes, whenever they came. Times in microseconds since the first midnight, 0 where none."""

    click: NDArray[np.bool_]
    click_time: Ints
    conversion: NDArray[np.bool_]
    conversion_time: Ints


@dataclass(frozen=True)
class Truth:
    """Probabilities [N]; the names are explained in contracts/columns.py."""

    p_click: Floats
    p_click_reference: Floats
    p_conversion_do_click: Floats
    p_conversion_click: Floats


@dataclass(frozen=True)
class Mechanism:
    """The logits of all impressions, with intercepts that give the configured rates."""

    click: Floats
    click_reference: Floats
    conversion: Floats
    latent: float
    click_share: float
    conversion_share: float


def sigmoid(x: Floats) -> Floats:
    result: Floats = 1.0 / (1.0 + np.exp(-x))
    return result


def share_within(delay: tuple[tuple[float, float], ...], seconds: float) -> float:
    """Share of delays not longer than `seconds`."""
    return float(sum(share * -np.expm1(-seconds / mean) for share, mean in delay))


def make_mechanism(config: SimulatorConfig, world: World, shown: Exposures, reference_position: int = 1) -> Mechanism:
    click, conversion = logits(config, world, shown)
    reference, _ = logits(config, world, shown, position=reference_position)
    click_share = share_within(CLICK_DELAY, config.click_window_seconds)
    conversion_share = share_within(CONVERSION_DELAY, config.conversion_window_seconds)
    sample = np.linspace(0, len(shown) - 1, min(len(shown), 20_000)).astype(np.int64)
    a, b, c = click[sample], conversion[sample], config.selection_latent

    def ctr(intercept: float) -> float:
        return click_share * float(_moments(a + intercept, b, c)[0].mean())

    click_0 = _solve(ctr, config.ctr)

    def cvr(intercept: float) -> float:
        p_click, _, p_both = _moments(a + click_0, b + intercept, c)
        return conversion_share * float(p_both.sum() / p_click.sum())

    conversion_0 = _solve(cvr, config.cvr)
    return Mechanism(click + click_0, reference + click_0, conversion + conversion_0, c, click_share, conversion_share)


def truth_of(mechanism: Mechanism) -> Truth:
    p_click, p_conversion, p_both = _moments(mechanism.click, mechanism.conversion, mechanism.latent)
    reference = _moments(mechanism.click_reference, mechanism.conversion, mechanism.latent)[0]
    return Truth(
        p_click=p_click * mechanism.click_share,
        p_click_reference=reference * mechanism.click_share,
        p_conversion_do_click=p_conversion * mechanism.conversion_share,
        p_conversion_click=p_both / p_click * mechanism.conversion_share,
    )


def draw_outcomes(
    config: SimulatorConfig, shown: Exposures, mechanism: Mechanism, force_click: bool = False
) -> Outcomes:
    """Draws clicks, conversions and their times. `force_click` is do(click): everyone clicks, whatever the latent."""
    rng = np.random.default_rng([config.seed, _OUTCOMES])
    count = len(shown)
    latent = mechanism.latent * rng.standard_normal(count)
    click = (rng.random(count) < sigmoid(mechanism.click + latent)) | force_click
    conversion = click & (rng.random(count) < sigmoid(mechanism.conversion + latent))
    click_time = shown.time + _delays(rng, CLICK_DELAY, count)
    conversion_time = click_time + _delays(rng, CONVERSION_DELAY, count)
    return Outcomes(click, np.where(click, click_time, 0), conversion, np.where(conversion, conversion_time, 0))


def _delays(rng: np.random.Generator, mixture: tuple[tuple[float, float], ...], count: int) -> Ints:
    """Microseconds, at least one."""
    part = rng.choice(len(mixture), count, p=[share for share, _ in mixture])
    seconds = rng.exponential(np.array([mean for _, mean in mixture])[part])
    delays: Ints = np.maximum(seconds * 1e6, 1).astype(np.int64)
    return delays


def _moments(a: Floats, b: Floats, c: float) -> tuple[Floats, Floats, Floats]:
    """E[s(a+cz)], E[s(b+cz)] and E[s(a+cz) s(b+cz)], each [N]; in chunks, so that memory stays small."""
    nodes, weights = hermegauss(NODES)
    weights = weights / weights.sum()
    outputs = np.empty((3, len(a)))
    for begin in range(0, len(a), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        left = sigmoid(a[part, None] + c * nodes)
        right = sigmoid(b[part, None] + c * nodes)
        outputs[0, part] = left @ weights
        outputs[1, part] = right @ weights
        outputs[2, part] = (left * right) @ weights
    return outputs[0], outputs[1], outputs[2]


def _solve(rate: Callable[[float], float], target: float) -> float:
    """The intercept in [-20, 20] at which the increasing function `rate` is `target`, by bisection."""
    low, high = -20.0, 20.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if rate(middle) < target else (low, middle)
    return (low + high) / 2
