"""A user's own log that cannot be imported: one sentence, and nothing left behind."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ingestion.joined_made import MAP, START, UTC_US, Bring, log

from components.contracts.errors import DataError, EsmmError, FeatureSpecError, UsageError

N = 4
TIMES = pa.array([START] * N, UTC_US)
REFUSED: list[tuple[str, dict[str, Any], dict[str, Any], type[EsmmError], str]] = [
    ("float ids", {"visitor": [1.0] * N}, {}, DataError, r"'visitor', mapped to user_id, holds floating-point ids"),
    ("decimal ids", {"sku": [Decimal("1.5")] * N}, {}, DataError, r"'sku', mapped to item_id, holds floating-point"),
    ("id dates", {"sku": [date(2026, 1, 1)] * N}, {}, DataError, r"'sku', mapped to item_id, is DATE and no id"),
    (
        "string labels",
        {"is_click": ["yes"] * N},
        {},
        DataError,
        r"'is_click', mapped to click, is VARCHAR and no label",
    ),
    ("float labels", {"is_buy": [1.0] * N}, {}, DataError, r"'is_buy', mapped to conversion, is DOUBLE and no label"),
    (
        "string times",
        {"at": ["2026-01-01"] * N},
        {},
        DataError,
        r"'at', mapped to event_timestamp, is VARCHAR and no timestamp",
    ),
    ("epoch times", {"at": [1_700_000_000] * N}, {}, DataError, r"is BIGINT and no timestamp"),
    ("no time at all", {"at": pa.array([None] * N, UTC_US)}, {}, DataError, r"no row has a event_timestamp"),
    (
        "context of lists of numbers that weigh nothing",
        {"device": [[1.5]] * N},
        {},
        DataError,
        r"'device', mapped to device, is DOUBLE\[\], which no feature",
    ),
    (
        "weights without their bag",
        {"tags_weights": [[1.5]] * N},
        {"context": ["tags_weights"]},
        DataError,
        r"'tags_weights' holds the weights of 'tags', which is no list of strings",
    ),
    (
        "another type than said",
        {},
        {"context": {"device": "int"}},
        DataError,
        r"'device', mapped to device, is VARCHAR and no int: leave its type out",
    ),
    ("unknown time zone", {}, {"timezone": "Europe/Berln"}, UsageError, r"--timezone 'Europe/Berln' is no time zone"),
    ("item context", {}, {"item_context": ("price",)}, UsageError, r"item context price must be among the context"),
    ("text position", {"position": ["top"] * N}, {"context": ["position"]}, DataError, r"position is a string"),
    (
        "missing column",
        {"is_buy": None},
        {},
        DataError,
        r"has no column 'is_buy' for conversion: say which one .* \(it has id,",
    ),
    ("missing context", {}, {"context": ["hour"]}, DataError, r"has no column 'hour' for hour"),
    ("missing mapped id", {}, {"mapping": MAP | {"impression_id": "nope"}}, DataError, r"has no column 'nope'"),
    ("one label time", {"click_timestamp": TIMES}, {}, DataError, r"has click_timestamp but not the other"),
    ("window without times", {}, {"click_window_seconds": 60}, UsageError, r"needs the times of clicks"),
    ("unknown map", {}, {"mapping": MAP | {"clik": "is_click"}}, UsageError, r"--map clik=\.\.\.: no such column"),
    (
        "reserved context",
        {"split": ["a"] * N},
        {"context": ["split"]},
        FeatureSpecError,
        r"'split' is named like a label",
    ),
    (
        "label-like context",
        {"target": [1] * N},
        {"context": ["target"]},
        FeatureSpecError,
        r"'target' is named like a label",
    ),
    ("label as context", {}, {"context": ["is_buy"]}, UsageError, r"'is_buy'"),
    (
        "renamed label",
        {},
        {"context": ["hint"], "mapping": MAP | {"hint": "is_buy"}},
        UsageError,
        r"'hint' is the log's 'is_buy'",
    ),
    ("id as context", {}, {"context": ["user_id"]}, UsageError, r"'user_id' is an id"),
    ("dataset name", {}, {"name": "My shop"}, UsageError, r"dataset name 'My shop'"),
    ("view name", {}, {"features": {"My view": Path("x")}}, UsageError, r"view name 'My view'"),
    ("missing view", {}, {"features": {"v": Path("/nowhere/v")}}, DataError, r"view v: /nowhere/v does not exist"),
    ("missing log", {}, {"log": Path("/nowhere/log")}, DataError, r"the log /nowhere/log does not exist"),
]


@pytest.mark.parametrize(
    ("changes", "arguments", "error", "message"), [r[1:] for r in REFUSED], ids=[r[0] for r in REFUSED]
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    bring: Bring,
    tmp_path: Path,
    changes: dict[str, Any],
    arguments: dict[str, Any],
    error: type[EsmmError],
    message: str,
) -> None:
    with pytest.raises(error, match=message) as raised:
        bring(log(rows=N, **changes), **arguments)
    assert "\n" not in str(raised.value)
    assert [path.name for path in tmp_path.iterdir()] == ["log.parquet"]


VIEW = {"user_id": ["a"], "event_timestamp": pa.array([START], UTC_US), "age": [3]}


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"user_id": None}, DataError, "neither user_id nor item_id nor group_id"),
        ({"item_id": ["i"]}, DataError, "has user_id and item_id; a view needs exactly one"),
        ({"event_timestamp": None}, DataError, "has no event_timestamp"),
        ({"user_id": [1.5]}, DataError, "floating-point ids"),
        ({"event_timestamp": ["x"]}, DataError, "no timestamp"),
        ({"created": [3]}, DataError, "'created' is BIGINT and no timestamp"),
        ({"age": None}, DataError, "no field beside entity and times"),
        ({"age": [[1.5]]}, DataError, "which no feature can be"),
        ({"age_weights": [[1.5]]}, DataError, "holds the weights of 'age', which is no list"),
        ({"group_id": ["g"]}, DataError, "has user_id and group_id; a view needs exactly one"),
        ({"conversion": [1]}, FeatureSpecError, "named like a label"),
        ({"device": ["x"]}, UsageError, "'device' is both in the context and in view v"),
    ],
)
def test_bad_views_are_refused(
    bring: Bring, tmp_path: Path, changes: dict[str, Any], error: type[EsmmError], message: str
) -> None:
    pq.write_table(pa.table({k: v for k, v in (VIEW | changes).items() if v is not None}), tmp_path / "view.parquet")
    with pytest.raises(error, match=message):
        bring(log(), features={"v": tmp_path / "view.parquet"})
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_parquet(bring: Bring, tmp_path: Path) -> None:
    (tmp_path / "log.parquet").write_text("user_id,item_id\n1,2\n")
    with pytest.raises(DataError, match=r"log\.parquet cannot be read as Parquet .*write it again"):
        bring(log=tmp_path / "log.parquet")
    (tmp_path / "log.txt").write_text("user_id,item_id\n1,2\n")
    with pytest.raises(DataError, match=r"log\.txt is neither \*\.parquet nor \*\.csv"):
        bring(log=tmp_path / "log.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"holds no \*\.parquet"):
        bring(log=tmp_path / "empty")


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_parquet_file_cut_short_is_named(bring: Bring, tmp_path: Path, share: float) -> None:
    (tmp_path / "logs").mkdir()
    pq.write_table(log(rows=50), tmp_path / "logs" / "a.parquet")
    data = (tmp_path / "logs" / "a.parquet").read_bytes()
    (tmp_path / "logs" / "b.parquet").write_bytes(data[: int(share * len(data))])
    with pytest.raises(
        DataError, match=r"b\.parquet cannot be read as Parquet .* cut short, damaged .* write it again"
    ):
        bring(log=tmp_path / "logs")
    assert not (tmp_path / "out").exists()


def test_a_parquet_file_damaged_inside_is_named(bring: Bring, tmp_path: Path) -> None:
    pq.write_table(log(rows=20_000), tmp_path / "log.parquet")
    data = bytearray((tmp_path / "log.parquet").read_bytes())
    data[500:1500] = bytes(byte ^ 0xFF for byte in data[500:1500])
    (tmp_path / "log.parquet").write_bytes(data)
    with pytest.raises(DataError, match=r"log\.parquet"):
        bring()
    assert not (tmp_path / "out").exists()
