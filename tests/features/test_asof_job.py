"""What the offline store takes, gives back, refuses and leaves on disk."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import duckdb
import feast
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureView, Field
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64, String
from features.asof_made import (
    BIG,
    ENTITIES,
    FIELDS,
    ROWS,
    TTL,
    US,
    at,
    entities,
    open_store,
    retrieve,
    source,
    view,
    write,
)

from components.contracts.errors import DataError, UsageError
from feature_repo.asof import sql
from feature_repo.asof.job import connect


def test_types_nulls_and_empty_lists_stay_what_they_are(folder):
    found = retrieve(folder, entities(ROWS), "user", fields=FIELDS).to_arrow()
    assert found["user_count"].to_pylist() == [None, BIG, None, None, None]
    assert found["user_label"].to_pylist() == [None, "é", None, None, None]
    assert found["user_bag"].to_pylist() == [[], ["x", "y"], None, [], None]
    assert found["user_weights"].to_pylist() == [None, [0.5, 1e-300], None, None, None]
    kinds = {name: found.schema.field(f"user_{name}").type for name in FIELDS}
    assert kinds["count"] == pa.int64()
    assert kinds["label"] == pa.string()
    assert [pa.types.is_list(kinds[name]) for name in ("bag", "weights")] == [True, True]
    assert [kinds[name].value_type for name in ("bag", "weights")] == [pa.string(), pa.float64()]


def test_a_frame_keeps_integers_too(folder):
    frame = retrieve(folder, entities(ROWS).to_pandas(), "user", fields=("count", "label")).to_df()
    assert str(frame["user_count"].dtype) == "Int64"
    assert frame["user_count"][1] == BIG
    assert frame["user_count"].isna().tolist() == [True, False, True, True, True]
    assert frame["n"].tolist() == [0, 1, 2, 3, 4]
    assert list(frame.columns) == ["n", *(f"{name}_id" for name in TTL), "event_timestamp", "user_count", "user_label"]


def test_several_entities_in_one_call(folder):
    found = retrieve(folder, entities(ROWS), "user", "item", "group").to_arrow()
    assert found["item_count"].to_pylist() == [2, None, 2, 2, None]  # the last is too late for an item
    assert found["group_count"].to_pylist() == [3, 3, None, 3, 3]  # groups never expire


def given_as(kind, rows, folder):
    """The same rows in each of the ways they can be given."""
    path = folder / "rows.parquet"
    pq.write_table(rows, path, row_group_size=2)
    if kind == "frame":
        return rows.to_pandas()
    if kind == "table":
        return rows
    if kind == "files":
        (folder / "rows").mkdir()
        for number in range(len(rows)):
            pq.write_table(rows.slice(number, 1), folder / f"rows/part-{number:03}.parquet")
        return str(folder / "rows")
    return {
        "path": path,
        "text": str(path),
        "query": f"SELECT * FROM '{path}' ORDER BY n;",
        "with": f"  with r AS (FROM '{path}') SELECT * FROM r",
    }[kind]


@pytest.mark.parametrize("kind", ["frame", "table", "path", "text", "files", "query", "with"])
def test_entity_rows_can_be_given_in_many_ways(folder, kind):
    given = given_as(kind, entities(ROWS), folder)
    found = retrieve(folder, given, "user", "item").to_arrow()
    assert found["n"].to_pylist() == [0, 1, 2, 3, 4]
    assert found["user_count"].to_pylist() == [None, BIG, None, None, None]
    assert found["item_count"].to_pylist() == [2, None, 2, 2, None]


def test_no_rows_are_a_result_too(folder, tmp_path):
    job = retrieve(folder, entities([]), "user", fields=FIELDS)
    assert job.to_parquet(tmp_path / "out.parquet") == 0
    for table in (job.to_arrow(), pq.read_table(tmp_path / "out.parquet")):
        assert len(table) == 0
        assert table.schema.field("user_count").type == pa.int64()
    assert list(job.to_batches(10)) == []
    assert len(job.to_df()) == 0


def test_a_failed_retrieval_leaves_no_file_and_the_old_one(folder, tmp_path):
    out = tmp_path / "out.parquet"
    out.write_bytes(b"old")
    job = retrieve(folder, entities(ROWS), "user")
    (folder / "user.parquet").write_bytes(b"PAR1 torn PAR1")
    before = sorted(folder.iterdir())
    with pytest.raises(DataError, match="cannot be read"):
        job.to_parquet(out)
    assert out.read_bytes() == b"old"
    assert sorted(folder.iterdir()) == before


def test_full_names_aliases_and_other_join_keys(folder):
    user = view(folder, "user")
    store = open_store(folder, [user, view(folder, "item")])
    me, friend = user.with_name("me"), user.with_name("friend").with_join_key_map({"user_id": "group_id"})
    service = feast.FeatureService(name="friends", features=[me[["user_count"]], friend[["user_count"]]])
    store.apply([service])
    found = store.get_historical_features(entity_df=entities(ROWS), features=service, full_feature_names=True)
    table = found.to_arrow()
    assert found.full_feature_names
    assert table.column_names[-2:] == ["me__user_count", "friend__user_count"]
    assert table["me__user_count"].to_pylist() == [None, BIG, None, None, None]
    assert table["friend__user_count"].to_pylist() == [BIG, BIG, None, BIG, None]


def test_columns_may_have_other_names_in_the_source(folder):
    table = pq.read_table(folder / "user.parquet")
    renamed = ["uid", "ts", "made", *(f"raw_{name}" for name in table.column_names[3:])]
    pq.write_table(table.rename_columns(renamed), folder / "user.parquet")
    mapping = {"uid": "user_id", **{f"raw_user_{name}": f"user_{name}" for name in FIELDS}}
    rows = source(folder, "user", field_mapping=mapping, timestamp_field="ts", created_timestamp_column="made")
    store = open_store(folder, [view(folder, "user", source=rows)])
    assert retrieve(folder, entities(ROWS), "user", store=store).to_arrow()["user_count"][1].as_py() == BIG


def test_a_view_without_entity_holds_for_every_row(folder):
    table = pq.read_table(folder / "user.parquet").slice(0, 1).drop_columns(["user_id"])
    pq.write_table(table, folder / "user.parquet")
    schema = [Field(name="user_count", dtype=Int64)]
    whole = FeatureView(name="user", source=source(folder, "user"), ttl=timedelta(days=7), schema=schema)
    found = retrieve(folder, entities(ROWS), "user", store=open_store(folder, [whole])).to_arrow()
    assert found["user_count"].to_pylist() == [BIG, BIG, BIG, BIG, None]


def test_a_source_without_created_times(folder):
    pq.write_table(pq.read_table(folder / "user.parquet").drop_columns(["created"]), folder / "user.parquet")
    plain = view(folder, "user", source=source(folder, "user", created_timestamp_column=""))
    found = retrieve(folder, entities(ROWS), "user", store=open_store(folder, [plain])).to_arrow()
    assert found["user_count"].to_pylist() == [None, BIG, None, None, None]


def test_keys_of_two_columns_and_integers_of_different_widths(folder):
    versions = {
        "user_id": pa.array([1, 1, 2], pa.int32()), "item_id": ["a", "b", "a"], "user_count": [1, 2, 3],
        "event_timestamp": pa.array([at(0)] * 3, US), "created": pa.array([at(0)] * 3, US),
    }  # fmt: skip
    pq.write_table(pa.table(versions), folder / "user.parquet")
    user = feast.Entity(name="user", join_keys=["user_id"], value_type=feast.ValueType.INT64)
    kinds = {"user_id": Int64, "item_id": String, "user_count": Int64}
    pair = FeatureView(
        name="user", source=source(folder, "user"), entities=[user, ENTITIES["item"]], ttl=timedelta(days=7),
        schema=[Field(name=name, dtype=kind) for name, kind in kinds.items()],
    )  # fmt: skip
    store = open_store(folder, [view(folder, "group")])
    store.apply([user, pair])
    asked = {"user_id": [1, 2, 1, 2], "item_id": ["b", "b", "a", "a"]}
    rows = pa.table({**asked, "event_timestamp": pa.array([at(1)] * 4, US)})
    found = store.get_historical_features(entity_df=rows, features=["user:user_count"]).to_arrow()
    assert found["user_count"].to_pylist() == [2, None, 1, 3]


NANO = pa.timestamp("ns", tz="UTC")
ZONES = {
    "microseconds": US, "milliseconds": pa.timestamp("ms", tz="UTC"), "nanoseconds": NANO,
    "another zone": pa.timestamp("us", tz="Asia/Tokyo"), "no zone": pa.timestamp("us"), "naive ns": pa.timestamp("ns"),
}  # fmt: skip


@pytest.mark.parametrize("stamp", ZONES.values(), ids=ZONES)
@pytest.mark.parametrize("asked", ZONES.values(), ids=ZONES)
def test_times_of_any_resolution_and_zone(tmp_path, stamp, asked):
    """A time without zone is UTC. Edges are exact."""
    tick = timedelta(milliseconds=1)
    write(tmp_path, "user", [{"key": "a", "event": at(1), "created": at(1) + tick, "count": 1}], stamp)
    for name in ("item", "group"):
        write(tmp_path, name, [])
    times = [at(1), at(1) + tick, at(8), at(8) + tick]
    rows = entities([{"user": "a", "time": time} for time in times])
    place = rows.column_names.index("event_timestamp")
    rows = rows.set_column(place, "event_timestamp", rows["event_timestamp"].cast(asked))
    assert retrieve(tmp_path, rows, "user").to_arrow()["user_count"].to_pylist() == [None, 1, 1, None]


def test_nanoseconds_are_not_rounded(tmp_path):
    for name in ("user", "item", "group"):
        write(tmp_path, name, [])
    stamp = int(at(1).timestamp()) * 10**9 + 500
    versions = pq.read_schema(tmp_path / "user.parquet").empty_table().to_pydict()
    versions |= {
        "user_id": ["a"],
        "user_count": [1],
        **{f"user_{name}": [None] for name in ("label", "bag", "weights")},
    }
    versions |= {name: pa.array([stamp], NANO) for name in ("event_timestamp", "created")}
    pq.write_table(pa.table(versions), tmp_path / "user.parquet")
    ttl = 7 * 86_400 * 10**9
    times = pa.array([stamp - 1, stamp, stamp + ttl, stamp + ttl + 1], NANO)
    rows = pa.table({"user_id": ["a"] * 4, "event_timestamp": times})
    found = retrieve(tmp_path, rows, "user").to_arrow()
    assert found["user_count"].to_pylist() == [None, 1, 1, None]
    assert found["event_timestamp"].combine_chunks().equals(times)


def test_the_machine_may_be_anywhere(folder):
    """Versions without zone are UTC, not the machine's time."""
    write(folder, "user", [{"key": "a", "event": at(1), "count": 1}], pa.timestamp("us"))
    rows = folder / "rows.parquet"
    pq.write_table(entities([{"user": "a", "time": at(1)}, {"user": "a", "time": at(0.9)}]), rows)
    script = (
        "import sys; from pathlib import Path; from features.asof_made import *; folder = Path(sys.argv[1]);"
        "job = open_store(folder).get_historical_features(entity_df=str(folder / 'rows.parquet'),"
        " features=references('user')); print(job.to_arrow()['user_count'].to_pylist())"
    )
    environment = {
        **os.environ,
        "TZ": "Pacific/Auckland",
        "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parents[1])]),
    }
    done = subprocess.run([sys.executable, "-c", script, folder], env=environment, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1:] == ["[1, None]"], done.stderr


def test_times_written_out_are_read_as_feast_reads_them(folder):
    berlin = at(1).astimezone(ZoneInfo("Europe/Berlin")).isoformat()
    frame = pd.DataFrame({"user_id": ["a", "a"], "event_timestamp": [berlin, at(9).isoformat()]})
    assert retrieve(folder, frame, "user").to_df()["user_count"].tolist() == [BIG, pd.NA]


def test_the_event_time_may_have_another_name(folder):
    rows = entities(ROWS).rename_columns({"event_timestamp": "shown"})
    assert retrieve(folder, rows, "user").to_arrow()["user_count"][1].as_py() == BIG


def test_what_was_created_later_is_left_out_unless_the_store_is_told_otherwise(folder):
    write(folder, "user", [{"key": "a", "event": at(0), "created": at(5), "count": 99}])
    rows = entities([{"user": "a", "time": at(1)}])
    as_feast = open_store(folder, offline={"filter_by_created_timestamp": False})
    found = [
        retrieve(folder, rows, "user", store=store, **more).to_arrow()["user_count"].to_pylist()
        for store, more in (
            (open_store(folder), {}),
            (as_feast, {}),
            (as_feast, {"filter_by_created_timestamp": True}),
        )
    ]
    assert found == [[None], [99], [None]]


def test_a_saved_dataset_is_a_file_that_feast_reads_back(folder, tmp_path):
    store = open_store(folder)
    job = retrieve(folder, entities(ROWS), "user", store=store)
    storage = SavedDatasetFileStorage(path=str(tmp_path / "saved.parquet"))
    saved = store.create_saved_dataset(job, "saved", storage)
    assert (saved.min_event_timestamp, saved.max_event_timestamp) == (at(1), at(9))
    assert pq.read_table(tmp_path / "saved.parquet")["user_count"].to_pylist() == [None, BIG, None, None, None]
    with pytest.raises(feast.errors.SavedDatasetLocationAlreadyExists):
        job.persist(storage)
    job.persist(storage, allow_overwrite=True)


def test_on_demand_views_are_computed_in_memory_and_not_streamed(folder, tmp_path):
    user = view(folder, "user")

    @on_demand_feature_view(sources=[user], schema=[Field(name="half", dtype=Float64)], mode="pandas")
    def halved(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"half": inputs["user_count"].astype("float64") / 2})

    store = open_store(folder, [user, view(folder, "item")])
    store.apply([halved])
    job = store.get_historical_features(entity_df=entities(ROWS), features=["user:user_count", "halved:half"])
    assert job.to_arrow()["half"].to_pylist()[1] == BIG / 2
    for stream in (lambda: job.to_parquet(tmp_path / "x.parquet"), lambda: list(job.to_batches(5))):
        with pytest.raises(UsageError, match=r"cannot compute on-demand feature views \(halved\)"):
            stream()


def test_rows_whose_columns_are_named_like_duckdb_s_own(folder):
    rows = entities(ROWS).append_column("file_row_number", pa.array([7] * len(ROWS)))
    pq.write_table(rows, folder / "rows.parquet")
    found = retrieve(folder, folder / "rows.parquet", "user").to_arrow()
    assert found["n"].to_pylist() == [0, 1, 2, 3, 4]
    assert found["file_row_number"].to_pylist() == [7] * 5
    assert found["user_count"].to_pylist() == [None, BIG, None, None, None]


def test_several_files_of_a_view(folder):
    (folder / "users").mkdir()
    for number in range(3):
        write(folder / "users", f"part-{number}", [{"key": "a", "event": at(number), "count": number}])
    for file in (folder / "users").iterdir():
        table = pq.read_table(file)
        pq.write_table(table.rename_columns([name.replace(file.stem, "user") for name in table.column_names]), file)
    rows = source(folder, "user", path=str(folder / "users/*.parquet"))
    store = open_store(folder, [view(folder, "user", source=rows)])
    asked = entities([{"user": "a", "time": at(n + 0.5)} for n in range(3)])
    assert retrieve(folder, asked, "user", store=store).to_arrow()["user_count"].to_pylist() == [0, 1, 2]


def test_the_join_is_asof(folder):
    """The plan holds what the name says, for few rows as for many."""
    job = retrieve(folder, entities(ROWS), "user", "item")
    with connect(job._limits) as db:
        job.plan.entities.register(db)
        for statement in sql.preparation(job.plan):
            if sql.MATCHED in statement:
                ((_, explained),) = db.execute(f"EXPLAIN (FORMAT json) {statement}").fetchall()
                assert explained.count("ASOF_JOIN") == 2
            db.execute(statement)


def test_duckdb_counts_rows_of_a_file_as_this_rests_on(tmp_path):
    """file_index and file_row_number: by name of file, then from 0 in the file's order."""
    for number in (1, 0):
        pq.write_table(pa.table({"x": [10 * number, 10 * number + 1]}), tmp_path / f"{number}.parquet")
    found = duckdb.sql(f"SELECT file_index, file_row_number, x FROM '{tmp_path}/*.parquet' ORDER BY 1, 2").fetchall()
    assert found == [(0, 0, 0), (0, 1, 1), (1, 0, 10), (1, 1, 11)]
