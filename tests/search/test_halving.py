"""Who goes on is decided as in algorithm 2 of the ASHA paper, worked by hand."""

import pytest
from search.made import result

from components.contracts.trial import Asked
from components.search import study as studies
from components.search.config import SweepConfig
from components.search.halving import going_on, may_go_on, ranking


def trial(number, *values, diverged=False):
    """A trial with these values at rungs 0, 1, ...; `diverged` at the one after."""
    found = None
    for rung, value in enumerate([*values, *([None] if diverged else [])]):
        asked = Asked(trial=number, rung=rung, share=1, candidate="esmm", params="{}", config="{}")
        found = studies.standing(found or studies.new(number, {}, {}), result(asked, value), 2)
    return found


SWEEP = SweepConfig(trials=12, rounds=4, rungs=3, eta=3)


def test_the_best_third_goes_on_and_no_trial_twice():
    trials = [trial(n, 0.1 * value) for n, value in enumerate([5, 2, 9, 1, 7, 8])]
    assert going_on(trials, SWEEP) == [(3, 1), (1, 1)]
    trials[3] = trial(3, 0.1, 0.3)
    assert going_on(trials, SWEEP) == [(3, 2), (1, 1)]
    trials[3], trials[1] = trial(3, 0.1, 0.3, 0.2), trial(1, 0.2, 0.4)
    assert going_on(trials, SWEEP) == []


def test_a_trial_passed_over_goes_on_once_worse_ones_have_joined():
    trials = [trial(0, 0.1, 0.1, 0.1), trial(1, 0.2), trial(2, 0.3)]
    assert going_on(trials, SWEEP) == []
    trials += [trial(n, 0.9) for n in (3, 4, 5)]
    assert going_on(trials, SWEEP) == [(1, 1)]


def test_at_least_one_goes_on_from_each_rung():
    assert going_on([trial(0, 0.3), trial(1, 0.2)], SWEEP) == [(1, 1)]
    assert going_on([trial(0, 0.3), trial(1, 0.2, 0.2)], SWEEP) == [(1, 2)]


def test_one_that_diverged_counts_and_never_goes_on():
    six = [trial(n, 0.1 * n) for n in range(4)] + [trial(n, diverged=True) for n in (4, 5)]
    assert going_on(six, SWEEP) == [(0, 1), (1, 1)]
    above = [trial(0, 0.1, diverged=True), trial(1, 0.2), trial(2, 0.3)]
    assert going_on(above, SWEEP) == []
    assert going_on([trial(0, diverged=True)], SWEEP, idle=True) == []


def test_an_idle_round_takes_the_best_that_waits():
    trials = [trial(0, 0.1, 0.5, 0.4), trial(1, 0.2), trial(2, 0.3)]
    assert going_on(trials, SWEEP) == []
    assert going_on(trials, SWEEP, idle=True) == [(1, 1)]


def test_some_always_go_on_and_their_state_is_kept():
    trials = [trial(0, 0.9), *(trial(n, 0.1 * n) for n in range(1, 6))]
    assert going_on(trials, SWEEP, always=(0,)) == [(1, 1), (2, 1), (0, 1)]
    many = [*trials, *(trial(n, 0.5) for n in range(6, 12))]
    assert 0 not in may_go_on(many, SWEEP)
    assert 0 in may_go_on(many, SWEEP, always=(0,))
    assert going_on([trial(0, 0.9, diverged=True), trial(1, 0.1, 0.1, 0.1)], SWEEP, always=(0,)) == []


def test_equal_values_go_on_by_age():
    assert [t.number for t in ranking([trial(1, 0.2), trial(0, 0.2), trial(2, 0.1)], 0)] == [2, 0, 1]


@pytest.mark.parametrize("seed", range(20))
def test_whoever_goes_on_had_its_state_kept(seed, random_search):
    """Whole searches with random values: a trial that goes on was among those kept in every round since its last."""
    kept = None
    for trials, going in random_search(SWEEP, seed):
        if kept is not None:
            assert {number for number, rung in going if rung} <= kept
        kept = set(may_go_on(trials, SWEEP))
        assert kept <= {t.number for t in trials}
        going_now = {number for number, _ in going_on(trials, SWEEP, idle=True)}
        assert going_now <= kept
