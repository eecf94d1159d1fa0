"""A user's own logs: types settled, bad values kept for quarantine, bad input refused in one sentence."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.contracts.dataset import data_fingerprint, read_imported, read_info, view_names
from components.contracts.errors import DataError, EsmmError, FeatureSpecError, UsageError
from components.contracts.files import read_manifest
from components.ingestion.ingest import IngestConfig, default_as_of, run
from components.ingestion.sources.importing import ImportOptions
from components.ingestion.sources.joined import import_log

START = datetime(2026, 5, 1, 10, tzinfo=UTC)
UTC_US = pa.timestamp("us", tz="UTC")
MAP = {
    "impression_id": "id", "user_id": "visitor", "item_id": "sku", "event_timestamp": "at",
    "click": "is_click", "conversion": "is_buy",
}  # fmt: skip


def log(rows: int = 40, hours: float = 12, **changes: Any) -> pa.Table:
    columns: dict[str, Any] = {
        "id": [f"x{n}" for n in range(rows)],
        "visitor": pa.array([n % 7 for n in range(rows)], pa.int32()),
        "sku": [f"sku-{n % 5}" for n in range(rows)],
        "at": pa.array([START + timedelta(hours=hours) * n for n in range(rows)], UTC_US),
        "is_click": [n % 3 == 0 for n in range(rows)],
        "is_buy": pa.array([int(n % 6 == 0) for n in range(rows)], pa.int8()),
        "device": ["phone"] * rows,
        "slot": pa.array([1] * rows, pa.int16()),
    }
    columns |= changes
    return pa.table({name: value for name, value in columns.items() if value is not None})


@pytest.fixture
def bring(tmp_path: Path) -> Callable[..., tuple[Path, dict[str, Any]]]:
    def call(table: pa.Table | None = None, **changes: Any) -> tuple[Path, dict[str, Any]]:
        source = tmp_path / "log.parquet"
        if table is not None:
            pq.write_table(table, source)
        given: dict[str, Any] = {"context": ["device"], "out": tmp_path / "out", "name": "mine"} | changes
        path, mapping = given.pop("log", source), given.pop("mapping", MAP)
        if not isinstance(given["context"], dict):
            given["context"] = dict.fromkeys(given["context"])
        return given["out"], import_log(path, mapping, ImportOptions(**given))

    return call


Bring = Callable[..., tuple[Path, dict[str, Any]]]


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
