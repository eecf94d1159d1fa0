"""The online lookup against real stores, filled by the materialize stage."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from features.made import AS_OF, INFO, at, spec, view_table
from lookup_made import fill, given, place, tables

from components.contracts.errors import ServiceError
from components.contracts.online import Materialized, read_materialized, write_materialized
from components.contracts.times import format_utc
from components.scoring.raw import columns_from_table
from pipelines.feature_spec import feature_spec
from serving.context import context_columns
from serving.lookup import NullLookup, OnlineLookup

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def lookup(materialized):
    opened = OnlineLookup(place(materialized), spec(), "frozen")
    yield opened
    opened.close()


def test_values_types_and_order(lookup):
    found = lookup.rows("u1", ["i3", "i1", "i3"], given("i3", "i1", "i3"))
    columns = found.columns
    assert set(columns) == {"user_id", "item_id", "device", *(feature.name for feature in spec().stored)}
    assert columns["item_id"].tolist() == ["i3", "i1", "i3"]
    assert columns["user_id"].tolist() == ["u1"] * 3
    assert columns["device"].tolist() == ["web"] * 3
    assert columns["country"].tolist() == ["de"] * 3
    assert columns["age_band"].dtype == np.int64
    assert columns["age_band"].tolist() == [3] * 3
    assert columns["item_clicks_7d"].dtype == np.int64
    assert columns["item_clicks_7d"].tolist() == [6, 7, 6]
    np.testing.assert_array_equal(columns["item_ctr_7d"], [np.nan, 0.1, np.nan])
    assert (found.unknown_user, found.unknown_items, found.expired) == (False, [], 0)


def test_what_is_served_is_what_retrieval_gives_at_as_of(lookup, materialized):
    """Every expected row, raw value for raw value and type for type."""
    table = pq.read_table(materialized.parents[2] / "made0/expected/expected.parquet")
    names = [name for name in spec().raw if name != "position"]
    requests = table["request"].to_numpy()
    for number in np.unique(requests):
        part = table.filter(pa.array(requests == number))
        context = context_columns(spec(), {"device": part["device"][0].as_py()}, {}, len(part))
        found = lookup.rows(part["user_id"][0].as_py(), part["item_id"].to_pylist(), context).columns
        for name, expected in columns_from_table(part, names).items():
            np.testing.assert_array_equal(found[name], expected, err_msg=name)
            if expected.dtype.kind != "O" and not np.isnan(expected.astype(float)).any():
                assert found[name].dtype == expected.dtype, name
    assert len(np.unique(requests)) >= 4


def test_ints_with_a_missing_value_are_floats_and_strings_objects(lookup):
    columns = lookup.rows("u2", ["i1", "nothing"], given("i1", "nothing")).columns
    np.testing.assert_array_equal(columns["item_clicks_7d"], [7.0, np.nan])
    assert columns["age_band"].dtype == np.float64
    assert columns["segment"].tolist() == [None, None]


def test_too_old_is_missing_and_counted_but_known(lookup):
    found = lookup.rows("u1", ["i2", "i3", "i1"], given("i2", "i3", "i1"))
    np.testing.assert_array_equal(found.columns["item_clicks_7d"], [np.nan, 6, 7])
    assert found.expired == 2  # item_clicks_7d and item_impressions_7d; a null cannot be too old
    assert found.unknown_items == []


def test_unknown_is_told_from_null(lookup):
    found = lookup.rows("u3", ["i4", "i1", "nothing"], given("i4", "i1", "nothing"))
    assert not found.unknown_user
    assert found.unknown_items == ["nothing"]
    assert found.columns["country"].tolist() == [None] * 3
    stranger = lookup.rows("nobody", ["i1"], given("i1"))
    assert stranger.unknown_user
    assert stranger.columns["country"].tolist() == [None]
    np.testing.assert_array_equal(stranger.columns["age_band"], [np.nan])


def test_ids_are_strings_and_nothing_else(lookup):
    assert lookup.rows("1", ["i1"], given("i1")).unknown_user


def test_the_wall_clock_ages_values(materialized):
    """Of a recording from another time everything is too old by the wall clock."""
    opened = OnlineLookup(place(materialized), spec(), "wall")
    age = datetime.now(UTC) - at(18)
    found = opened.rows("u1", ["i1"], given("i1"))
    opened.close()
    assert (found.expired > 0) == (age > timedelta(days=7))


def test_a_fresh_store_by_the_wall_clock(tmp_path, monkeypatch):
    """Values of yesterday are fresh; the expected rows are those of the wall clock too."""
    monkeypatch.setenv("ESMM_HOME", str(tmp_path / "home"))
    now = (datetime.now(UTC) - at(0)) / timedelta(days=1)
    shop = tables()
    ages = [
        {"item_id": "i1", "event": now - 1, "item_clicks_7d": 1},
        {"item_id": "i2", "event": now - 7.5, "item_clicks_7d": 2},
    ]
    shop["item_activity"] = view_table("item_activity", ages)
    as_of = format_utc(datetime.now(UTC) - timedelta(hours=1))
    folder = fill(tmp_path, shop, as_of, "wall")
    opened = OnlineLookup(place(folder), spec(), "wall")
    found = opened.rows("u1", ["i1", "i2"], given("i1", "i2"))
    opened.close()
    np.testing.assert_array_equal(found.columns["item_clicks_7d"], [1, np.nan])
    assert found.expired == 1
    expected = pq.read_table(tmp_path / "made0/expected/expected.parquet").to_pylist()
    assert {row["item_clicks_7d"] for row in expected if row["item_id"] == "i2"} == {None}
    assert {row["item_clicks_7d"] for row in expected if row["item_id"] == "i1"} == {1}


def test_event_times_survive_a_change_of_time_zone(materialized):
    """Written where this test runs, read in New York: the same moment, so the same age."""
    code = f"""
from pathlib import Path
import numpy as np
from components.contracts.online import Place
from components.contracts.spec import FeatureSpec
from serving.lookup import OnlineLookup
spec = FeatureSpec.parse({spec().to_json()!r})
lookup = OnlineLookup(Place.of(Path({str(materialized)!r}), "tiny", {{}}), spec, "frozen")
cells = lookup.inspect("u1", ["i1", "i3"])
stamps = [cell.event_time.timestamp() for cell in cells if cell.feature == "item_clicks_7d"]
assert stamps == {[at(18).timestamp(), at(12).timestamp()]}, stamps
np.testing.assert_array_equal(lookup.rows("u1", ["i3", "i2"], {{}}).columns["item_clicks_7d"], [6, np.nan])
lookup.close()
"""
    environment = {**os.environ, "TZ": "America/New_York", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_serving_needs_nothing_of_training(materialized):
    code = f"""
import importlib.abc, sys
BLOCKED = ("torch", "duckdb", "ibis", "mlflow", "kfp", "great_expectations", "pipelines", "feature_repo")
BLOCKED += ("redis", "psycopg")  # which only the profile production needs
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED or name.startswith("components.features"):
            raise ImportError("not installed beside the service: " + name)
sys.meta_path.insert(0, Block())
from pathlib import Path
from components.contracts.online import Place
from components.contracts.spec import FeatureSpec
from serving.lookup import OnlineLookup
spec = FeatureSpec.parse({spec().to_json()!r})
lookup = OnlineLookup(Place.of(Path({str(materialized)!r}), "tiny", {{}}), spec, "frozen")
assert lookup.rows("u1", ["i1"], {{}}).columns["item_clicks_7d"].tolist() == [7]
lookup.close()
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["registry.db", "online.db", "materialized.json"])
def test_a_store_that_is_not_there_is_a_sentence(store, name):
    (store / name).unlink()
    with pytest.raises(ServiceError, match=rf"holds no {name}.*esmm materialize"):
        OnlineLookup(place(store), spec(), "frozen")
    assert not (store / name).exists()


def test_a_view_or_feature_that_is_not_there_is_a_sentence(materialized):
    more = feature_spec(INFO, ("user_profile", "item_activity", "item_profile"))
    with pytest.raises(ServiceError, match="item_profile"):
        OnlineLookup(place(materialized), more, "frozen")
    changed = spec().model_dump(mode="json")
    changed["features"].append({**changed["features"][-1], "name": "item_carts_7d"})
    with pytest.raises(ServiceError, match="no feature 'item_carts_7d'"):
        OnlineLookup(place(materialized), type(spec()).parse(changed), "frozen")


def test_another_project_s_store_is_a_sentence(materialized):
    with pytest.raises(ServiceError, match="does not answer"):
        OnlineLookup(place(materialized, "other"), spec(), "frozen")


def test_a_table_that_vanishes_is_a_sentence(store):
    opened = OnlineLookup(place(store), spec(), "frozen")
    with closing(sqlite3.connect(store / "online.db")) as db:
        db.execute("DROP TABLE tiny_item_activity")
        db.commit()
    with pytest.raises(ServiceError, match=r"no such table.*esmm materialize"):
        opened.rows("u1", ["i1"], given("i1"))
    opened.close()


def test_a_view_deleted_from_the_registry_is_a_sentence(store):
    opened = OnlineLookup(place(store), spec(), "frozen")
    with closing(sqlite3.connect(store / "registry.db")) as db:
        db.execute("DELETE FROM feature_views WHERE feature_view_name = 'item_activity'")
        db.commit()
    opened._registry.refresh()
    with pytest.raises(ServiceError, match="item_activity"):
        opened.rows("u1", ["i1"], given("i1"))
    opened.close()


def test_a_frozen_clock_needs_its_time(store):
    opened = OnlineLookup(place(store), spec(), "frozen")
    (store / "materialized.json").unlink()
    with pytest.raises(ServiceError, match=r"materialized\.json"):
        opened.rows("u1", ["i1"], given("i1"))
    assert opened.materialized_as_of() is None
    opened.close()


def test_the_registry_is_only_read(store):
    before = (store / "registry.db").read_bytes()
    (store / "registry.db").chmod(0o444)
    opened = OnlineLookup(place(store), spec(), "frozen")
    opened.rows("u1", ["i1"], given("i1"))
    opened.close()
    assert (store / "registry.db").read_bytes() == before


def test_a_model_without_views_looks_nothing_up():
    context = {"hour": np.array([3, 3])}
    found = NullLookup().rows("u1", ["i1", "i2"], context, "g1")
    assert found.columns["hour"].tolist() == [3, 3]
    assert found.columns["user_id"].tolist() == ["u1", "u1"]
    assert found.columns["item_id"].tolist() == ["i1", "i2"]
    assert (found.unknown_user, found.unknown_group, found.unknown_items, found.expired) == (False, None, [], 0)
    assert NullLookup().materialized_as_of() is None


def test_a_model_that_reads_one_view_asks_for_one(materialized):
    opened = OnlineLookup(place(materialized), spec(("user_profile",)), "frozen")
    found = opened.rows("u1", ["i1", "nothing"], given("i1", "nothing"))
    opened.close()
    assert "item_clicks_7d" not in found.columns
    assert found.unknown_items == []  # the store does not say; the model's vocabulary does


def test_materialized_json_round_trip(tmp_path):
    assert read_materialized(tmp_path) is None
    value = Materialized(as_of=AS_OF, views={"user_profile": 3})
    write_materialized(tmp_path, value)
    assert read_materialized(tmp_path) == value
