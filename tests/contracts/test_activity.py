"""Counts of the seven days before a moment, against counting by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.contracts import activity

DAY = 86_400_000_000
entities = st.integers(0, 4)
times = st.one_of(st.integers(0, 20 * DAY), st.integers(0, 20).map(lambda day: day * DAY))


def ints(values):
    return np.array(values, np.int64)


@given(st.lists(st.tuples(entities, times), max_size=40), st.lists(st.tuples(entities, times), max_size=12))
def test_counts_are_those_made_by_hand(events, rows):
    found = activity.count(
        *(ints([e[n] for e in events]) for n in (0, 1)), *(ints([r[n] for r in rows]) for n in (0, 1))
    )
    by_hand = [sum(e == who and stamp - 7 * DAY <= time < stamp for e, time in events) for who, stamp in rows]
    assert found.tolist() == by_hand


@pytest.mark.parametrize(("time", "counts"), [(-1, 0), (0, 1), (7 * DAY - 1, 1), (7 * DAY, 0)])
def test_the_window_has_its_start_and_not_its_end(time, counts):
    assert activity.count(ints([0]), ints([time]), ints([0]), ints([7 * DAY])).tolist() == [counts]


def test_the_rate_of_who_was_not_shown_is_none_and_no_zero():
    events = {
        "impressions": (ints([0, 0, 1]), ints([1, 2, 3])),
        "clicks": (ints([0, 2]), ints([2, 3])),
        "conversions": (ints([]), ints([])),
    }
    found = activity.features("user", events, ints([0, 1, 2]), ints([DAY] * 3))
    assert list(found) == ["user_impressions_7d", "user_clicks_7d", "user_conversions_7d", "user_ctr_7d"]
    assert found["user_clicks_7d"].tolist() == [1, 0, 1]
    assert found["user_ctr_7d"][:2].tolist() == [0.5, 0.0]
    assert np.isnan(found["user_ctr_7d"][2])
