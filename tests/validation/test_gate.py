"""The gate as a pure function: closed just above each limit, open at it, closed without evidence."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.validation.gate import Day, Evidence, ValidationLimits, decide, exceeds, percent

LIMITS = ValidationLimits()


def evidence(*days: tuple[int, int, int], failures: tuple[str, ...] = (), checks: int = 20) -> Evidence:
    """Days as (rows, bad, funnel)."""
    made = tuple(Day(day=f"2026-01-{n + 1:02}", rows=r, bad=b, funnel=f) for n, (r, b, f) in enumerate(days))
    return Evidence(days=made, set_checks=checks, failures=failures)


@pytest.mark.parametrize("nothing", [None, evidence(checks=0), evidence((100, 0, 0), checks=0), evidence()])
def test_no_evidence_means_closed(nothing: Evidence | None) -> None:
    verdict = decide(nothing, LIMITS)
    assert not verdict.open
    assert verdict.reasons


def test_a_spotless_log_opens() -> None:
    verdict = decide(evidence((100, 0, 0)), LIMITS)
    assert verdict.open
    assert verdict.reasons == ()


def test_a_failed_set_wide_expectation_closes() -> None:
    verdict = decide(evidence((100, 0, 0), failures=("the log has no column 'click'",)), LIMITS)
    assert not verdict.open
    assert verdict.reasons == ("the log has no column 'click'",)


@pytest.mark.parametrize(
    ("days", "opens"),
    [
        ([(1000, 100, 0), (9000, 0, 0)], True),  # a day exactly at 10 %
        ([(1000, 101, 0), (9000, 0, 0)], False),
        ([(1000, 10, 10), (9000, 0, 0)], True),  # a day exactly at 1 % of the funnel
        ([(1000, 11, 11), (9000, 0, 0)], False),
        ([(1000, 50, 0), (1000, 50, 0)], True),  # exactly 5 % of all
        ([(1000, 50, 0), (1000, 51, 0)], False),
    ],
)
def test_each_limit_is_the_last_that_opens(days: list[tuple[int, int, int]], opens: bool) -> None:
    assert decide(evidence(*days), LIMITS).open is opens


counts = st.integers(1, 5000).flatmap(
    lambda rows: st.integers(0, rows).flatmap(lambda bad: st.integers(0, bad).map(lambda funnel: (rows, bad, funnel)))
)


@given(st.lists(counts, min_size=1, max_size=20))
def test_open_exactly_when_no_share_is_above_its_limit(days: list[tuple[int, int, int]]) -> None:
    """In whole numbers: bad / rows > 10 % is 10 bad > rows."""
    expected = (
        all(10 * bad <= rows for rows, bad, _ in days)
        and all(100 * funnel <= rows for rows, _, funnel in days)
        and 20 * sum(bad for _, bad, _ in days) <= sum(rows for rows, _, _ in days)
    )
    assert decide(evidence(*days), LIMITS).open is expected


@given(st.lists(counts, min_size=1, max_size=10), st.integers(0, 9))
def test_another_bad_row_never_opens_a_closed_gate(days: list[tuple[int, int, int]], at: int) -> None:
    closed = not decide(evidence(*days), LIMITS).open
    rows, bad, funnel = days[at % len(days)]
    worse = [*days]
    worse[at % len(days)] = (rows, min(rows, bad + 1), funnel)
    if closed:
        assert not decide(evidence(*worse), LIMITS).open


def test_a_closed_gate_gives_every_reason() -> None:
    verdict = decide(evidence((100, 30, 5), (100, 0, 0), failures=("one thing", "another")), LIMITS)
    assert verdict.reasons == (
        "one thing; another",
        "30.0 % of 100 rows on 2026-01-01 are bad (limit 10.0 % a day)",
        "5.0 % of 100 rows on 2026-01-01 are conversions without a click (limit 1.0 % a day)",
        "15.0 % of all 200 rows are bad (limit 5.0 %)",
    )


def test_many_bad_days_are_counted_and_the_worst_named() -> None:
    (reason, _) = decide(evidence(*[(100, 20 + n, 0) for n in range(9)]), LIMITS).reasons
    assert reason.startswith("28.0 % of 100 rows on 2026-01-09, 27.0 % of 100 rows on 2026-01-08")
    assert "and too many on 6 other days" in reason


def test_limits_are_config() -> None:
    tight = ValidationLimits(max_day_bad_share=0.0, max_total_bad_share=0.0, max_day_funnel_share=0.0)
    assert not decide(evidence((10**6, 1, 0)), tight).open
    assert decide(evidence((10**6, 0, 0)), tight).open


def test_a_share_is_never_shown_as_the_limit_it_exceeds() -> None:
    assert percent(0.0) == "0.0 %"
    assert percent(0.3) == "30.0 %"
    assert percent(0.00123) == "0.12 %"
    reason = decide(evidence((100_000, 10_001, 0), (10**6, 0, 0)), LIMITS).reasons[0]
    assert "10.001 %" in reason
    assert not exceeds(3, 10, 0.3)
    assert exceeds(4, 10, 0.3)


def test_every_limit_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    assert [name for name in ValidationLimits.model_fields if name != "drift" and f"`{name}`" not in text] == []
