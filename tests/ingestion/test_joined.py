"""A user's own logs: types settled, bad values kept for quarantine, views and groups brought along."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ingestion.joined_made import MAP, START, UTC_US, Bring, log

from components.contracts.dataset import data_fingerprint, read_imported, read_info, view_names
from components.contracts.errors import DataError, UsageError
from components.contracts.files import read_manifest
from components.ingestion.ingest import IngestConfig, default_as_of, run


def read(folder: Path) -> pa.Table:
    files = sorted(folder.glob("log/dt=*/*.parquet"))
    return pa.concat_tables([pq.read_table(str(file), partitioning=None) for file in files])


def test_canonical_columns_and_types(bring: Bring) -> None:
    out, facts = bring(log(), context=["device", "position"], mapping=MAP | {"position": "slot"})
    table = read(out)
    assert {field.name: str(field.type) for field in table.schema} == {
        "impression_id": "string", "user_id": "string", "item_id": "string", "event_timestamp": "timestamp[us, tz=UTC]",
        "click": "int64", "conversion": "int64", "device": "string", "position": "int64",
    }  # fmt: skip
    assert table.column("user_id").to_pylist()[:3] == ["0", "1", "2"]
    assert table.column("click").to_pylist()[:4] == [1, 0, 0, 1]
    info = read_info(out)
    assert info.context == {"device": "string", "position": "int"}
    assert (info.recipe, info.name, info.label_window_seconds, info.has_label_times) == ("own", "mine", 0, False)
    assert facts["rows"] == 40
    assert facts["days"] == len(list(out.glob("log/dt=*"))) == 20
    assert facts["split"] == "time"
    assert any("taken as final" in note for note in facts["notes"])


def test_what_is_imported_can_be_ingested(bring: Bring, tmp_path: Path) -> None:
    out, _ = bring(log())
    config = IngestConfig(
        data=str(out), fingerprint=data_fingerprint(out), as_of=default_as_of(out), split=read_info(out).split
    )
    rows = run(config, tmp_path / "i", tmp_path / "f")["rows"]
    assert rows == {
        "total": 40,
        "invisible": 0,
        "immature": 0,
        "quarantined": 0,
        "gap": 0,
        "train": 30,
        "valid": 4,
        "test": 6,
    }
    assert read_manifest(tmp_path / "f")["views"] == []


def test_a_folder_of_files_without_impression_ids(bring: Bring, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    (folder / "sub").mkdir(parents=True)
    pq.write_table(log(rows=3, id=None), folder / "b.parquet")
    pq.write_table(log(rows=2, id=None, sku=["first", "second"]), folder / "a.parquet")
    pq.write_table(log(rows=1, id=None, sku=["deep"]), folder / "sub" / "c.parquet")
    (folder / "_SUCCESS").write_text("")
    (folder / ".hidden.parquet").write_text("")
    mapping = {name: theirs for name, theirs in MAP.items() if name != "impression_id"}
    out, facts = bring(log=folder, mapping=mapping)
    rows = {row["impression_id"]: row["item_id"] for row in read(out).to_pylist()}
    assert rows == {
        "row-0": "first",
        "row-1": "second",
        "row-2": "sku-0",
        "row-3": "sku-1",
        "row-4": "sku-2",
        "row-5": "deep",
    }
    assert facts["generated_ids"]
    again, _ = bring(log=folder, mapping=mapping, out=tmp_path / "again")
    assert data_fingerprint(out) == data_fingerprint(again)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (pa.timestamp("ns"), datetime(2026, 5, 1, 10)),
        (pa.timestamp("ms"), datetime(2026, 5, 1, 10)),
        (pa.timestamp("us"), datetime(2026, 5, 1, 10)),
        (pa.timestamp("ns", tz="UTC"), START),
        (pa.timestamp("ms", tz="Europe/Berlin"), START.astimezone(timezone(timedelta(hours=2)))),
        (pa.timestamp("us", tz="America/New_York"), START),
    ],
)
def test_any_timestamp_becomes_utc_microseconds(bring: Bring, kind: pa.DataType, value: datetime) -> None:
    out, facts = bring(log(rows=2, at=pa.array([value, value], kind)))
    column = read(out).column("event_timestamp")
    assert column.type == UTC_US
    assert column.to_pylist() == [START, START]
    assert any("no time zone" in note for note in facts["notes"]) == (kind.tz is None)


def test_the_day_is_the_utc_day(bring: Bring) -> None:
    late = datetime(2026, 5, 1, 23, 30, tzinfo=timezone(timedelta(hours=-5)))
    out, _ = bring(log(rows=1, at=pa.array([late], pa.timestamp("us", tz="America/New_York"))))
    assert [p.name for p in (out / "log").iterdir()] == ["dt=2026-05-02"]


def test_bad_values_stay_for_quarantine(bring: Bring) -> None:
    table = log(
        rows=4,
        visitor=pa.array([None, 1, 2, 3], pa.int64()),
        is_click=pa.array([0, 2, None, 1], pa.int64()),
        at=pa.array([START, START, None, START + timedelta(days=1)], UTC_US),
    )
    out, _ = bring(table)
    rows = read(out).sort_by("impression_id").to_pylist()
    assert [row["user_id"] for row in rows] == [None, "1", "2", "3"]
    assert [row["click"] for row in rows] == [0, 2, None, 1]
    assert rows[2]["event_timestamp"] is None
    first_day = pq.read_table(str(out / "log" / "dt=2026-05-01"), partitioning=None)
    assert first_day.num_rows == 3  # a row without a time is in the first day's partition


def test_label_times_and_windows(bring: Bring, tmp_path: Path) -> None:
    times = pa.array([START, None], UTC_US)
    table = log(rows=2, click_timestamp=times, conversion_timestamp=times)
    out, facts = bring(table)
    assert (read_info(out).click_window_seconds, read_info(out).conversion_window_seconds) == (3600, 86400)
    assert "Windows not given" in " ".join(facts["notes"])
    with pytest.raises(UsageError, match="above 0"):
        bring(table, out=tmp_path / "none", click_window_seconds=0, conversion_window_seconds=60)
    out, facts = bring(table, out=tmp_path / "other", click_window_seconds=60, conversion_window_seconds=120)
    assert (read_info(out).has_label_times, read_info(out).label_window_seconds) == (True, 180)
    assert facts["has_label_times"]


def test_a_short_log_is_split_by_hash(bring: Bring) -> None:
    out, facts = bring(log(rows=10))
    assert read_info(out).split.kind == facts["split"] == "hash"
    assert any("Split by a hash of the user: the log covers 4.5 days" in note for note in facts["notes"])


def test_feature_views(bring: Bring, tmp_path: Path) -> None:
    stamps = pa.array([datetime(2026, 4, 30), datetime(2026, 5, 1), None], pa.timestamp("ns"))
    user = pa.table(
        {"visitor": [1, 2, 3], "at": stamps, "age": pa.array([30, 40, 50], pa.int16()), "vip": [True, False, True]}
    )
    item = pa.table(
        {
            "item_id": ["sku-1"], "event_timestamp": pa.array([START], UTC_US),
            "created": pa.array([START], pa.timestamp("ms")), "price": pa.array([Decimal("9.50")]),
        }
    )  # fmt: skip
    pq.write_table(user, tmp_path / "user.parquet")
    pq.write_table(item, tmp_path / "item.parquet")
    out, facts = bring(log(), features={"people": tmp_path / "user.parquet", "goods": tmp_path / "item.parquet"})
    assert view_names(out) == ("goods", "people")
    assert facts["views"] == {"people": 2, "goods": 1}
    people = pq.read_table(out / "features" / "people" / "part-0.parquet")
    assert {f.name: str(f.type) for f in people.schema} == {
        "user_id": "string", "event_timestamp": "timestamp[us, tz=UTC]", "created": "timestamp[us, tz=UTC]",
        "age": "int64", "vip": "bool",
    }  # fmt: skip
    assert people.column("user_id").to_pylist() == ["1", "2"]
    assert people.column("created").to_pylist() == people.column("event_timestamp").to_pylist()
    goods = pq.read_table(out / "features" / "goods" / "part-0.parquet")
    assert goods.column("price").to_pylist() == [9.5]
    assert any("1 rows without user_id or event_timestamp" in note for note in facts["notes"])


def test_a_view_keyed_by_group(bring: Bring, tmp_path: Path) -> None:
    view = pa.table(
        {
            "group_id": [7], "event_timestamp": pa.array([START], UTC_US), "words": [["x"]],
            "words_weights": pa.array([[0.5]], pa.list_(pa.float32())),
        }
    )  # fmt: skip
    pq.write_table(view, tmp_path / "view.parquet")
    out, facts = bring(log(), features={"groups": tmp_path / "view.parquet"})
    assert facts["views"] == {"groups": 1}
    row = pq.read_table(out / "features" / "groups" / "part-0.parquet").to_pylist()[0]
    assert (row["group_id"], row["words"], row["words_weights"]) == ("7", ["x"], [0.5])


def test_bags_groups_and_item_context(bring: Bring) -> None:
    table = log(
        rows=3,
        group_id=pa.array([5, 5, None], pa.int64()),
        tags=pa.array([["a", "b"], None, []], pa.list_(pa.string())),
        tags_weights=pa.array([[1.0, 0.5], None, []], pa.list_(pa.float32())),
        codes=pa.array([[1, 2], [3], None], pa.list_(pa.int32())),
    )
    out, _ = bring(table, context=["tags", "tags_weights", "codes"], item_context=("codes",))
    assert read_info(out).context == {"tags": "strings", "tags_weights": "floats", "codes": "strings"}
    assert read_info(out).item_context == ("codes",)
    rows = read(out).sort_by("impression_id")
    assert str(rows.schema.field("tags_weights").type) == "list<element: double>"
    assert rows.column("tags").to_pylist() == [["a", "b"], None, []]
    assert rows.column("codes").to_pylist() == [["1", "2"], ["3"], None]
    assert rows.column("group_id").to_pylist() == ["5", "5", None]


def test_a_type_can_be_said(bring: Bring) -> None:
    out, _ = bring(log(rows=2), context={"slot": "string", "device": None})
    assert read_info(out).context == {"slot": "string", "device": "string"}
    assert read(out).column("slot").to_pylist() == ["1", "1"]


def test_a_value_that_its_type_cannot_hold_is_refused_and_counted(bring: Bring) -> None:
    table = log(rows=4, slot=pa.array([1, 2**63, 3, None], pa.uint64()))
    out, facts = bring(table, context=["slot"])
    assert facts["refused"] == {"VALUE": 1}
    assert sorted(read(out).column("slot").to_pylist(), key=str) == [1, 3, None]
    refused = pq.read_table(out / "refused").to_pylist()
    assert refused == [{"file": "log.parquet", "line": 2, "reason": "VALUE", "text": f"slot={2**63}"}]
    account = read_imported(out)
    assert account is not None
    assert (account.lines, account.refused, account.truncated) == (4, {"VALUE": 1}, ())
    assert any("1 of 4 lines could not be read" in note for note in account.notes)


def test_an_existing_folder_is_not_overwritten(bring: Bring, tmp_path: Path) -> None:
    bring(log())
    before = data_fingerprint(tmp_path / "out")
    with pytest.raises(DataError, match="already exists and is not empty"):
        bring(log())
    assert data_fingerprint(tmp_path / "out") == before


def test_no_name_of_theirs_clashes_with_our_own(bring: Bring) -> None:
    """`shown` and `base` were names of helper columns once, and a log may well have them."""
    theirs = {"at": "shown", "sku": "base", "visitor": "places", "device": "filename"}
    table = log().rename_columns([theirs.get(name, name) for name in log().column_names])
    mapping = {ours: theirs.get(name, name) for ours, name in MAP.items()} | {"device": "filename"}
    out, facts = bring(table, mapping=mapping)
    assert facts["rows"] == 40
    assert read_info(out).context == {"device": "string"}
