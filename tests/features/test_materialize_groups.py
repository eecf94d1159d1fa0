"""Materializing groups, bags and what belongs to an item."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from features.made import (
    GROUP_VIEW,
    GROUPED,
    LOGGED,
    at,
    grouped_spec,
    impressions,
    view_table,
    write_clean,
    write_features,
)
from features.materialize_made import CONFIG, make_dataset, online, tables

from components.contracts.errors import DataError
from components.contracts.paths import Home
from components.contracts.times import format_utc
from components.features.expected import REQUEST, UNKNOWN_GROUP, UNKNOWN_ITEMS, UNKNOWN_USER
from components.features.materialize import materialize_dataset, run
from components.features.online import sqlite_store, staging
from components.features.retrieve import RetrieveConfig
from components.features.retrieve import run as retrieve
from feature_repo.store import open_store

GROUPS = {
    "g0": {"f109_14": ["a", "", "é😀"], "f109_14_weights": [0.5, 0.0, 3.0000000000000004], "f121": "x"},
    "g1": {"f109_14": [], "f109_14_weights": []},
    "g2": {},
    "g3": {"f109_14": ["c"], "f109_14_weights": [1e-300], "f110_14": ["d"] * 300, "f110_14_weights": [2.5] * 300},
}


@pytest.fixture
def grouped(tmp_path):
    """(features, dataset): one user in many groups, items with context of their own."""
    rows = [{"group_id": group, "event": 18, **row} for group, row in GROUPS.items()]
    old = {"group_id": "g0", "event": 1, "f109_14": ["old"], "f109_14_weights": [1.0]}
    given = {GROUP_VIEW: view_table(GROUP_VIEW, [*rows, old]), "item_activity": tables()["item_activity"]}
    features = write_features(tmp_path / "grouped", given)
    log = [
        {"event": 17 + n / 100, "split": "test", "user_id": f"u{n % 3}", "group_id": f"g{n % 4}", "seen": [f"s{n % 3}"],
         "item_id": f"i{n % 10}", "f206": f"c{n}", "f210": [f"t{n}"] * (n % 3), "f210_weights": [n / 2] * (n % 3)}
        for n in range(40)
    ]  # fmt: skip
    log += [{"event": 1, "split": "train"}, {"event": 5, "split": "valid"}]
    clean = write_clean(tmp_path / "clean", impressions(log, **LOGGED), GROUPED)
    retrieve(RetrieveConfig(dataset="tiny", spec=grouped_spec()), clean, features, tmp_path / "dataset")
    return features, tmp_path / "dataset"


GROUP_CONFIG = CONFIG.model_copy(update={"spec": grouped_spec()})


def test_lists_survive_feast_s_sqlite_store(home, grouped, tmp_path):
    """Null, empty and full lists, odd text and every bit of a weight."""
    facts = run(GROUP_CONFIG, *grouped, tmp_path / "expected")
    assert facts["views"][GROUP_VIEW] == len(GROUPS)
    names = ["f109_14", "f109_14_weights", "f110_14", "f110_14_weights", "f121"]
    answer = open_store("tiny", home.feast("tiny")).get_online_features(
        features=[f"{GROUP_VIEW}:{name}" for name in names],
        entity_rows=[{"group_id": group} for group in (*GROUPS, "nobody")],
    )
    found = answer.to_dict()
    for name in names:
        assert found[name] == [*(row.get(name) for row in GROUPS.values()), None], name


def test_large_views_go_in_batches_and_it_does_not_show(home, grouped, tmp_path, monkeypatch):
    """Every entity once, the newest row of each; the registry names the whole table."""
    run(GROUP_CONFIG, *grouped, tmp_path / "expected")
    whole = online(home), online(home, GROUP_VIEW)
    monkeypatch.setattr(staging, "BATCH_ENTITIES", 3)
    other = Home(tmp_path / "other")
    monkeypatch.setenv("ESMM_HOME", str(other.root))
    batches, encode = [], sqlite_store.encode
    monkeypatch.setattr(
        sqlite_store, "encode", lambda batch, view: (batches.append(len(batch)), encode(batch, view))[1]
    )
    run(GROUP_CONFIG, *grouped, tmp_path / "expected")
    assert batches == [3, 3, 3, 1, 3, 1]
    assert (online(other), online(other, GROUP_VIEW)) == whole
    assert {Path(path).parts[-2] for path in registered_paths(other)} == {"item_activity", GROUP_VIEW}


def registered_paths(home):
    views_ = open_store("tiny", home.feast("tiny")).list_feature_views()
    return sorted(view.batch_source.path for view in views_)


def test_expected_rows_of_groups_and_items(home, grouped, tmp_path):
    """Group and request context of the user's last impression, item context of the item's own."""
    run(GROUP_CONFIG, *grouped, tmp_path / "expected")
    table = pq.read_table(tmp_path / "expected/expected.parquet")
    spec_ = grouped_spec()
    context = [name for feature in spec_.context for name in feature.raw]
    stored = [name for feature in spec_.stored for name in feature.raw]
    assert table.column_names == [REQUEST, *spec_.keys, *context, *stored]
    rows = table.to_pylist()
    for row in rows:
        group = GROUPS.get(row["group_id"], {})
        assert all(row[name] == group.get(name) for name in ("f109_14", "f109_14_weights", "f121"))
        if row["item_id"] in UNKNOWN_ITEMS:
            assert (row["f206"], row["f210"], row["f210_weights"]) == (None, None, None)
        else:
            last = 30 + int(row["item_id"][1:])  # the impression that showed the item last
            assert (row["f206"], row["f210"]) == (f"c{last}", [f"t{last}"] * (last % 3))
            assert row["f210_weights"] == [last / 2] * (last % 3)
    assert {row["f109_14"] is None for row in rows} == {True, False}
    for number in sorted({row[REQUEST] for row in rows}):
        asked = [row for row in rows if row[REQUEST] == number]
        assert len({(row["user_id"], row["group_id"], tuple(row["seen"]), row["position"]) for row in asked}) == 1
    users = {row["user_id"]: row for row in rows if row[REQUEST] < 3}
    assert [(users[f"u{n}"]["group_id"], users[f"u{n}"]["seen"]) for n in (0, 1, 2)] == [
        ("g3", ["s0"]), ("g1", ["s1"]), ("g2", ["s2"]),
    ]  # fmt: skip
    strangers = [{(row["user_id"], row["group_id"]) for row in rows if row[REQUEST] == n} for n in (3, 4, 5)]
    assert strangers == [{(UNKNOWN_USER, "g3")}, {("u0", UNKNOWN_GROUP)}, {("u0", "g3")}]
    assert set(UNKNOWN_ITEMS) < {row["item_id"] for row in rows if row[REQUEST] == 5}


def test_a_dataset_s_own_tables_with_lists_that_are_no_bags_are_not_served(home, tmp_path):
    """Outside of a run no validation comes before: a weight that every request would fail on stays out."""
    good = {GROUP_VIEW: view_table(GROUP_VIEW, [{"group_id": "g1", "event": 1, "f121": "x"}])}
    materialize_dataset(home, make_dataset(tmp_path / "good", good), format_utc(at(10)))
    before = online(home, GROUP_VIEW)
    bad = [{"group_id": "g1", "event": 2, "f109_14": ["a"], "f109_14_weights": [-1.0]}]
    with pytest.raises(DataError, match="1 rows have a weight in f109_14_weights that is null, negative"):
        materialize_dataset(
            home, make_dataset(tmp_path / "bad", {GROUP_VIEW: view_table(GROUP_VIEW, bad)}), format_utc(at(11))
        )
    assert online(home, GROUP_VIEW) == before
    # What the live store serves is known by its entity too.
    report = materialize_dataset(home, make_dataset(tmp_path / "again", good), format_utc(at(12)))
    assert {name: view.rows for name, view in report.views.items()} == {GROUP_VIEW: 1}
