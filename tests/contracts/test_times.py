"""Times are UTC, or they are refused."""

from datetime import UTC, datetime

import pytest

from components.contracts.errors import UsageError
from components.contracts.times import format_utc, parse_utc


@pytest.mark.parametrize("text", ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05", "2026-01-02 04:04:05+01:00"])
def test_every_spelling_is_the_same_instant(text):
    assert parse_utc(text) == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_round_trip_keeps_microseconds():
    assert format_utc(parse_utc("2026-01-02T03:04:05.000001Z")) == "2026-01-02T03:04:05.000001Z"


def test_no_time_is_a_sentence():
    with pytest.raises(UsageError, match="as-of 'yesterday' is no ISO-8601 time"):
        parse_utc("yesterday", "as-of")
    with pytest.raises(ValueError, match="no time zone"):
        format_utc(datetime(2026, 1, 1))
