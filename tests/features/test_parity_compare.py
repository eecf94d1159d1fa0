"""When two values are the same, and when one is missing."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from components.contracts.spec import View
from components.features.parity.compare import canonical, in_last_second, listed, same, shown
from components.features.parity.online import concatenated
from components.scoring.raw import Ragged

DAY = 86_400_000_000
VIEW = View(name="v", entity="user_id", ttl_seconds=86400, fields=("a",))


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        ("float", None, None), ("float", float("nan"), None), ("float", np.float64("nan"), None), ("float", 3, 3.0),
        ("int", 3.0, 3), ("int", np.nan, None), ("int", 2**62 + 1, 2**62 + 1), ("int", 3.5, 3.5),
        ("bool", 1.0, True), ("bool", False, False), ("string", "", ""), ("string", None, None),
        ("strings", [], None), ("strings", ["b", "a"], ["b", "a"]), ("floats", [1, 0.5], [1.0, 0.5]),
    ],
)  # fmt: skip
def test_a_value_in_one_form(dtype, value, expected):
    found = canonical(value, dtype)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("a", "b", "equal"),
    [
        (None, None, True), (None, 0, False), (0, None, False), ("", None, False), (0.1 + 0.2, 0.3, False),
        (1.0, 1.0, True), (2**62, 2**62 + 1, False), ("a", "A", False), (True, False, False), (False, None, False),
        (["a", "b"], ["b", "a"], False), (["a"], ["a", "a"], False), ([1.0, 2.0], [1.0, 2.0], True),
        ([1.0, 2.0], [1.0, 2.5], False), (float("inf"), float("inf"), True), (float("inf"), 1.0, False),
    ],
)  # fmt: skip
def test_equal_means_equal(a, b, equal):
    assert same(a, b, tolerance=0.0) is equal


def test_a_tolerance_is_for_numbers_alone():
    assert same(1.0, 1.05, tolerance=0.1)
    assert not same(1.0, 1.2, tolerance=0.1)
    assert same([1.0, 2.0], [1.05, 2.0], tolerance=0.1)
    assert not same(None, 0.0, tolerance=10.0)


@pytest.mark.parametrize(
    ("event", "at", "excused"),
    [
        (600_000, DAY + 300_000, True),  # a day less 0.3 s old; stamped a whole second, a day and 0.3 s
        (600_000, DAY + 600_000, True),  # exactly as old as it may be
        (600_000, DAY + 600_001, False),  # too old on both sides
        (600_000, DAY, False),  # within the time to live on both sides
        (0, DAY, False),  # a whole second: nothing is lost
        (None, DAY, False),
    ],
)
def test_the_last_second_of_a_time_to_live(event, at, excused):
    assert in_last_second(at, event, VIEW) is excused


def test_columns_of_single_rows_become_one():
    bags = [Ragged(np.array(["a", "b"], object), np.array([0, 2])), Ragged(np.zeros(0), np.array([0, 0]))]
    assert listed(concatenated(bags)) == [["a", "b"], []]
    assert listed(concatenated(bags[1:])) == [[]]
    assert listed(concatenated([np.array([1, 2]), np.array([np.nan])]))[:2] == [1, 2]
    assert listed(concatenated([np.array(["a"], object), np.array([None], object)])) == ["a", None]


def test_values_are_shown_short():
    assert shown(None) == "missing"
    assert shown(0) == "0"
    assert shown("0") == "'0'"
    assert shown(datetime(2026, 1, 2, tzinfo=UTC)) == "2026-01-02T00:00:00Z"
    assert len(shown(["x" * 50] * 9)) == 80
