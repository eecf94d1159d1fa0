"""Rules about the set as a whole: days, source, feature tables, drift; and what later stages are told."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pyarrow.parquet as pq
import pytest
from validation.made import CONFIG, Row, feature_rows, wide, wide_features

from components.contracts.dataset import Imported, SplitConfig
from components.contracts.errors import DataGateClosed
from components.contracts.files import read_manifest
from components.contracts.quality import Maturity, MaturityDay, Quality
from components.validation.gate import ValidationLimits
from components.validation.profile import Profile, load


def sentence(stage: Any, *arguments: Any, wide: bool = False, **options: Any) -> str:
    """Why the gate closed."""
    with pytest.raises(DataGateClosed) as closed:
        (stage.run_wide if wide else stage.run)(*arguments, **options)
    assert not stage.clean.exists()
    return str(closed.value)


# Days.


def without(rows: list[Row], *days: str) -> list[Row]:
    return [r for r in rows if r["dt"] not in days]


def test_closes_for_a_missing_day(stage: Any, rows: list[Row]) -> None:
    message = sentence(stage, without(rows, "2026-01-02"))
    assert "from 2026-01-01 to 2026-01-04 there is no partition for 2026-01-02 (limit 0 days)" in message


def test_missing_days_are_counted_and_the_first_named(stage: Any, make_rows: Any, limited: Any) -> None:
    rows = make_rows(days=12, a_day=100)
    gone = [f"2026-01-{day:02}" for day in range(2, 10)]
    message = sentence(stage, without(rows, *gone), config=limited(max_missing_days=7))
    assert "2026-01-02, 2026-01-03, 2026-01-04, 2026-01-05, 2026-01-06 and 3 more (limit 7 days)" in message


def test_opens_at_the_limit_of_missing_days(stage: Any, rows: list[Row], limited: Any) -> None:
    assert stage.run(without(rows, "2026-01-02"), config=limited(max_missing_days=1))["gate"] == "open"


def test_a_missing_day_is_no_matter_where_the_split_is_not_by_time(stage: Any, rows: list[Row]) -> None:
    """Synthetic or scattered times: there is no date that would have to be there."""
    info = CONFIG.info.model_copy(update={"split": SplitConfig(kind="hash")})
    config = CONFIG.model_copy(update={"info": info})
    assert stage.run(without(rows, "2026-01-02"), config=config)["gate"] == "open"


def test_a_row_with_a_broken_clock_opens_no_gap(stage: Any, rows: list[Row], limited: Any) -> None:
    """Its day is a partition of its own, decades away, but not one of usable rows."""
    at = rows[1]["event_timestamp"] - timedelta(days=20_000)
    soiled = [*rows, {**rows[1], "impression_id": "old", "event_timestamp": at, "dt": at.date().isoformat()}]
    facts = stage.run(soiled, config=limited(max_day_bad_share=1.0))
    assert facts["reasons"] == {"TIME_RANGE": 1}


def test_closes_for_an_empty_day(stage: Any, rows: list[Row]) -> None:
    path = stage.folder / "impressions" / "dt=2026-01-02" / "part-0.parquet"

    def empty() -> None:
        pq.write_table(pq.ParquetFile(path).read().slice(0, 0), path)

    assert "the partition of 2026-01-02 has no rows" in sentence(stage, rows, after=empty)


# The source.


def imported(**what: Any) -> dict[str, Any]:
    return {"imported": Imported(**what).model_dump(mode="json")}


def test_closes_for_too_many_refused_lines(stage: Any, rows: list[Row]) -> None:
    facts = imported(lines=1000, refused={"not UTF-8": 11, "wrong number of fields": 40})
    message = sentence(stage, rows, facts=facts)
    assert (
        "51 of the source's 1,000 lines were refused, a share of 0.051 (limit 0.05): 40 wrong number of fields, "
        "11 not UTF-8" in message
    )


def test_opens_at_the_limit_of_refused_lines(stage: Any, rows: list[Row]) -> None:
    assert stage.run(rows, facts=imported(lines=1000, refused={"not UTF-8": 50}))["gate"] == "open"


def test_closes_for_a_truncated_source_whatever_was_read(stage: Any, rows: list[Row]) -> None:
    message = sentence(stage, rows, facts=imported(lines=1000, truncated=("skeleton.csv.gz",)))
    assert "skeleton.csv.gz ended before its end, and what is lost is unknown" in message


# Feature tables.


@pytest.mark.parametrize(("days_back", "opens"), [(13, True), (14, False)])
def test_a_feature_table_may_be_as_old_as_it_lives(
    stage: Any, rows: list[Row], features: list[Row], days_back: int, opens: bool
) -> None:
    """Its newest rows are of 2026-01-03, as-of is 2026-01-20, and it lives 30 days."""
    late = timedelta(days=days_back)
    old = [{**r, "event_timestamp": r["event_timestamp"] - late, "created": r["created"] - late} for r in features]
    if opens:
        assert stage.run(rows, old)["gate"] == "open"
    else:
        message = sentence(stage, rows, old)
        assert (
            "the newest row of feature table profile is of 2025-12-20T00:00:00Z, 31 days before as-of "
            "2026-01-20T00:00:00Z, and its values live 30 days (limit 1 times that)" in message
        )


def test_the_age_of_a_feature_table_is_a_limit(stage: Any, rows: list[Row], limited: Any) -> None:
    assert "newest row of feature table profile" in sentence(stage, rows, config=limited(max_view_age=0.5))


@pytest.mark.parametrize("value", [-0.01, 1.01])
def test_closes_for_a_feature_out_of_its_range(stage: Any, rows: list[Row], value: float) -> None:
    soiled = wide_features(feature_rows())
    soiled[3] = {**soiled[3], "user_ctr_7d": value}
    message = sentence(stage, wide(rows), soiled, wide=True)
    assert "user_ctr_7d of feature table profile is not within 0 and 1 in 1 of 51 rows" in message


def test_some_values_out_of_range_can_be_allowed(stage: Any, rows: list[Row]) -> None:
    soiled = wide_features(feature_rows())
    soiled[3] = {**soiled[3], "user_ctr_7d": -1.0}
    soiled[4] = {**soiled[4], "user_ctr_7d": float("nan")}  # no value
    assert stage.run_wide(wide(rows), soiled, ValidationLimits(max_view_range_share=1 / 51))["gate"] == "open"


@pytest.mark.parametrize(
    "change",
    [{"likes": ["p"]}, {"likes": None}, {"likes": ["p", None]}, {"likes_weights": [1.0, -1.0]},
     {"likes_weights": [1.0, float("nan")]}, {"likes_weights": [None, 1.0]}],
)  # fmt: skip
def test_closes_for_a_bag_that_cannot_be_pooled(stage: Any, rows: list[Row], change: Row) -> None:
    soiled = wide_features(feature_rows())
    soiled[7] = {**soiled[7], **change}
    message = sentence(stage, wide(rows), soiled, wide=True)
    assert "likes of feature table profile and its weights differ in length, hold a null" in message
    assert "in 1 of 51 rows" in message


def test_an_empty_bag_is_no_fault_but_a_column_of_them_is(new_stage: Any, rows: list[Row]) -> None:
    features = wide_features(feature_rows())
    one = [{**r, "likes": [], "likes_weights": None} if n == 2 else r for n, r in enumerate(features)]
    assert new_stage().run_wide(wide(rows), one)["gate"] == "open"
    none = [{**r, "likes": [], "likes_weights": []} for r in features]
    message = sentence(new_stage(), wide(rows), none, wide=True)
    assert "likes of feature table profile is null in every row" in message


def test_group_ids_are_needed_where_a_view_is_keyed_by_them(stage: Any, rows: list[Row]) -> None:
    assert "the log has no column 'group_id'" in sentence(stage, wide(rows), wide=True, drop=("group_id",))


# Drift, and what later stages are told.


def test_the_profile_is_left_in_the_quarantine(stage: Any, rows: list[Row]) -> None:
    stage.run([{**r, "user_id": None} if n == 5 else r for n, r in enumerate(rows)])
    profile = load(stage.quarantine / "profile.json")
    assert sum(day.rows for day in profile.days.values()) == len(rows) - 1
    assert profile.dataset == "shop"


def test_a_closed_gate_leaves_a_profile_too_unless_columns_are_lacking(new_stage: Any, rows: list[Row]) -> None:
    stage = new_stage()
    sentence(stage, without(rows, "2026-01-02"))
    assert load(stage.quarantine / "profile.json").days
    stage = new_stage()
    sentence(stage, rows, drop=("hour",))
    assert not (stage.quarantine / "profile.json").exists()
    quality = Quality.parse(read_manifest(stage.quarantine)["quality"])
    assert "a column is missing" in quality.reference


def test_drift_closes_the_gate(new_stage: Any, make_rows: Any) -> None:
    """Ten times the clicks of the reference."""
    rows = make_rows(days=4, a_day=1000)
    first = new_stage()
    first.run(rows)
    reference: Profile = load(first.quarantine / "profile.json")
    clicked = [
        {**r, "click": 1.0, "click_timestamp": r["event_timestamp"] + timedelta(seconds=40)} if n % 2 else r
        for n, r in enumerate(rows)
    ]
    config = CONFIG.model_copy(update={"reference": reference, "data_fingerprint": "another"})
    stage = new_stage()
    assert "click rate moved from 10.0 % to 60.0 %" in sentence(stage, clicked, config=config)
    quality = Quality.parse(read_manifest(stage.quarantine)["quality"])
    assert "click rate" in [drift.measure for drift in quality.drift if not drift.passed]
    assert "DRIFT" in stage.docs.read_text()
    assert new_stage().run(rows, config=config)["gate"] == "open"


def test_quality_goes_on_with_the_clean_log_and_the_quarantine(stage: Any, rows: list[Row]) -> None:
    maturity = Maturity(
        days=(
            MaturityDay(
                day="2026-01-01", impressions=100, immature=0, clicks=10, conversions=5, to_come=0.5
            ),
        ),
        share_to_come=0.01, basis="said so",
    )  # fmt: skip
    source = Imported(lines=400, refused={"short": 2}, notes=("by hand",))
    facts = {"maturity": maturity.model_dump(mode="json"), "imported": source.model_dump(mode="json")}
    soiled = [{**r, "hour": 99, "user_id": None} if n in (3, 103, 104) else r for n, r in enumerate(rows)]
    stage.run(soiled, facts=facts)
    quality = Quality.parse(read_manifest(stage.clean)["quality"])
    assert quality == Quality.parse(read_manifest(stage.quarantine)["quality"])
    assert (quality.maturity, quality.imported) == (maturity, source)
    assert [(day.day[-2:], day.rows, day.bad, day.reasons) for day in quality.days] == [
        ("01", 100, 1, {"HOUR": 1, "NULL_ID": 1}), ("02", 100, 2, {"HOUR": 2, "NULL_ID": 2}), ("03", 100, 0, {}),
        ("04", 100, 0, {}),
    ]  # fmt: skip
    assert quality.reference.startswith("drift was not judged")
