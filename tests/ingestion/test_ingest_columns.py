"""Columns and files as a log brings them: carried through, left for validation to refuse, or refused by name."""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ingestion.conftest import SCHEMA, UTC_US
from ingestion.runs import AS_OF, START, Write, ingest, spread, written

from components.contracts.errors import DataError
from components.contracts.files import read_manifest
from components.ingestion.ingest import default_as_of


def test_groups_and_bags_are_carried_through(write_dataset: Write) -> None:
    schema = pa.schema(
        [
            ("impression_id", pa.string()), ("user_id", pa.string()), ("item_id", pa.string()),
            ("group_id", pa.string()), ("event_timestamp", UTC_US), ("click", pa.int64()), ("conversion", pa.int64()),
            ("words", pa.list_(pa.string())), ("words_weights", pa.list_(pa.float64())),
        ]
    )  # fmt: skip
    bag = {"group_id": "g1", "words": ["a", "b"], "words_weights": [0.5, 1.0]}
    none = {"group_id": "g2", "words": None, "words_weights": []}
    view = pa.table(
        {
            "group_id": ["g2", "g1"], "event_timestamp": pa.array([START, START], UTC_US),
            "created": pa.array([START, AS_OF], UTC_US), "tags": [["x"], []],
        }
    )  # fmt: skip
    rows = [row | (none if n % 2 else bag) for n, row in enumerate(spread())]
    folder = ingest(write_dataset(rows, schema=schema, views={"groups": view}))
    assert {name: written(folder)["s0"][name] for name in bag} == bag
    assert {name: written(folder)["s1"][name] for name in none} == none
    table = pq.read_table(folder / "features" / "groups" / "part-0.parquet")
    assert table.to_pylist() == [{"group_id": "g2", "event_timestamp": START, "created": START, "tags": ["x"]}]


@pytest.mark.parametrize("kind", [pa.timestamp("ns", tz="UTC"), pa.timestamp("ns"), pa.timestamp("us")])
def test_times_of_another_type_are_for_validation_to_refuse(write_dataset: Write, kind: pa.DataType) -> None:
    """A dataset's own files hold UTC microseconds. Other times are left as they are, and place no row."""
    schema = pa.schema([field if field.name != "event_timestamp" else ("event_timestamp", kind) for field in SCHEMA])
    naive = [row | {"event_timestamp": row["event_timestamp"].replace(tzinfo=None)} for row in spread()]
    folder = ingest(write_dataset(naive if kind.tz is None else spread(), schema=schema))
    rows = read_manifest(folder / "impressions")["rows"]
    assert (rows["gap"], rows["train"], rows["test"]) == (40, 0, 0)
    file = next((folder / "impressions").glob("dt=*/*.parquet"))
    assert pq.read_schema(file).field("event_timestamp").type != UTC_US


def test_another_zone_is_the_same_instant(write_dataset: Write) -> None:
    """An Arrow timestamp with a zone is an instant; the zone is how to show it. It leaves ingestion as UTC."""
    berlin = pa.timestamp("us", tz="Europe/Berlin")
    schema = pa.schema([field if field.name != "event_timestamp" else ("event_timestamp", berlin) for field in SCHEMA])
    ours, theirs = (
        ingest(write_dataset(spread(), name="a"), out="o1"),
        ingest(write_dataset(spread(), name="b", schema=schema), out="o2"),
    )
    assert written(ours) == written(theirs)
    assert read_manifest(ours / "impressions")["files"] == read_manifest(theirs / "impressions")["files"]


@pytest.mark.parametrize("share", [0.0, 0.6])
def test_a_file_cut_short_is_named_and_nothing_is_written(write_dataset: Write, share: float) -> None:
    view = pa.table(
        {"item_id": ["a"], "event_timestamp": pa.array([START], UTC_US), "created": pa.array([START], UTC_US)}
    )
    data = write_dataset(spread(), views={"item_profile": view})
    for file in (
        data / "log" / "dt=2026-03-04" / "part-0.parquet",
        data / "features" / "item_profile" / "part-0.parquet",
    ):
        whole = file.read_bytes()
        file.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(DataError, match=rf"{file} cannot be read as Parquet .*cut short, damaged.*write it again"):
            ingest(data)
        file.write_bytes(whole)
    (data / "log" / "dt=2026-03-04" / "part-0.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        default_as_of(data)


@pytest.mark.parametrize("column", ["click", "user_id", "event_timestamp", "conversion_timestamp"])
def test_a_missing_column_is_for_validation_to_refuse(write_dataset: Write, column: str) -> None:
    folder = ingest(write_dataset(spread(), drop=(column,)))
    rows = duckdb.sql(f"SELECT * FROM '{folder}/impressions/*/*.parquet'")
    assert column not in rows.columns
    assert len(rows.fetchall()) > 0


def test_a_column_of_the_wrong_type_is_for_validation_to_refuse(write_dataset: Write) -> None:
    from_text = pa.schema(
        [
            ("impression_id", pa.string()), ("user_id", pa.int64()), ("item_id", pa.string()),
            ("event_timestamp", UTC_US), ("click", pa.string()), ("conversion", pa.int64()),
            ("click_timestamp", UTC_US), ("conversion_timestamp", UTC_US),
        ]
    )  # fmt: skip
    folder = ingest(write_dataset([row | {"click": "yes", "user_id": 7} for row in spread()], schema=from_text))
    row = written(folder)["s0"]
    assert (row["click"], row["user_id"], row["split"]) == ("yes", 7, "train")


def test_a_column_missing_on_one_day_is_null_there(write_dataset: Write) -> None:
    data = write_dataset(spread())
    file = data / "log" / "dt=2026-03-03" / "part-0.parquet"
    pq.write_table(pq.read_table(str(file), partitioning=None).drop_columns(["click"]), file)
    rows = written(ingest(data))
    assert {row["click"] for row in rows.values() if row["dt"] == "2026-03-03"} == {None}
    assert {row["click"] for row in rows.values() if row["dt"] != "2026-03-03"} == {0}


def test_a_type_that_is_wrong_on_one_day_is_wrong_for_all(write_dataset: Write) -> None:
    data = write_dataset(spread())
    file = data / "log" / "dt=2026-03-03" / "part-0.parquet"
    table = pq.read_table(str(file), partitioning=None)
    place = table.column_names.index("click")
    pq.write_table(table.set_column(place, "click", table.column("click").cast(pa.string())), file)
    rows = written(ingest(data))
    assert {row["click"] for row in rows.values()} == {"0"}
    assert {row["split"] for row in rows.values()} == {"train", "gap", "valid", "test"}


def test_a_broken_file_or_partition_is_one_sentence(write_dataset: Write) -> None:
    data = write_dataset(spread())
    broken = data / "log" / "dt=2026-03-01" / "more.parquet"
    broken.write_bytes(b"no parquet at all")
    with pytest.raises(DataError, match=r"more\.parquet cannot be read as Parquet .*: it was cut short") as error:
        ingest(data)
    assert "\n" not in str(error.value)
    broken.unlink()
    (data / "log" / "dt=2026-03-02").rename(data / "log" / "dt=yesterday")
    with pytest.raises(DataError, match="dt=yesterday is no partition of a day"):
        ingest(data)
