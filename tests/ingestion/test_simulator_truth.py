"""The truth must be true: realised frequencies of 300,000 impressions agree with it, bin by bin."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

from components.ingestion.sources.simulator_truth import (
    CLICK_DELAY,
    CONVERSION_DELAY,
    Mechanism,
    Outcomes,
    Truth,
    draw_outcomes,
    make_mechanism,
    share_within,
    truth_of,
)
from components.ingestion.sources.simulator_world import Exposures, SimulatorConfig, build_world, draw_exposures

CONFIG = SimulatorConfig(days=8, users=5_000, items=500, impressions=300_000, seed=11, selection_latent=1.2)


class Drawn(NamedTuple):
    shown: Exposures
    mechanism: Mechanism
    truth: Truth


@pytest.fixture(scope="module")
def drawn() -> Drawn:
    world = build_world(CONFIG)
    shown = draw_exposures(CONFIG, world)
    mechanism = make_mechanism(CONFIG, world, shown)
    return Drawn(shown, mechanism, truth_of(mechanism))


def attributed(shown: Exposures, outcomes: Outcomes) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    click = outcomes.click & (outcomes.click_time - shown.time <= CONFIG.click_window_seconds * 1e6)
    in_time = outcomes.conversion_time - outcomes.click_time <= CONFIG.conversion_window_seconds * 1e6
    return click, click & outcomes.conversion & in_time


def worst_z(p: NDArray[np.float64], happened: NDArray[np.bool_], bins: int = 20) -> float:
    """Largest distance of a bin's frequency from its mean probability, in standard errors."""
    worst = 0.0
    for part in np.array_split(np.argsort(p, kind="stable"), bins):
        error = np.sqrt((p[part] * (1 - p[part])).sum())
        worst = max(worst, abs(happened[part].sum() - p[part].sum()) / error)
    return worst


def test_click_is_calibrated(drawn: Drawn) -> None:
    click, _ = attributed(drawn.shown, draw_outcomes(CONFIG, drawn.shown, drawn.mechanism))
    assert worst_z(drawn.truth.p_click, click) < 4


def test_click_at_the_reference_position_is_calibrated(drawn: Drawn) -> None:
    moved = replace(drawn.mechanism, click=drawn.mechanism.click_reference)
    click, _ = attributed(drawn.shown, draw_outcomes(CONFIG, drawn.shown, moved))
    assert worst_z(drawn.truth.p_click_reference, click) < 4
    assert worst_z(drawn.truth.p_click, click) > 10  # the check can fail


def test_conversion_given_click_is_calibrated(drawn: Drawn) -> None:
    click, conversion = attributed(drawn.shown, draw_outcomes(CONFIG, drawn.shown, drawn.mechanism))
    assert worst_z(drawn.truth.p_conversion_click[click], conversion[click]) < 4
    both = drawn.truth.p_click * drawn.truth.p_conversion_click
    assert worst_z(both, conversion) < 4


def test_conversion_under_do_click_is_calibrated(drawn: Drawn) -> None:
    outcomes = draw_outcomes(CONFIG, drawn.shown, drawn.mechanism, force_click=True)
    click, conversion = attributed(drawn.shown, outcomes)
    p = drawn.truth.p_conversion_do_click
    assert outcomes.click.all()
    assert worst_z(p[click], conversion[click]) < 4


def test_the_latent_makes_clicked_impressions_convert_more_than_do_click_says(drawn: Drawn) -> None:
    click, conversion = attributed(drawn.shown, draw_outcomes(CONFIG, drawn.shown, drawn.mechanism))
    assert (drawn.truth.p_conversion_click > drawn.truth.p_conversion_do_click).all()
    assert conversion[click].mean() > 1.2 * drawn.truth.p_conversion_do_click[click].mean()


def test_without_latent_the_two_conversion_probabilities_are_one() -> None:
    config = CONFIG.model_copy(update={"selection_latent": 0.0, "impressions": 20_000})
    world = build_world(config)
    shown = draw_exposures(config, world)
    truth = truth_of(make_mechanism(config, world, shown))
    np.testing.assert_allclose(truth.p_conversion_click, truth.p_conversion_do_click, rtol=1e-9)


def test_rates_are_the_configured_ones(drawn: Drawn) -> None:
    p, q = drawn.truth.p_click, drawn.truth.p_conversion_click
    assert p.mean() == pytest.approx(CONFIG.ctr, rel=0.02)
    assert (p * q).sum() / p.sum() == pytest.approx(CONFIG.cvr, rel=0.03)


def test_observed_selection_ties_click_to_conversion() -> None:
    def correlation(strength: float) -> float:
        config = CONFIG.model_copy(update={"selection_observed": strength, "impressions": 50_000})
        world = build_world(config)
        mechanism = make_mechanism(config, world, draw_exposures(config, world))
        return float(np.corrcoef(mechanism.click, mechanism.conversion)[0, 1])

    assert correlation(0.0) + 0.1 < correlation(0.5) < correlation(1.5) - 0.1


def test_some_events_come_after_their_window() -> None:
    assert 0.98 < share_within(CLICK_DELAY, 3_600) < 0.999
    assert 0.8 < share_within(CONVERSION_DELAY, 86_400) < 0.95
    assert share_within(CONVERSION_DELAY, 0) == 0
