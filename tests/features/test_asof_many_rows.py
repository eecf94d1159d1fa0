"""Many rows: each back in its place, in one stream, in bounded memory."""

from __future__ import annotations

import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from features.asof_made import TTL, US, at, entities, open_store, retrieve, write

from components.contracts.errors import DataError
from feature_repo.asof import job as asof_job


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Sixty thousand rows in no order of time, some of them twice, and twenty versions of each of a hundred users."""
    folder = tmp_path_factory.mktemp("many")
    draw = random.Random(7)
    versions = [
        {"key": f"u{k}", "event": at(d), "count": 100 * k + d, "label": "x" * 30} for d in range(20) for k in range(100)
    ]
    for name in TTL:
        write(folder, name, versions if name == "user" else [])
    rows = entities([{"user": f"u{draw.randrange(110)}", "time": at(draw.random() * 20)} for _ in range(60_000)])
    rows = pa.concat_tables([rows, rows.slice(0, 5_000)])
    expected = [
        100 * int(user[1:]) + (time - at(0)).days if int(user[1:]) < 100 else None
        for user, time in zip(rows["user_id"].to_pylist(), rows["event_timestamp"].to_pylist(), strict=True)
    ]
    return folder, rows, expected


def test_every_row_comes_back_in_its_place(many, tmp_path):
    folder, rows, expected = many
    store = open_store(folder)
    pq.write_table(rows, tmp_path / "rows.parquet", row_group_size=2_048)
    for given in (rows, tmp_path / "rows.parquet", f"FROM '{tmp_path}/rows.parquet'"):
        found = retrieve(folder, given, "user", store=store).to_arrow()
        assert found["n"].equals(rows["n"])
        assert found["user_count"].to_pylist() == expected


def test_the_result_streams_to_one_file(many, tmp_path):
    folder, rows, expected = many
    job = retrieve(folder, rows, "user", fields=("count", "label"))
    assert job.to_parquet(tmp_path / "out.parquet") == 65_000
    found = pq.read_table(tmp_path / "out.parquet")
    assert found["n"].equals(rows["n"])
    assert found["user_count"].to_pylist() == expected
    assert found.schema.field("event_timestamp").type == US
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


def test_the_result_streams_in_batches(many):
    folder, rows, expected = many
    batches = list(retrieve(folder, rows, "user").to_batches(10_000))
    assert len(batches) > 3
    assert pa.Table.from_batches(batches)["user_count"].to_pylist() == expected


def test_where_slices_end_does_not_show(many, tmp_path, monkeypatch):
    folder, rows, expected = many
    pq.write_table(rows, tmp_path / "rows.parquet", row_group_size=2_048)
    monkeypatch.setattr(asof_job, "SLICE", 1e-3)
    monkeypatch.setattr(asof_job, "ROW_GROUP", 1_000)
    for given in (tmp_path / "rows.parquet", rows):
        job = retrieve(folder, given, "user", fields=("count", "label"))
        assert job.to_parquet(tmp_path / "out.parquet") == 65_000
        found = pq.read_table(tmp_path / "out.parquet")
        assert found["n"].equals(rows["n"])
        assert found["user_count"].to_pylist() == expected
        assert found.equals(job.to_arrow())
    assert pq.read_metadata(tmp_path / "out.parquet").num_row_groups >= 65


def test_little_memory_is_enough(many):
    """DuckDB may hold less than the rows take; what does not fit goes to disk."""
    folder, rows, expected = many
    wide = rows
    for number in range(25):
        wide = wide.append_column(f"wide{number}", pa.array([f"{n} {'.' * 100}" for n in range(len(rows))]))
    assert wide.nbytes > 150e6
    store = open_store(folder, offline={"memory_limit": "100MB", "threads": 1})
    found = pa.Table.from_batches(retrieve(folder, wide, "user", store=store).to_batches(1_000))
    assert found["user_count"].to_pylist() == expected
    assert found["wide24"].equals(wide["wide24"])


def test_too_little_memory_is_said_to_be(many):
    folder, rows, _ = many
    store = open_store(folder, offline={"memory_limit": "1MB"})
    with pytest.raises(DataError, match=r"more than the 1MB it may hold.* raise memory_limit"):
        retrieve(folder, rows, "user", store=store).to_arrow()
