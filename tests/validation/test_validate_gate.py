"""The gate on real tables: what closes it, by name, and what it lets through at each limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from validation.made import SECOND_DAY, Row, bad_on_second_day, minutes, no_user

from components.contracts.errors import DataGateClosed
from components.contracts.files import read_manifest
from components.contracts.spec import FeatureSpec
from components.validation.validate import ValidateConfig


def unclicked_purchase(r: Row) -> Row:
    return {"conversion": 1.0, "conversion_timestamp": r["event_timestamp"] + minutes(1)}


def refused(stage: Any, rows: list[Row], **options: Any) -> str:
    """Runs into the closed gate; checks what must then (not) be there, and returns the sentence."""
    with pytest.raises(DataGateClosed) as closed:
        stage.run(rows, **options)
    message = str(closed.value)
    assert not stage.clean.exists(), "nothing half written"
    assert stage.docs.is_file()
    assert "The data gate is closed" in stage.docs.read_text()
    assert read_manifest(stage.quarantine)["verdict"]["open"] is False
    assert str(stage.docs) in message
    assert str(stage.quarantine) in message
    return message


def test_closes_for_a_day_with_30_percent_bad_rows(stage: Any, rows: list[Row], limited: Any) -> None:
    message = refused(stage, bad_on_second_day(rows, 30, no_user), config=limited(max_total_bad_share=1.0))
    assert f"30.0 % of 100 rows on {SECOND_DAY} (mostly NULL_ID) are bad (limit 10.0 % a day)" in message
    assert Counter(r["reason"] for r in stage.quarantined()) == {"NULL_ID": 30}


def test_closes_for_a_day_with_5_percent_funnel_violations(stage: Any, rows: list[Row]) -> None:
    message = refused(stage, bad_on_second_day(rows, 5, unclicked_purchase))
    assert f"5.0 % of 100 rows on {SECOND_DAY} are conversions without a click (limit 1.0 % a day)" in message


def test_closes_for_the_whole_log(stage: Any, rows: list[Row]) -> None:
    by_day = Counter[str]()
    soiled = []
    for r in rows:
        by_day[r["dt"]] += 1
        soiled.append({**r, "user_id": None} if by_day[r["dt"]] % 16 == 0 else r)  # 6 of 100 rows each day
    assert "6.0 % of all 400 rows are bad (limit 5.0 %)" in refused(stage, soiled)


@pytest.mark.parametrize(
    ("count", "change", "opens"),
    [(10, no_user, True), (11, no_user, False), (1, unclicked_purchase, True), (2, unclicked_purchase, False)],
)
def test_opens_at_each_limit_of_a_day_and_not_above(
    stage: Any, make_rows: Any, count: int, change: Callable[[Row], Row], opens: bool
) -> None:
    rows = bad_on_second_day(make_rows(days=4, a_day=100), count, change)
    if opens:
        assert stage.run(rows)["quarantined"] == count
        read_manifest(stage.clean)
    else:
        refused(stage, rows)


@pytest.mark.parametrize("column", ["user_id", "click", "event_timestamp", "click_timestamp", "device", "split"])
def test_closes_for_a_missing_column_by_name(stage: Any, rows: list[Row], column: str) -> None:
    message = refused(stage, rows, drop=(column,))
    assert f"the log has no column '{column}'" in message
    assert f"not run: it needs {column}" in stage.docs.read_text() or column == "device"  # no rule for rows reads it


def test_a_column_missing_on_one_day_is_a_wrong_type_there(stage: Any, rows: list[Row]) -> None:
    impressions = stage.folder / "impressions"
    with pytest.raises(
        DataGateClosed, match=r"'device' of the log is absent in dt=2026-01-02/part-0.parquet, not string"
    ):
        stage.run(
            rows,
            types_on={SECOND_DAY: {}},
            after=lambda: drop_column(impressions / f"dt={SECOND_DAY}" / "part-0.parquet", "device"),
        )


def drop_column(path: Path, name: str) -> None:
    table = pq.ParquetFile(path).read().drop_columns([name])
    pq.write_table(table, path)


@pytest.mark.parametrize(
    ("column", "kind", "found"),
    [
        ("click", pa.string(), "string"),
        ("position", pa.string(), "string"),
        ("event_timestamp", pa.timestamp("us"), "timestamp[us]"),
        ("event_timestamp", pa.timestamp("ns", "UTC"), "timestamp[ns, tz=UTC]"),
        ("event_timestamp", pa.timestamp("us", "Europe/Amsterdam"), "timestamp[us, tz=Europe/Amsterdam]"),
        ("click_timestamp", pa.int64(), "int64"),
    ],
)
def test_closes_for_a_wrong_type(stage: Any, rows: list[Row], column: str, kind: Any, found: str) -> None:
    message = refused(stage, rows, types={column: kind})
    assert f"column '{column}' of the log is {found} in dt=2026-01-01/part-0.parquet" in message


def test_a_wrong_type_on_one_day_only(stage: Any, rows: list[Row]) -> None:
    message = refused(stage, rows, types_on={SECOND_DAY: {"click": pa.string()}})
    assert f"column 'click' of the log is string in dt={SECOND_DAY}/part-0.parquet" in message


def test_float_ids_are_refused(stage: Any, rows: list[Row]) -> None:
    numbered = [{**r, "user_id": "17"} for r in rows]
    assert "column 'user_id' of the log is double" in refused(stage, numbered, types={"user_id": pa.float64()})


@pytest.mark.parametrize("column", ["device", "price", "position"])
def test_closes_for_an_empty_context_column(stage: Any, rows: list[Row], column: str) -> None:
    message = refused(stage, [{**r, column: None} for r in rows])
    assert f"context column '{column}' is null in every usable row" in message


@pytest.mark.parametrize("column", ["user_id", "event_timestamp", "click"])
def test_closes_for_a_required_column_without_values(stage: Any, rows: list[Row], column: str) -> None:
    message = refused(stage, [{**r, column: None} for r in rows])
    assert "100.0 % of all 400 rows are bad" in message
    assert "the log, bad rows left out, has no rows" in message


def test_closes_for_no_rows(stage: Any, rows: list[Row]) -> None:
    message = refused(stage, [])
    assert "the log, bad rows left out, has no rows" in message
    assert "no column" not in message
    assert "nan" not in message.lower()


def test_closes_for_files_without_rows(stage: Any, rows: list[Row]) -> None:
    path = stage.folder / "impressions" / f"dt={SECOND_DAY}" / "part-0.parquet"
    only = [r for r in rows if r["dt"] == SECOND_DAY]

    def empty() -> None:
        pq.write_table(pq.ParquetFile(path).read().slice(0, 0), path)

    assert "has no rows" in refused(stage, only, after=empty)


@pytest.mark.parametrize("click", [0.0, 1.0])
def test_closes_for_a_click_rate_of_nothing_or_all(stage: Any, rows: list[Row], click: float) -> None:
    def relabel(r: Row) -> Row:
        at = r["event_timestamp"] + minutes(1) if click else None
        return {**r, "click": click, "click_timestamp": at, "conversion": 0.0, "conversion_timestamp": None}

    assert f"the click rate of the usable rows is {click:.0f}, not strictly" in refused(
        stage, [relabel(r) for r in rows]
    )


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_closes_for_an_empty_split(stage: Any, rows: list[Row], split: str) -> None:
    other = "test" if split != "test" else "train"
    moved = [{**r, "split": other if r["split"] == split else r["split"]} for r in rows]
    assert f"the {split} split has no usable rows" in refused(stage, moved)


@pytest.mark.parametrize("split", ["train", "test"])
def test_closes_without_conversions(stage: Any, rows: list[Row], split: str) -> None:
    never = {"conversion": 0.0, "conversion_timestamp": None}
    message = refused(stage, [{**r, **never} if r["split"] == split else r for r in rows])
    assert f"the {split} split has 0 conversions where 1 are needed" in message


def test_names_every_reason_at_once(stage: Any, rows: list[Row]) -> None:
    message = refused(stage, bad_on_second_day([{**r, "device": None} for r in rows], 30, no_user), drop=("hour",))
    for part in (
        "no column 'hour'",
        "'device' is null in every",
        f"30.0 % of 100 rows on {SECOND_DAY}",
        "7.5 % of all 400",
    ):
        assert part in message


# Feature tables.


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"user_id": None}, "user_id of feature table profile is null in 1 of 51 rows"),
        ({"created": None}, "created of feature table profile is null in 1 of 51 rows"),
        ({"user_ctr_7d": float("inf")}, "user_ctr_7d of feature table profile is infinite in 1 of 51 rows"),
        ({"user_id": "u1", "twin": True}, "feature table profile has two rows for one user_id"),
        ({"early": True}, "feature table profile has rows created before the time they describe: 1 of 51 rows"),
        ({"late": True}, "created of feature table profile is not before as-of 2026-01-20T00:00:00Z in 1 of 51 rows"),
    ],
)
def test_closes_for_a_bad_feature_row(
    stage: Any, rows: list[Row], features: list[Row], change: Row, sentence: str
) -> None:
    row = features[0]
    if change.pop("early", False):
        change = {"created": row["event_timestamp"] - minutes(1)}
    if change.pop("late", False):
        change = {"created": row["event_timestamp"] + timedelta(days=19)}
    if change.pop("twin", False):
        change = {**features[1]}
    assert sentence in refused(stage, rows, features=[{**row, **change}, *features[1:]])


def test_closes_for_an_empty_or_missing_feature_table(new_stage: Any, rows: list[Row], features: list[Row]) -> None:
    assert "feature table profile has no rows" in refused(new_stage(), rows, features=[])
    nothing = [{**r, "country": None} for r in features]
    assert "country of feature table profile is null in every row" in refused(new_stage(), rows, features=nothing)
    message = refused(new_stage(), rows, feature_options={"drop": ("user_ctr_7d",)})
    assert "feature table profile has no column 'user_ctr_7d'" in message
    message = refused(new_stage(), rows, feature_options={"types": {"user_ctr_7d": pa.string()}})
    assert "column 'user_ctr_7d' of feature table profile is string in profile/part-0.parquet, not a number" in message


def test_context_alone_needs_no_feature_tables(stage: Any, rows: list[Row], config: ValidateConfig) -> None:
    spec = FeatureSpec(features=tuple(f for f in config.spec.features if f.source != "profile"))
    assert stage.run(rows, config=config.model_copy(update={"spec": spec}))["gate"] == "open"


def test_a_final_log_needs_no_label_times(stage: Any, rows: list[Row], config: ValidateConfig) -> None:
    info = config.info.model_copy(
        update={"has_label_times": False, "click_window_seconds": 0.0, "conversion_window_seconds": 0.0}
    )
    facts = stage.run(
        rows, config=config.model_copy(update={"info": info}), drop=("click_timestamp", "conversion_timestamp")
    )
    assert facts["gate"] == "open"
