"""Calibration of pCVR: the function fitted, and that it rises whatever the data."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from components.contracts.calibration import Calibration
from components.training import calibration as k
from components.training.calibration import Clicks, Curve, apply, calibrate
from components.training.data import Rows

Array = NDArray[np.float64]


def made(
    count: int, truth: Callable[[Array], Array], seed: int = 0, mean: float = -2.0, deviation: float = 1.0
) -> Clicks:
    """Clicks whose true log odds are `truth` of the logit that the network gives them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(mean, deviation, count)
    return Clicks(logits, rng.random(count) < expit(truth(logits)), np.arange(count) % k.FOLDS)


def straight(z: Array) -> Array:
    return 0.6 * z - 1.0


def bent(z: Array) -> Array:
    """No scale and bias make this of a logit: flat up to -2, steep above."""
    return np.where(z < -2, -3.5 + 0.1 * (z + 2), -3.5 + 2.5 * (z + 2))


def log_loss(calibration: Calibration, clicks: Clicks) -> float:
    z = apply(calibration, clicks.logits)
    return float((np.logaddexp(0, z) - z * clicks.converted).mean())


@pytest.mark.parametrize(("scale", "bias"), [(0.6, -1.0), (1.0, 0.0), (1.8, 0.5), (1.0, -2.0)])
def test_platt_finds_the_scale_and_bias_that_made_the_data(scale: float, bias: float) -> None:
    clicks = made(200_000, lambda z: scale * z + bias)
    found = k.platt(clicks)
    # Standard errors from the curvature of the log loss at the truth.
    p = expit(scale * clicks.logits + bias)
    design = np.stack([clicks.logits, np.ones_like(p)])
    errors = np.sqrt(np.diag(np.linalg.inv((design * p * (1 - p)) @ design.T)))
    assert found.kind == "platt"
    assert abs(found.scale - scale) < 4 * errors[0] < 0.1
    assert abs(found.bias - bias) < 4 * errors[1] < 0.2
    assert (found.clicks, found.conversions) == (200_000, clicks.conversions)
    predicted = expit(apply(found, clicks.logits)).sum()
    assert predicted == pytest.approx(clicks.conversions, abs=5)  # the prior is worth about one conversion


@pytest.mark.parametrize("count", [30, 300, 30_000])
def test_platt_is_converged(count: int) -> None:
    """At the solution a general optimizer, started anywhere, finds nothing better."""
    clicks = made(count, straight, seed=3)
    centre = clicks.logits.mean()

    def penalised(at: Array) -> float:
        z = at[0] * (clicks.logits - centre) + centre + at[1]
        prior = ((at[0] - 1) / k.SCALE_DEVIATION) ** 2 / 2 + (at[1] / k.SHIFT_DEVIATION) ** 2 / 2
        return float((np.logaddexp(0, z) - z * clicks.converted).sum() + prior)

    found = k.platt(clicks)
    at = np.array([found.scale, found.bias - centre + found.scale * centre])
    for start in ((0.1, 2.0), (3.0, -2.0)):
        other = minimize(penalised, start, method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12})
        assert at == pytest.approx(other.x, abs=1e-5)
        assert penalised(at) <= other.fun + 1e-9 * abs(other.fun)


@pytest.mark.parametrize("count", [200, 50_000])
def test_the_scale_stays_positive_where_pcvr_ranks_the_wrong_way_round(count: int) -> None:
    clicks = made(count, lambda z: -1.5 * z - 5)
    found = k.platt(clicks)
    assert found.scale == k.SMALLEST_SCALE > 0
    assert expit(apply(found, clicks.logits)).mean() == pytest.approx(clicks.converted.mean(), rel=0.1)


def test_the_scale_is_bounded_above_where_logits_hardly_differ() -> None:
    clicks = made(400_000, lambda z: 100 * (z + 2) - 2, deviation=0.01)
    assert k.platt(clicks).scale == k.LARGEST_SCALE


def test_a_few_conversions_change_little_and_level_out_what_is_far_off() -> None:
    few = Clicks(np.linspace(-3, -1, 40), np.arange(40) == 5, np.arange(40) % k.FOLDS)
    found = k.platt(few)
    assert 0.5 < found.scale < 1.2
    before, after = (expit(z).sum() for z in (few.logits, apply(found, few.logits)))
    assert before > 5
    assert 1 < after < 0.6 * before
    same = Clicks(np.full(100, -1.0), np.arange(100) < 10, np.arange(100) % k.FOLDS)
    equal = k.platt(same)
    assert equal.scale == pytest.approx(1)
    assert expit(apply(equal, same.logits)).mean() == pytest.approx(0.1, rel=0.15)


@pytest.mark.parametrize("wanted", ["auto", "platt", "isotonic"])
@pytest.mark.parametrize(
    ("logits", "converted", "says"),
    [
        ([], [], "no clicks"),
        ([-1.0, -2.0], [False, False], "none of its clicks"),
        ([-1.0, -2.0], [True, True], "all of its clicks"),
        ([-1.0, float("-inf")], [True, False], "not finite"),
    ],
)
def test_without_what_it_is_fitted_on_pcvr_stays_and_the_reason_is_given(
    wanted: k.Wanted, logits: list[float], converted: list[bool], says: str
) -> None:
    clicks = Clicks(np.array(logits), np.array(converted, bool), np.arange(len(logits)) % k.FOLDS)
    found = calibrate(clicks, wanted)
    assert found.kind == "none"
    assert found.function == {}
    assert says in found.note
    assert (found.clicks, found.conversions) == (len(logits), sum(converted))


def test_none_is_none_whatever_the_data() -> None:
    found = calibrate(made(5000, straight), "none")
    assert (found.kind, found.note) == ("none", "the recipe asks for none")


def with_conversions(clicks: Clicks, wanted: int) -> Clicks:
    """The first clicks, up to the one with which so many have converted."""
    upto = int(np.searchsorted(np.cumsum(clicks.converted), wanted)) + 1
    return clicks.where(np.arange(len(clicks.logits)) < upto)


@pytest.mark.parametrize(("conversions", "kind"), [(1000, "platt"), (1001, "isotonic")])
@pytest.mark.parametrize("wanted", ["auto", "isotonic"])
def test_isotonic_takes_more_than_a_thousand_conversions(wanted: k.Wanted, conversions: int, kind: str) -> None:
    clicks = with_conversions(made(40_000, bent), conversions)
    assert clicks.conversions == conversions
    found = calibrate(clicks, wanted)
    assert found.kind == kind
    if wanted == "isotonic" and kind == "platt":
        assert "above 1,000 conversions" in found.note


def test_isotonic_follows_a_bend_on_clicks_it_has_not_seen_and_auto_takes_it() -> None:
    clicks, later = made(40_000, bent), made(100_000, bent, seed=1)
    found = calibrate(clicks, "auto")
    assert found.kind == "isotonic"
    assert "held out" in found.note
    assert log_loss(found, later) < log_loss(k.platt(clicks), later) - 0.002
    inside = np.linspace(-3.5, 0, 50)
    # A bin of the flat part has 800 clicks of which some 24 convert: a standard error of .2 in log odds.
    assert apply(found, inside) == pytest.approx(bent(inside), abs=0.8)
    predicted = expit(apply(found, later.logits)).sum()
    assert predicted / later.conversions == pytest.approx(1, abs=4 / np.sqrt(clicks.conversions))


@pytest.mark.parametrize("seed", range(5))
def test_auto_stays_with_platt_where_a_straight_line_is_the_truth(seed: int) -> None:
    found = calibrate(made(20_000, straight, seed), "auto")
    assert found.kind == "platt"
    assert "isotonic changes log loss by +" in found.note


def test_isotonic_on_logits_that_are_all_equal_is_platt() -> None:
    logits = np.full(20_000, -2.0)
    clicks = Clicks(logits, np.arange(20_000) % 10 == 0, np.arange(20_000) % k.FOLDS)
    found = calibrate(clicks, "isotonic")
    assert (found.kind, found.note) == ("platt", "isotonic found one step only")


numbers = st.floats(-30, 30, allow_nan=False, width=32)


@settings(deadline=None, max_examples=40)
@given(
    st.lists(st.tuples(numbers, st.booleans()), min_size=2, max_size=80),
    st.integers(1, 60),
    st.sampled_from([k.platt, k.isotonic]),
)
def test_every_calibration_rises(
    rows: list[tuple[float, bool]], copies: int, fit: Callable[[Clicks], Calibration]
) -> None:
    """Of any clicks: by at least SMALLEST_SCALE in float64, and in float32, as it is served, it never falls."""
    logits, converted = (np.array(column) for column in zip(*(rows * copies), strict=True))
    if converted.all() or not converted.any():
        return
    found = fit(Clicks(logits.astype(np.float64), converted, np.arange(len(logits)) % k.FOLDS))
    even = np.linspace(-40, 40, 4001)
    slopes = np.diff(apply(found, even)) / np.diff(even)
    assert slopes.min() > 0.99 * k.SMALLEST_SCALE > 0
    assert slopes.max() < 1.01 * k.LARGEST_SCALE
    served = Curve(found)(torch.tensor(np.concatenate([even, logits]), dtype=torch.float32).unique())
    assert (served.diff() >= 0).all()


@pytest.mark.parametrize("fit", [k.platt, k.isotonic])
def test_the_curve_of_graph_and_eager_is_the_function_in_float64(fit: Callable[[Clicks], Calibration]) -> None:
    clicks = made(40_000, bent)
    found = fit(clicks)
    grid = np.linspace(-12, 6, 10_001)
    curve = Curve(found)
    served = curve.over(torch.tensor(grid, dtype=torch.float32))
    # Logits up to 12 in size, some 30 float32 operations.
    assert served.double().numpy() == pytest.approx(apply(found, grid), abs=2e-5)
    assert torch.equal(served[:7], curve(torch.tensor(grid[:7], dtype=torch.float32)))


def test_cross_fitting_measures_what_the_fit_on_all_flatters() -> None:
    """Logits that know nothing: whatever isotonic finds in them is noise."""
    rng = np.random.default_rng(0)
    logits = rng.normal(-2, 1, 12_000)
    conversion = torch.tensor(rng.random(12_000) < 0.12, dtype=torch.float32)
    empty = torch.zeros(12_000, 0)
    rows = Rows(empty, empty, empty, torch.ones(12_000), conversion)
    found, held_out = k.on_validation(torch.tensor(logits, dtype=torch.float32), rows, "isotonic")
    assert found.conversions == int(conversion.sum()) > 1000

    def loss(z: torch.Tensor) -> float:
        return float(torch.nn.functional.binary_cross_entropy_with_logits(z.double(), conversion.double()))

    assert loss(held_out) > loss(torch.tensor(apply(found, logits)))
