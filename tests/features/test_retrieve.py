from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from features.made import (
    GROUP_VIEW,
    GROUPED,
    INFO,
    LOGGED,
    VIEWS,
    grouped_spec,
    impressions,
    read,
    spec,
    view_table,
    write_clean,
    write_features,
)

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
    facts = run(CONFIG, clean, features, tmp_path / "out", part_rows=7)
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


def test_where_parts_end_does_not_show(tmp_path, features):
    clean = write_clean(tmp_path / "clean", impressions(rows()))
    for name, size in (("whole", 250_000), ("small", 5)):
        run(CONFIG, clean, features, tmp_path / name, part_rows=size)
    for split in ("train", "valid", "test"):
        assert read(tmp_path / "whole", split).equals(read(tmp_path / "small", split))


def test_the_same_again_is_the_same_file(tmp_path, features):
    clean = write_clean(tmp_path / "clean", impressions(rows()))
    for name in ("a", "b"):
        run(CONFIG, clean, features, tmp_path / name)
    assert read_manifest(tmp_path / "a")["fingerprint"] == read_manifest(tmp_path / "b")["fingerprint"]


def test_many_rows_are_parts_of_one_size_and_the_same_bytes_again(tmp_path, features):
    """More rows than DuckDB hands out at a time, joined on every core."""
    clean = write_clean(
        tmp_path / "clean", impressions({**row, "impression_id": f"m{n}"} for n, row in enumerate(rows(30_000)))
    )
    for name in ("a", "b"):
        run(CONFIG, clean, features, tmp_path / name, part_rows=2_500)
    for split, sizes in {"train": [2_500] * 4 + [2_000], "valid": [2_500, 2_500, 1_000]}.items():
        parts = sorted((tmp_path / "a" / split).glob("*.parquet"))
        assert [part.name for part in parts] == [f"part-{n:05d}.parquet" for n in range(len(sizes))]
        assert [pq.read_metadata(part).num_rows for part in parts] == sizes
    assert read_manifest(tmp_path / "a")["fingerprint"] == read_manifest(tmp_path / "b")["fingerprint"]
    table = read(tmp_path / "a", "train")
    order = list(zip(table["event_timestamp"].to_pylist(), table["impression_id"].to_pylist(), strict=True))
    assert order == sorted(order)


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
    honest = retrieve._joined
    monkeypatch.setattr(retrieve, "_joined", lambda *a: (t.slice(1) for t in honest(*a)))
    with pytest.raises(DataError, match="train: 24 in, 23 out"):
        run(CONFIG, clean, features, tmp_path / "out")


def test_exchanged_impressions_are_an_error(tmp_path, features, monkeypatch):
    """Counts alone would not notice one row twice and another not at all."""
    clean = write_clean(tmp_path / "clean", impressions(rows()))
    honest = retrieve._joined

    def doubled(*arguments):
        for table in honest(*arguments):  # train's 24 rows come first
            yield pa.concat_tables([table.slice(0, 1), table.slice(0, 23), table.slice(24)])

    monkeypatch.setattr(retrieve, "_joined", doubled)
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


GROUP_CONFIG = RetrieveConfig(dataset="tiny", spec=grouped_spec())


@pytest.fixture
def groups(tmp_path):
    rows = [{"group_id": f"g{n}", "event": 0, "f109_14": ["v"] * n, "f109_14_weights": [0.5] * n} for n in range(3)]
    tables = {GROUP_VIEW: view_table(GROUP_VIEW, rows), "item_activity": view_table("item_activity", [])}
    return write_features(tmp_path / "groups", tables)


def grouped_rows(count=60):
    """One user in several groups; every fifth bag null, every third empty."""
    bags = [None if n % 5 == 0 else [f"t{k}" for k in range(n % 3)] for n in range(count)]
    return [
        {**row, "user_id": "u1", "group_id": f"g{n % 4}", "f206": f"c{n % 2}", "seen": ["s", "s"], "f210": bag,
         "f210_weights": None if bag is None else [k + 0.5 for k in range(len(bag))]}
        for n, (row, bag) in enumerate(zip(rows(count), bags, strict=True))
    ]  # fmt: skip


def test_groups_and_bags_of_the_log_and_of_a_view(tmp_path, groups):
    given = {row["impression_id"]: row for row in grouped_rows()}
    clean = write_clean(tmp_path / "clean", impressions(given.values(), **LOGGED), GROUPED)
    facts = run(GROUP_CONFIG, clean, groups, tmp_path / "out", part_rows=7)
    table = read(tmp_path / "out", "train")
    names = ["impression_id", "user_id", "item_id", "group_id", "event_timestamp", *GROUPED.context]
    assert table.column_names[: len(names)] == names
    for row in table.to_pylist():
        before, group = given[row["impression_id"]], int(row["group_id"][1:])
        assert all(row[name] == before[name] for name in ("group_id", "f206", "seen", "f210", "f210_weights"))
        assert row["f109_14"] == (["v"] * group if group < 3 else None)
        assert row["f109_14_weights"] == ([0.5] * group if group < 3 else None)
    assert {0, 1, 2} < {len(bag) if bag is not None else None for bag in table["f210"].to_pylist()}
    kinds = [str(table.schema.field(name).type) for name in ("f210", "f210_weights", "f109_14", "f109_14_weights")]
    assert kinds == ["list<element: string>", "list<element: double>"] * 2
    # A group without values, and one that is not there, are both missing.
    assert facts["known"]["f109_14"] == 0.5
    assert "f109_14_weights" not in facts["known"]


def test_with_bags_parts_are_smaller(tmp_path, groups, monkeypatch):
    monkeypatch.setattr(retrieve, "BAG_PART_ROWS", 5)
    clean = write_clean(tmp_path / "clean", impressions(grouped_rows(), **LOGGED), GROUPED)
    run(GROUP_CONFIG, clean, groups, tmp_path / "out")
    parts = sorted((tmp_path / "out/train").glob("*.parquet"))
    assert len(parts) > 1
    assert sum(pq.read_metadata(part).num_rows for part in parts) == 24


def test_a_log_without_the_group_a_view_needs_is_named(tmp_path, groups):
    table = impressions(grouped_rows(), **LOGGED).drop_columns(["group_id"])
    clean = write_clean(tmp_path / "clean", table, GROUPED)
    with pytest.raises(DataError, match="no column group_id, by which the features of view ali_ccp_user are kept"):
        run(GROUP_CONFIG, clean, groups, tmp_path / "out")
    # Where no view needs it, nobody asks.
    run(RetrieveConfig(dataset="tiny", spec=spec((), GROUPED)), clean, groups, tmp_path / "other")
    assert "group_id" not in read(tmp_path / "other", "train").column_names


def test_missing_weights_of_the_log_are_named(tmp_path, groups):
    table = impressions(grouped_rows(), **LOGGED).drop_columns(["f210_weights"])
    with pytest.raises(DataError, match="no context column f210_weights"):
        run(GROUP_CONFIG, write_clean(tmp_path / "clean", table, GROUPED), groups, tmp_path / "out")


def test_a_null_among_the_values_of_a_bag_is_named(tmp_path, groups):
    bad = [{**row, "seen": ["s", None]} for row in grouped_rows()]
    clean = write_clean(tmp_path / "clean", impressions(bad, **LOGGED), GROUPED)
    with pytest.raises(DataError, match="'seen' has lists with a null among their values"):
        run(GROUP_CONFIG, clean, groups, tmp_path / "out")


def test_single_values_where_a_bag_is_declared_are_named(tmp_path, groups):
    bad = [{**row, "seen": "s"} for row in grouped_rows()]
    clean = write_clean(tmp_path / "clean", impressions(bad, **{**LOGGED, "seen": pa.string()}), GROUPED)
    with pytest.raises(DataError, match="'seen' is string and cannot be read as strings"):
        run(GROUP_CONFIG, clean, groups, tmp_path / "out")


def test_what_is_known_of_the_quality_travels_on(tmp_path, features):
    quality = {"days": [], "reference": "none yet"}
    clean = write_clean(tmp_path / "clean", impressions(rows()), quality=quality)
    run(CONFIG, clean, features, tmp_path / "out")
    assert read_manifest(tmp_path / "out")["quality"] == quality
    run(CONFIG, write_clean(tmp_path / "plain", impressions(rows())), features, tmp_path / "other")
    assert "quality" not in read_manifest(tmp_path / "other")
