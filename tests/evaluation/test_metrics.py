from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from components.contracts.decision import Candidate
from components.evaluation.metrics import (
    Outcome,
    Predicted,
    auc,
    calibration,
    constant_log_loss,
    entire_space,
    expected_auc,
    headline,
    log_loss,
    losses,
    metrics,
    reliability,
)

rng = np.random.default_rng(0)


def funnel(n: int = 4000) -> tuple[Predicted, Outcome]:
    pctr, pcvr = rng.beta(1, 6, n), rng.beta(1, 4, n)
    click = rng.random(n) < pctr
    conversion = click & (rng.random(n) < pcvr)
    return Predicted(pctr, pcvr, pctr * pcvr), Outcome(click, conversion)


def test_auc_equals_sklearn_also_with_many_ties() -> None:
    for decimals in (1, 2, 8):
        scores, labels = np.round(rng.random(3000), decimals), rng.random(3000) < 0.1
        assert auc(scores, labels) == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-14)


def test_a_tie_counts_one_half_and_a_lone_class_gives_none() -> None:
    assert auc(np.array([0.5, 0.5]), np.array([True, False])) == 0.5
    assert auc(np.array([0.1, 0.5, 0.5]), np.array([False, True, False])) == 0.75
    assert auc(np.array([0.1, 0.2]), np.array([True, True])) is None
    assert auc(np.array([]), np.array([], dtype=bool)) is None


def test_log_loss_equals_sklearn_and_stays_finite_at_certainty() -> None:
    scores, labels = rng.random(500), rng.random(500) < 0.3
    assert log_loss(scores, labels) == pytest.approx(sk.log_loss(labels, scores))
    assert losses(np.array([0.0, 1.0]), np.array([True, False])) == pytest.approx([27.63, 27.63], abs=0.01)
    assert log_loss(np.array([]), np.array([])) is None


def test_calibration_is_predicted_over_observed() -> None:
    assert calibration(np.array([0.5, 0.5]), np.array([1, 0])) == 1.0
    assert calibration(np.array([0.9, 0.9]), np.array([True, False])) == pytest.approx(1.8)
    assert calibration(np.array([0.9]), np.array([False])) is None


def test_constant_log_loss_is_that_of_the_rate() -> None:
    labels = np.array([True] + [False] * 9)
    assert constant_log_loss(1, 10) == pytest.approx(sk.log_loss(labels, np.full(10, 0.1)))
    assert constant_log_loss(0, 10) == 0.0


def test_cvr_auc_is_over_clicked_impressions_only() -> None:
    # pCVR here merely predicts the click: over all impressions it looks good, over clicked ones it knows nothing.
    n = 20_000
    appeal = rng.random(n)
    click = rng.random(n) < appeal**3
    conversion = click & (rng.random(n) < 0.3)
    found = metrics(Predicted(appeal, appeal, appeal * appeal), Outcome(click, conversion))
    over_all = auc(appeal, conversion)
    assert over_all is not None
    assert found.cvr_auc_clicked is not None
    assert over_all > 0.75
    assert found.cvr_auc_clicked == pytest.approx(0.5, abs=0.03)
    assert found.cvr_auc_clicked == pytest.approx(sk.roc_auc_score(conversion[click], appeal[click]))


def test_metrics_agree_with_sklearn_head_by_head() -> None:
    scores, outcome = funnel()
    found = metrics(scores, outcome)
    assert (found.rows, found.clicks, found.conversions) == (4000, outcome.click.sum(), outcome.conversion.sum())
    assert found.ctr_auc == pytest.approx(sk.roc_auc_score(outcome.click, scores.pctr))
    assert found.ctcvr_auc == pytest.approx(sk.roc_auc_score(outcome.conversion, scores.pctcvr))
    assert found.ctcvr_log_loss == pytest.approx(sk.log_loss(outcome.conversion, scores.pctcvr))
    clicked = outcome.click
    assert found.cvr_log_loss_clicked == pytest.approx(sk.log_loss(outcome.conversion[clicked], scores.pcvr[clicked]))
    assert found.cvr_calibration_clicked == pytest.approx(scores.pcvr[clicked].sum() / outcome.conversion.sum())


def test_metrics_without_a_click_leave_cvr_out() -> None:
    none = np.zeros(10, dtype=bool)
    found = metrics(Predicted(np.full(10, 0.1), np.full(10, 0.1), np.full(10, 0.01)), Outcome(none, none))
    assert found.ctr_auc is None
    assert found.cvr_auc_clicked is None
    assert found.cvr_log_loss_clicked is None
    assert found.ctcvr_calibration is None
    with pytest.raises(ValueError, match="no rows"):
        metrics(Predicted(*[np.zeros(0)] * 3), Outcome(none[:0], none[:0]))


def test_expected_auc_is_the_mean_over_drawn_labels() -> None:
    q, scores = rng.beta(1, 3, 60), rng.random(60)
    pairs = [(i, j) for i in range(60) for j in range(60) if i != j]
    right = sum(q[i] * (1 - q[j]) * ((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j])) for i, j in pairs)
    total = sum(q[i] * (1 - q[j]) for i, j in pairs)
    assert expected_auc(scores, q) == pytest.approx(right / total)
    labels = (rng.random(60) < 0.4).astype(float)
    assert expected_auc(scores, labels) == pytest.approx(sk.roc_auc_score(labels, scores))


def test_entire_space_is_best_for_the_truth_itself() -> None:
    q = rng.beta(1, 5, 3000)
    perfect, doubled = entire_space(q, q), entire_space(np.minimum(2 * q, 0.99), q)
    assert perfect["entire_space_cvr_excess"] == pytest.approx(0, abs=1e-12)
    assert perfect["entire_space_cvr_ratio"] == pytest.approx(1)
    assert doubled["entire_space_cvr_ratio"] > 1.8
    assert doubled["entire_space_cvr_excess"] > 0.01
    noise = entire_space(rng.random(3000), q)
    assert noise["entire_space_cvr_auc"] == pytest.approx(0.5, abs=0.03)
    assert perfect["entire_space_cvr_auc"] > 0.7


def test_reliability_bins_have_equal_mass_and_lie_on_the_diagonal_for_the_truth() -> None:
    p = rng.beta(1, 8, 60_000)
    points = reliability(p, rng.random(60_000) < p, bins=10)
    assert [point["rows"] for point in points] == [6000.0] * 10
    for point in points:
        error = np.sqrt(point["predicted"] / point["rows"])
        assert abs(point["observed"] - point["predicted"]) < 4 * error
    assert reliability(np.array([]), np.array([])) == []
    assert len(reliability(np.array([0.1, 0.2]), np.array([0, 1]), bins=10)) == 2


def test_headline_takes_auc_at_the_reference_and_the_rest_at_the_logged_position() -> None:
    scores, outcome = funnel()
    logged = metrics(scores, outcome)
    test = logged.model_copy(update={"ctr_auc": 0.123, "ctr_log_loss": 9.0, "ctr_calibration": 9.0})
    found = headline(Candidate(name="a", eligible=True, test=test, test_logged=logged))
    assert found["ctr_auc"] == 0.123
    assert found["ctr_log_loss"] == logged.ctr_log_loss
    assert found["ctr_calibration"] == logged.ctr_calibration
    assert len(found) == 9
    assert headline(Candidate(name="b", eligible=False)) == {}
