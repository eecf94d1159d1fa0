"""Times without a zone against Python's own zone rules; the hours that a clock change repeats or skips by our rule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.contracts import duck
from components.ingestion.sources import convert
from components.ingestion.sources.convert import Clock
from components.ingestion.sources.reading import TEXT

ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Sydney")


def one(text: str, timezone: str) -> datetime | None:
    with duck.connect() as db:
        db.execute("CREATE TABLE t (x VARCHAR)")
        db.execute("INSERT INTO t VALUES (?)", [text])

        def ask(select: str) -> tuple[Any, ...]:
            return tuple(db.execute(f"SELECT {select} FROM t").fetchone() or ())

        found = convert.time("x", TEXT, "x", Clock(timezone), ask)
        value, fails = db.execute(f"SELECT {found.sql}, {found.fails} FROM t").fetchone() or (None, None)
        assert fails == (value is None)
        return value.astimezone(UTC) if value else None


@settings(max_examples=60)
@given(
    at=st.datetimes(datetime(1990, 1, 1), datetime(2035, 1, 1)),
    zone=st.sampled_from(ZONES),
    form=st.sampled_from(("T", " ")),
)
def test_local_times_as_python_reads_them(at: datetime, zone: str, form: str) -> None:
    here = at.replace(tzinfo=ZoneInfo(zone))
    if here.utcoffset() != here.replace(fold=1).utcoffset():
        return  # repeated or skipped: below
    assert one(at.isoformat(form), zone) == here.astimezone(UTC)
    shifted = here.astimezone(ZoneInfo("Asia/Kolkata"))
    assert one(shifted.isoformat(form), zone) == here.astimezone(UTC)


@pytest.mark.parametrize(
    ("zone", "skipped", "repeated", "standard"),
    [
        ("Europe/Berlin", "2026-03-29T02:30:00", "2026-10-25T02:30:00", 1),
        ("America/New_York", "2026-03-08T02:30:00", "2026-11-01T01:30:00", -5),
        ("Australia/Sydney", "2026-10-04T02:30:00", "2026-04-05T02:30:00", 10),
    ],
)
def test_hours_of_a_clock_change_are_standard_time(zone: str, skipped: str, repeated: str, standard: int) -> None:
    for text in (skipped, repeated):
        assert one(text, zone) == datetime.fromisoformat(text).replace(tzinfo=UTC) - timedelta(hours=standard)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-05-01", "2026-05-01T00:00:00+00:00"),
        ("2026-05-01T10:00", "2026-05-01T10:00:00+00:00"),
        ("2026-05-01T10:00Z", "2026-05-01T10:00:00+00:00"),
        ("2026-05-01 10:00:00.5+02", "2026-05-01T08:00:00.500000+00:00"),
        ("2026-05-01T10:00:00-0330", "2026-05-01T13:30:00+00:00"),
        ("2026-05-01T10:00:00.123456789Z", "2026-05-01T10:00:00.123456+00:00"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00+00:00"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999+00:00"),
        *((bad, None) for bad in ("2026-05-01T10", "2026-5-1", "2026-05-01T10:61Z", "now", "10:00", " 2026-05-01")),
        *((bad, None) for bad in ("2026-05-01Z", "2026-05-01T10:00:00 Europe/Berlin", "20260501T100000Z", "-infinity")),
        ("0000-05-01", None),
    ],
)  # fmt: skip
def test_forms_of_a_time(text: str, expected: str | None) -> None:
    assert one(text, "UTC") == (datetime.fromisoformat(expected) if expected else None)


def test_the_zone_shifts_the_end_of_the_years_out_of_what_can_be_shown() -> None:
    assert one("0001-01-01T00:00:00", "Europe/Berlin") is None
    assert one("9999-12-31T23:00:00", "America/New_York") is None
