"""Drift: each measure has data that must fail it, and data that moved a little and must pass."""

from __future__ import annotations

from typing import Any

import pytest

from components.contracts.quality import Drift
from components.validation import drift
from components.validation.distances import REPEATED, completed, repeat, shift
from components.validation.drift import DriftLimits, check
from components.validation.profile import GRID, ColumnProfile, DayProfile, Profile, TableProfile
from components.validation.runner import Checked, Runner

LINE = tuple(100 * p for p in GRID)
"""Quantiles of numbers spread evenly from 0 to 100."""


@pytest.fixture(scope="module")
def runner() -> Runner:
    return Runner()


def categories(*, values: int = 10_000, others: float = 0.0, **shares: float) -> ColumnProfile:
    return ColumnProfile(nulls=0.0, values=values, categories=shares, others=others)


def rare(others: float, values: range) -> ColumnProfile:
    """Values of half a percent each, named, among many more like them."""
    return ColumnProfile(nulls=0.0, values=10_000, categories={f"v{n}": 0.005 for n in values}, others=others)


def number(quantiles: tuple[float, ...] = LINE, nulls: float = 0.0, values: int = 10_000) -> ColumnProfile:
    return ColumnProfile(nulls=nulls, values=values, quantiles=quantiles)


def days(*volumes: int, click_rate: float = 0.1, conversion_rate: float = 0.1) -> dict[str, DayProfile]:
    last = len(volumes)
    return {
        f"2026-01-{day:02}": DayProfile(
            rows=volume,
            clicks=round(click_rate * volume),
            conversions=round(click_rate * conversion_rate * volume),
            volume=volume,
            partial=day in (1, last),
        )
        for day, volume in enumerate(volumes, start=1)
    }


def profile(
    columns: dict[str, ColumnProfile] | None = None, found: dict[str, DayProfile] | None = None, **changes: Any
) -> Profile:
    values: dict[str, Any] = {
        "dataset": "shop", "run": "r1", "as_of": "2026-01-05T00:00:00Z", "data_fingerprint": "earlier",
        "days": days(10_000, 10_000, 10_000, 10_000) if found is None else found,
        "log": TableProfile(rows=10_000, columns=columns or {}),
    }  # fmt: skip
    return Profile(**{**values, **changes})


def judged(
    runner: Runner, batch: Profile, reference: Profile | None, limits: DriftLimits | None = None
) -> tuple[list[Checked], dict[tuple[str, str], Drift], str]:
    batch = batch.model_copy(update={"data_fingerprint": "later"})
    checked, found, said = check(runner, batch, reference, limits or DriftLimits())
    return checked, {(f"{d.table}.{d.column}" if d.column else d.table, d.measure): d for d in found}, said


def failed(runner: Runner, batch: Profile, reference: Profile) -> set[tuple[str, str]]:
    _, found, _ = judged(runner, batch, reference)
    return {key for key, measure in found.items() if not measure.passed}


def test_the_same_figures_pass_every_measure(runner: Runner) -> None:
    columns = {"device": categories(phone=0.6, web=0.4), "price": number()}
    checked, found, said = judged(runner, profile(columns), profile(columns))
    assert {measure for _, measure in found} == set(drift.MEASURES)
    assert all(measure.passed for measure in found.values())
    assert said == (
        "held against the profile of run r1, as of 2026-01-05T00:00:00Z: all 8 measures are within their limits"
    )
    assert {outcome.code for suite in checked for outcome in suite.outcomes} == {"DRIFT"}
    assert {outcome.scope for suite in checked for outcome in suite.outcomes} == {"set"}


def test_without_a_reference_nothing_is_judged_and_the_command_that_makes_one_is_named(runner: Runner) -> None:
    checked, found, said = judged(runner, profile(), None)
    assert (checked, found) == ([], {})
    assert "not judged, for want of a reference" in said
    assert "esmm profile accept RUN --out FILE" in said


def test_a_reference_of_the_same_data_says_nothing(runner: Runner) -> None:
    columns = {"device": categories(phone=1.0)}
    moved = profile({"device": categories(web=1.0)})
    checked, found, said = check(runner, moved, profile(columns), DriftLimits())
    assert (checked, found) == ([], ())
    assert "was taken of this very data" in said


class TestCategoryShares:
    KEY = ("log.device", "category shares")

    def of(self, runner: Runner, batch: ColumnProfile, reference: ColumnProfile) -> Drift:
        _, found, _ = judged(runner, profile({"device": batch}), profile({"device": reference}))
        return found[self.KEY]

    def test_a_shuffled_mix_fails(self, runner: Runner) -> None:
        found = self.of(runner, categories(phone=0.1, web=0.3, tv=0.6), categories(phone=0.6, web=0.3, tv=0.1))
        assert not found.passed
        assert found.observed == pytest.approx(0.5 * 1.791759, abs=1e-3)  # 0.5 ln 6, the divergence by hand
        assert "'phone' from 60.0 % to 10.0 %" in found.says
        assert "log.device moved by 0.89" in found.says

    def test_a_small_move_passes(self, runner: Runner) -> None:
        found = self.of(runner, categories(phone=0.5, web=0.5), categories(phone=0.6, web=0.4))
        assert found.passed
        assert found.observed == pytest.approx(0.0204, abs=1e-3)

    def test_a_renamed_category_fails(self, runner: Runner) -> None:
        found = self.of(runner, categories(Phone=0.6, web=0.4), categories(phone=0.6, web=0.4))
        assert not found.passed
        assert "'phone' from 60.0 % to 0.0 %" in found.says

    def test_a_new_category_is_finite_and_a_small_one_passes(self, runner: Runner) -> None:
        reference = categories(phone=0.6, web=0.4)
        small = self.of(runner, categories(phone=0.58, web=0.39, tv=0.03), reference)
        large = self.of(runner, categories(phone=0.4, web=0.3, tv=0.3), reference)
        assert (small.passed, large.passed) == (True, False)
        assert small.observed is not None
        assert large.observed is not None
        assert small.observed < 0.2 < large.observed

    def test_a_category_that_is_gone_fails(self, runner: Runner) -> None:
        assert not self.of(runner, categories(web=1.0), categories(phone=0.6, web=0.4)).passed

    def test_which_of_many_rare_values_are_named_does_not_matter(self, runner: Runner) -> None:
        batch = rare(0.75, range(50))
        reference = rare(0.75, range(40, 90))
        found = self.of(runner, batch, reference)
        assert found.passed
        assert found.observed == pytest.approx(0.0, abs=1e-6)

    def test_a_frequent_value_among_many_rare_ones_is_noticed(self, runner: Runner) -> None:
        reference = rare(0.755, range(49))
        batch = reference.model_copy(update={"categories": {**reference.categories, "bot": 0.4}, "others": 0.355})
        assert not self.of(runner, batch, reference).passed

    def test_a_category_called_like_the_others_is_one_of_its_own(self, runner: Runner) -> None:
        batch = ColumnProfile(nulls=0, values=10_000, categories={"all others": 0.7}, others=0.3)
        reference = ColumnProfile(nulls=0, values=10_000, categories={"all others": 0.3}, others=0.7)
        assert not self.of(runner, batch, reference).passed

    def test_braces_in_a_value_are_kept(self, runner: Runner) -> None:
        batch = ColumnProfile(nulls=0, values=10_000, categories={"{found}": 1.0})
        assert "'{found}' from 0.0 % to 100.0 %" in self.of(runner, batch, categories(phone=1.0)).says

    def test_few_values_are_not_judged(self, runner: Runner) -> None:
        batch, reference = profile({"device": categories(web=1.0, values=999)}), profile({"device": categories(a=1.0)})
        _, found, said = judged(runner, batch, reference)
        assert self.KEY not in found
        assert "not judged, fewer than 1,000 values: log.device" in said

    def test_many_categories_need_many_values(self, runner: Runner) -> None:
        some = {f"v{n}": 0.02 for n in range(50)}
        for values, judged_so in ((2499, False), (2500, True)):
            column = ColumnProfile(nulls=0.0, values=values, categories=some)
            _, found, said = judged(runner, profile({"device": column}), profile({"device": column}))
            assert (self.KEY in found) == judged_so
            assert ("fewer than 50 values a category: log.device" in said) != judged_so


class TestQuantiles:
    KEY = ("log.price", "quantiles")

    def of(self, runner: Runner, batch: tuple[float, ...], reference: tuple[float, ...]) -> Drift:
        _, found, _ = judged(runner, profile({"price": number(batch)}), profile({"price": number(reference)}))
        return found[self.KEY]

    def test_a_unit_changed_fails(self, runner: Runner) -> None:
        found = self.of(runner, tuple(100 * value for value in LINE), LINE)
        assert not found.passed
        assert found.observed == pytest.approx(0.95)
        assert "the 0.05 quantile of log.price moved from 5 to 500" in found.says

    def test_a_shift_is_measured_in_shares_of_the_reference(self, runner: Runner) -> None:
        near, far = (self.of(runner, tuple(value + by for value in LINE), LINE) for by in (10, 20))
        assert (near.passed, far.passed) == (True, False)
        assert [near.observed, far.observed] == pytest.approx([0.1, 0.2])

    def test_new_extremes_alone_pass(self, runner: Runner) -> None:
        assert self.of(runner, (-1e9, *LINE[1:-1], 1e9), LINE).passed

    def test_a_column_of_few_values_may_change_its_shares_a_little(self, runner: Runner) -> None:
        def ones(share: float) -> tuple[float, ...]:
            return tuple(float(p > 1 - share) for p in GRID)

        assert self.of(runner, ones(0.4), ones(0.3)).passed
        assert not self.of(runner, ones(0.6), ones(0.3)).passed

    def test_a_constant_that_changes_fails(self, runner: Runner) -> None:
        assert self.of(runner, (1.0,) * 21, (1.0,) * 21).passed
        assert not self.of(runner, (2.0,) * 21, (1.0,) * 21).passed

    def test_what_is_shown_and_what_decides_agree(self, runner: Runner) -> None:
        for by in range(40):
            found = self.of(runner, tuple(value + by for value in LINE), LINE)
            assert found.observed is not None
            assert found.passed == (found.observed <= 0.15), by


class TestNullShare:
    def test_a_jump_fails_either_way(self, runner: Runner) -> None:
        full, half = profile({"price": number()}), profile({"price": number(nulls=0.5)})
        assert failed(runner, half, full) == {("log.price", "null share")}
        assert failed(runner, full, half) == {("log.price", "null share")}
        _, found, _ = judged(runner, half, full)
        assert found["log.price", "null share"].says == (
            "the null share of log.price moved from 0.0 % to 50.0 % (limit 5 percentage points)"
        )

    def test_a_small_change_passes(self, runner: Runner) -> None:
        assert not failed(runner, profile({"price": number(nulls=0.14)}), profile({"price": number(nulls=0.1)}))

    def test_a_column_that_lost_all_its_values_fails(self, runner: Runner) -> None:
        batch = profile({"price": ColumnProfile(nulls=1.0, values=0)})
        assert failed(runner, batch, profile({"price": number()})) == {("log.price", "null share")}

    def test_a_small_table_is_not_judged(self, runner: Runner) -> None:
        small = profile(log=TableProfile(rows=20, columns={"price": number(nulls=0.5)}))
        _, found, said = judged(runner, small, profile({"price": number()}))
        assert ("log.price", "null share") not in found
        assert "fewer than 1,000 values: log.price" in said


class TestRates:
    @pytest.mark.parametrize("rate", [0.0, 0.04, 0.21, 1.0])
    def test_a_click_rate_far_off_fails(self, runner: Runner, rate: float) -> None:
        batch = profile(found=days(1000, 1000, 1000, click_rate=rate, conversion_rate=0.1))
        assert ("log", "click rate") in failed(runner, batch, profile())

    def test_a_click_rate_nearby_passes(self, runner: Runner) -> None:
        assert not failed(runner, profile(found=days(9000, 9000, 9000, click_rate=0.15)), profile())

    @pytest.mark.parametrize("rate", [0.0, 0.04, 0.3])
    def test_a_conversion_rate_far_off_fails(self, runner: Runner, rate: float) -> None:
        batch = profile(found=days(10_000, 10_000, 10_000, conversion_rate=rate))
        assert failed(runner, batch, profile()) == {("log", "conversion rate")}

    def test_few_events_are_not_judged(self, runner: Runner) -> None:
        batch = profile(found=days(1000, 1000, 1000, conversion_rate=0.0))  # 300 clicks: 30 conversions would be due
        _, found, said = judged(runner, batch, profile())
        assert ("log", "conversion rate") not in found
        assert "not judged, fewer than 50 conversions: conversion rate" in said

    def test_a_reference_of_few_events_is_no_measure(self, runner: Runner) -> None:
        _, found, _ = judged(runner, profile(), profile(found=days(1000, 1000, 1000, conversion_rate=0.1)))
        assert ("log", "conversion rate") not in found


class TestVolume:
    def test_a_day_of_ten_times_the_volume_fails_even_at_the_end(self, runner: Runner) -> None:
        for volumes in ((10_000, 100_000, 10_000, 10_000), (10_000, 10_000, 10_000, 100_000)):
            assert failed(runner, profile(found=days(*volumes)), profile()) == {("log", "busiest day")}

    def test_a_day_that_is_almost_empty_fails(self, runner: Runner) -> None:
        batch = profile(found=days(10_000, 10_000, 1000, 10_000))
        assert failed(runner, batch, profile()) == {("log", "quietest day")}
        _, found, _ = judged(runner, batch, profile())
        assert found["log", "quietest day"].says == (
            "the quietest day, 2026-01-03, has 1,000 impressions and the reference's 10,000 (limit a factor of 3 below)"
        )

    def test_a_missing_day_fails(self, runner: Runner) -> None:
        assert failed(runner, profile(found=days(10_000, 10_000, 0, 10_000)), profile()) == {("log", "quietest day")}

    def test_a_day_that_is_only_begun_passes(self, runner: Runner) -> None:
        assert not failed(runner, profile(found=days(9000, 10_000, 10_000, 100)), profile())

    def test_a_weekend_the_reference_has_too_passes(self, runner: Runner) -> None:
        week = days(10_000, 10_000, 2000, 2000, 10_000)
        assert not failed(runner, profile(found=week), profile(found=week))

    def test_without_a_whole_day_it_is_said(self, runner: Runner) -> None:
        _, found, said = judged(runner, profile(found=days(10_000, 10_000)), profile())
        assert ("log", "quietest day") not in found
        assert "no whole day to compare: quietest day" in said


def test_columns_that_only_one_has_are_named_and_not_judged(runner: Runner) -> None:
    _, found, said = judged(runner, profile({"new": number()}), profile({"old": number(), "older": number()}))
    assert not [key for key in found if key[0] not in ("log",)]
    assert "not judged, new since the reference: log.new" in said
    assert "not judged, no longer read: log.old, log.older" in said


def test_a_view_is_judged_like_the_log(runner: Runner) -> None:
    def with_view(column: ColumnProfile) -> Profile:
        return profile(views={"people": TableProfile(rows=10_000, columns={"country": column})})

    batch, reference = with_view(categories(de=0.1, fr=0.9)), with_view(categories(de=0.9, fr=0.1))
    assert failed(runner, batch, reference) == {("people.country", "category shares")}


def test_a_failed_measure_has_a_sentence_that_can_stand_alone(runner: Runner) -> None:
    checked, _, said = judged(runner, profile({"price": number(nulls=0.5)}), profile({"price": number()}))
    problems = [outcome.problem for suite in checked for outcome in suite.outcomes if outcome.problem]
    assert problems == ["the null share of log.price moved from 0.0 % to 50.0 % (limit 5 percentage points)"]
    assert "1 of 6 measures is beyond the limit" in said


def test_limits_are_taken_from_the_config(runner: Runner) -> None:
    limits = DriftLimits(max_null_change=0.6)
    _, found, _ = judged(runner, profile({"price": number(nulls=0.5)}), profile({"price": number()}), limits)
    assert found["log.price", "null share"].passed
    assert found["log.price", "null share"].limit == 0.6


def test_the_native_results_are_kept(runner: Runner) -> None:
    checked, found, _ = judged(runner, profile({"price": number()}), profile({"price": number()}))
    assert sum(len(suite.outcomes) for suite in checked) == len(found)
    assert all(suite.native and suite.page for suite in checked)


def test_every_measure_is_in_the_table_with_its_limit() -> None:
    rows = drift.measures_table()
    assert [row[0] for row in rows] == list(drift.MEASURES)
    assert ("null share", "every column", "difference of the shares, either way", "`max_null_change` 0.05") in rows


def test_shares_are_repeated_by_largest_remainder() -> None:
    listed = repeat({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})
    assert len(listed) == REPEATED
    assert {value: listed.count(value) for value in "abc"} == {"a": 3334, "b": 3333, "c": 3333}


def test_shares_that_rounding_left_short_still_fill_the_frame() -> None:
    assert len(repeat({"a": 0.333333, "b": 0.666666})) == REPEATED


def test_a_value_the_other_does_not_name_gets_no_more_than_its_rarest_or_its_rest() -> None:
    batch = categories(others=0.1, a=0.6, b=0.3)
    reference = categories(others=0.02, a=0.5, b=0.2, c=0.28)
    observed, expected = completed(batch, reference)
    assert observed == pytest.approx({"a": 0.6, "b": 0.3, "c": 0.1, "all others": 0.0})
    assert expected == pytest.approx({"a": 0.5, "b": 0.2, "c": 0.28, "all others": 0.02})


@pytest.mark.parametrize(
    ("p", "value", "expected"), [(0.5, 50.0, 0.0), (0.5, 62.0, 0.12), (0.5, 30.0, 0.2), (0.5, 1e9, 0.5), (0.9, -1, 0.9)]
)
def test_shift(p: float, value: float, expected: float) -> None:
    assert shift(p, value, LINE) == pytest.approx(expected)
