from __future__ import annotations

import numpy as np
import pytest

from components.evaluation.comparison import Scored, compare
from components.evaluation.metrics import Outcome, Predicted


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def world(seed: int, users: int = 400, each: int = 10) -> tuple[np.ndarray, Outcome, np.ndarray]:
    """Users whose impressions share a taste; returns log odds of a click, what happened, and whose row it is."""
    rng = np.random.default_rng(seed)
    who = np.repeat(np.arange(users), each)
    odds = rng.normal(-1.2, 0.8, users)[who] + rng.normal(0, 0.4, users * each)
    click = rng.random(len(who)) < sigmoid(odds)
    return odds, Outcome(click, click & (rng.random(len(who)) < 0.4)), who


def model(odds: np.ndarray) -> Scored:
    pctr = sigmoid(odds)
    predicted = Predicted(pctr, np.full(len(pctr), 0.4), pctr * 0.4)
    return Scored(logged=predicted, reference=predicted)


def test_a_model_against_itself_differs_by_nothing() -> None:
    odds, outcome, who = world(1)
    found = compare(model(odds), model(odds), outcome, who, replicates=50, auc_replicates=20)
    for interval in (found.ctr_log_loss, found.ctcvr_log_loss, found.ctr_auc, found.ctcvr_auc):
        assert interval is not None
        assert (interval.difference, interval.low, interval.high) == (0, 0, 0)
    assert found.users == 400


def test_the_sign_says_which_is_better() -> None:
    odds, outcome, who = world(2)
    dull = model(np.full(len(odds), odds.mean()))
    worse = compare(dull, model(odds), outcome, who, replicates=200)
    better = compare(model(odds), dull, outcome, who, replicates=200)
    assert worse.ctr_log_loss.low > 0
    assert better.ctr_log_loss.high < 0
    assert worse.ctr_log_loss.candidate > worse.ctr_log_loss.champion
    assert better.ctr_auc is not None
    assert better.ctr_auc.low > 0


def test_the_same_seed_gives_the_same_interval_and_order_of_users_does_not_matter() -> None:
    odds, outcome, who = world(3)
    pair = (model(odds + 0.1), model(odds))
    one = compare(*pair, outcome, who, replicates=100, seed=4)
    assert one == compare(*pair, outcome, who, replicates=100, seed=4)
    assert one.ctr_log_loss.low != compare(*pair, outcome, who, replicates=100, seed=5).ctr_log_loss.low
    named = np.array([f"u{n:04d}" for n in who], dtype=object)
    assert one == compare(*pair, outcome, named, replicates=100, seed=4)


def test_pairing_makes_the_interval_narrower_than_two_separate_ones() -> None:
    odds, outcome, who = world(4)
    rng = np.random.default_rng(0)
    candidate, champion = model(odds + rng.normal(0, 0.1, len(odds))), model(odds + rng.normal(0, 0.1, len(odds)))
    paired = compare(candidate, champion, outcome, who, replicates=400).ctr_log_loss
    # Unpaired: resample each model's own losses, with different draws of users.
    count = 400
    losses = [
        np.bincount(who, weights=-np.where(outcome.click, np.log(m.logged.pctr), np.log1p(-m.logged.pctr)))
        for m in (candidate, champion)
    ]
    drawn = []
    for _ in range(400):
        first, second = (loss[rng.integers(0, count, count)].sum() for loss in losses)
        drawn.append(first / second - 1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    assert paired.high - paired.low < 0.5 * (high - low)


def test_drawing_users_gives_a_wider_interval_than_drawing_rows() -> None:
    rng = np.random.default_rng(1)
    odds, outcome, who = world(5, users=200, each=40)
    per_user_error = rng.normal(0, 0.6, 200)[who]
    pair = (model(odds + per_user_error), model(odds))
    by_user = compare(*pair, outcome, who, replicates=300).ctr_log_loss
    by_row = compare(*pair, outcome, np.arange(len(who)), replicates=300).ctr_log_loss
    assert by_user.high - by_user.low > 1.2 * (by_row.high - by_row.low)


def test_the_interval_covers_the_true_difference_about_as_often_as_it_says() -> None:
    # The true relative difference, from a sample so large that its own noise does not matter.
    def tilted(odds: np.ndarray) -> Scored:
        return model(0.7 * odds + 0.1)

    odds, outcome, who = world(100, users=60_000)
    truth = compare(tilted(odds), model(odds), outcome, who, replicates=2, auc_replicates=0).ctr_log_loss.difference
    covered = 0
    trials = 120
    for seed in range(trials):
        odds, outcome, who = world(200 + seed, users=250)
        found = compare(
            tilted(odds), model(odds), outcome, who, replicates=200, auc_replicates=0, seed=seed
        ).ctr_log_loss
        covered += found.low <= truth <= found.high
    # 95% of 120 is 114; four standard errors (2.4 each) below it, and the percentile interval is slightly short.
    assert covered / trials == pytest.approx(0.95, abs=0.08)


def test_auc_is_left_out_where_a_class_is_absent() -> None:
    odds, outcome, who = world(6)
    nobody = Outcome(outcome.click, np.zeros(len(who), dtype=bool))
    found = compare(model(odds), model(odds + 0.2), nobody, who, replicates=20, auc_replicates=5)
    assert found.ctcvr_auc is None
    assert found.ctr_auc is not None
