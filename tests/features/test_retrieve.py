from __future__ import annotations

import json

import pyarrow as pa
import pytest
from features.made import INFO, VIEWS, impressions, read, spec, view_table, write_clean, write_features

from components.contracts.artifacts import Rows
from components.contracts.errors import CorruptArtifact, DataError
from components.contracts.files import read_manifest
from components.features import retrieve
from components.features.retrieve import RetrieveConfig, run

CONFIG = RetrieveConfig(dataset="tiny", spec=spec())


@pytest.fixture
def features(tmp_path):
    profiles = [{"user_id": f"u{n}", "event": 0, "country": "de", "age_band": n} for n in range(5)]
    activity = [
        {"item_id": f"i{n}", "event": day, "item_clicks_7d": 10 * n + day} for n in range(3) for day in range(4)
    ]
    tables = {
        "user_profile": view_table("user_profile", profiles),
        "item_activity": view_table("item_activity", activity),
    }
    return write_features(tmp_path / "features", tables)


def rows(count=60):
    """Five days; the last two are test and valid, the third a gap; some pairs and times come twice."""
    splits = ["train", "train", "gap", "valid", "test"]
    return [
        {"event": (n // 2) % 5 + 0.1, "split": splits[(n // 2) % 5], "user_id": f"u{n % 7}", "item_id": f"i{n % 4}",
         "click": n % 2, "impression_id": f"m{997 * n % 100:03d}"}
        for n in range(count)
    ]  # fmt: skip


def test_every_impression_once_in_order_with_its_labels(tmp_path, features):
    clean = write_clean(tmp_path / "clean", impressions(rows()))
    facts = run(CONFIG, clean, features, tmp_path / "out", chunk_rows=7)
    for split in ("train", "valid", "test"):
        table = read(tmp_path / "out", split)
        given = [row for row in rows() if row["split"] == split]
        assert facts["rows"][split] == len(table) == len(given)
        order = [(row["event"], row["impression_id"], row["user_id"], row["click"]) for row in given]
        assert table["impression_id"].to_pylist() == [entry[1] for entry in sorted(order)]
        assert table["user_id"].to_pylist() == [entry[2] for entry in sorted(order)]
        assert table["click"].to_pylist() == [entry[3] for entry in sorted(order)]


def test_values_types_nulls_and_columns(tmp_path, features):
    clean = write_clean(tmp_path / "clean", impressions(rows()))
    facts = run(CONFIG, clean, features, tmp_path / "out")
    table = read(tmp_path / "out", "train")
    for row in table.to_pylist():
        user, item = int(row["user_id"][1:]), int(row["item_id"][1:])
        assert row["age_band"] == (user if user < 5 else None)
        assert row["item_clicks_7d"] == (10 * item + (row["event_timestamp"].day - 1) if item < 3 else None)
    assert table.schema.field("age_band").type == pa.int64()
    assert table.schema.field("event_timestamp").type == pa.timestamp("us", tz="UTC")
    names = ["impression_id", "user_id", "item_id", "event_timestamp", "position", "device"]
    assert table.column_names == [*names, *(f.name for f in spec().stored), "click", "conversion"]
    assert 0 < facts["known"]["age_band"] < 1
    assert facts["known"]["segment"] == 0


def test_chunks_do_not_show(tmp_path, features):
    clean = write_clean(tmp_path / "clean", impressions(rows()))
    for name, size in (("whole", 250_000), ("small", 5)):
        run(CONFIG, clean, features, tmp_path / name, chunk_rows=size)
    for split in ("train", "valid", "test"):
        assert read(tmp_path / "whole", split).equals(read(tmp_path / "small", split))


def test_the_same_again_is_the_same_file(tmp_path, features):
    clean = write_clean(tmp_path / "clean", impressions(rows()))
    for name in ("a", "b"):
        run(CONFIG, clean, features, tmp_path / name)
    assert read_manifest(tmp_path / "a")["fingerprint"] == read_manifest(tmp_path / "b")["fingerprint"]


def test_manifest_carries_what_later_stages_need(tmp_path, features):
    clean = write_clean(tmp_path / "clean", impressions(rows()))
    run(CONFIG, clean, features, tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    assert manifest["rows"] == Rows(total=67, immature=7, gap=12, train=24, valid=12, test=12).model_dump()
    assert manifest["views"] == list(VIEWS)
    assert manifest["info"] == INFO.model_dump(mode="json")
    assert json.loads(json.dumps(manifest["spec"])) == spec().model_dump(mode="json")
    assert manifest["ranges"]["kind"] == "time"
    assert manifest["as_of"]


def test_without_views_feast_is_not_asked(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "components.features.point_in_time", None)
    clean = write_clean(tmp_path / "clean", impressions(rows()))
    features = write_features(tmp_path / "features", {})
    facts = run(RetrieveConfig(dataset="tiny", spec=spec(())), clean, features, tmp_path / "out")
    assert facts["views"] == "none: ids and context only"
    assert read(tmp_path / "out", "train").column_names[4:] == ["position", "device", "click", "conversion"]


def test_an_interrupted_attempt_is_started_over(tmp_path, features):
    clean = write_clean(tmp_path / "clean", impressions(rows()))
    (tmp_path / "out/train").mkdir(parents=True)
    (tmp_path / "out/train/part-99999.parquet").write_bytes(b"half")
    run(CONFIG, clean, features, tmp_path / "out")
    assert len(read(tmp_path / "out", "train")) == 24


def test_lost_impressions_are_an_error(tmp_path, features, monkeypatch):
    clean = write_clean(tmp_path / "clean", impressions(rows()))
    honest = retrieve._chunks
    monkeypatch.setattr(retrieve, "_chunks", lambda *a: (t.slice(1) for t in honest(*a)))
    with pytest.raises(DataError, match="train: 24 in, 23 out"):
        run(CONFIG, clean, features, tmp_path / "out")


def test_exchanged_impressions_are_an_error(tmp_path, features, monkeypatch):
    """Counts alone would not notice one row twice and another not at all."""
    clean = write_clean(tmp_path / "clean", impressions(rows()))
    honest = retrieve._chunks

    def doubled(*arguments):
        for table in honest(*arguments):
            yield pa.concat_tables([table.slice(0, 1), table.slice(0, len(table) - 1)])

    monkeypatch.setattr(retrieve, "_chunks", doubled)
    with pytest.raises(DataError, match="exactly the impressions"):
        run(CONFIG, clean, features, tmp_path / "out")


def test_a_changed_artifact_is_noticed(tmp_path, features):
    clean = write_clean(tmp_path / "clean", impressions(rows()))
    next(clean.glob("*/*.parquet")).write_bytes(b"something else")
    with pytest.raises(CorruptArtifact):
        run(CONFIG, clean, features, tmp_path / "out")


def test_a_missing_context_column_is_named(tmp_path, features):
    clean = write_clean(tmp_path / "clean", impressions(rows()).drop_columns(["device"]))
    with pytest.raises(DataError, match="no context column device"):
        run(CONFIG, clean, features, tmp_path / "out")


def test_context_of_another_type_is_named(tmp_path, features):
    table = impressions(rows())
    text = pa.array(["x"] * len(table))
    clean = write_clean(tmp_path / "clean", table.set_column(table.column_names.index("position"), "position", text))
    with pytest.raises(DataError, match="'position' is string and cannot be read as int"):
        run(CONFIG, clean, features, tmp_path / "out")
