"""The online lookup against real stores, filled by the materialize stage."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from features.made import (
    AS_OF,
    GROUP_VIEW,
    GROUPED,
    INFO,
    LOGGED,
    at,
    grouped_spec,
    impressions,
    spec,
    view_table,
    write_clean,
    write_features,
)

from components.contracts.errors import ServiceError
from components.contracts.online import Materialized, Place, read_materialized, write_materialized
from components.contracts.paths import Home
from components.contracts.times import format_utc
from components.features.materialize import MaterializeConfig
from components.features.materialize import run as materialize
from components.features.online import sqlite_store
from components.features.retrieve import RetrieveConfig
from components.features.retrieve import run as retrieve
from components.scoring.raw import Ragged, columns_from_table
from pipelines.feature_spec import feature_spec
from serving.context import context_columns
from serving.lookup import NullLookup, OnlineLookup

ROOT = Path(__file__).resolve().parents[2]


def place(folder: Path, project: str = "tiny") -> Place:
    return Place.of(folder, project, {})


def given(*items):
    """The columns of a request for these items that says which device it comes from."""
    return context_columns(spec(), {"device": "web"}, {}, len(items))


def tables(clicks=0):
    """u1 and u2; u3 has nulls only. i1 fresh; i2 too old; i3 at the last moment of its seven days; i4 nulls only."""
    profiles = [
        {"user_id": "u1", "event": 1, "country": "de", "segment": "s", "age_band": 3, "member_days": 40},
        {"user_id": "u2", "event": 1, "country": "fr", "age_band": None, "member_days": 2},
        {"user_id": "u3", "event": 1},
    ]
    activity = [
        {"item_id": "i1", "event": 18, "item_clicks_7d": clicks + 7, "item_impressions_7d": 70, "item_ctr_7d": 0.1},
        {"item_id": "i2", "event": 11, "item_clicks_7d": 5, "item_impressions_7d": 50},
        {"item_id": "i3", "event": 12, "item_clicks_7d": clicks + 6, "item_impressions_7d": 0},
        {"item_id": "i4", "event": 18},
    ]
    return {
        "user_profile": view_table("user_profile", profiles),
        "item_activity": view_table("item_activity", activity),
    }


def fill(root: Path, tables_=None, as_of=AS_OF, clock="frozen", number=0) -> Path:
    """Materializes into root/home; returns the store's folder."""
    folder = root / f"made{number}"
    features = write_features(folder / "features", tables_ or tables())
    rows = [
        {"event": day, "split": split, "user_id": f"u{n % 3 + 1}", "item_id": f"i{n % 5 + 1}"}
        for day, split in ((1, "train"), (5, "valid"), (9, "test"))
        for n in range(15)
    ]
    clean = write_clean(folder / "clean", impressions(rows))
    retrieve(RetrieveConfig(dataset="tiny", spec=spec()), clean, features, folder / "dataset")
    config = MaterializeConfig(dataset="tiny", as_of=as_of, spec=spec(), clock=clock)
    materialize(config, features, folder / "dataset", folder / "expected")
    return Home(root / "home").feast("tiny")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("lookup")
    os.environ["ESMM_HOME"] = str(root / "home")
    try:
        yield fill(root)
    finally:
        del os.environ["ESMM_HOME"]


@pytest.fixture
def store(made, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(made, tmp_path / "store")


@pytest.fixture
def lookup(made):
    opened = OnlineLookup(place(made), spec(), "frozen")
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


def test_what_is_served_is_what_retrieval_gives_at_as_of(lookup, made):
    """Every expected row, raw value for raw value and type for type."""
    table = pq.read_table(made.parents[2] / "made0/expected/expected.parquet")
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


def test_the_wall_clock_ages_values(made):
    """Of a recording from another time everything is too old by the wall clock."""
    opened = OnlineLookup(place(made), spec(), "wall")
    age = datetime.now(UTC) - at(18)
    found = opened.rows("u1", ["i1"], given("i1"))
    opened.close()
    assert (found.expired > 0) == (age > timedelta(days=7))


def test_a_fresh_store_by_the_wall_clock(tmp_path, monkeypatch):
    """Values of yesterday are fresh; the expected rows are those of the wall clock too."""
    monkeypatch.setenv("ESMM_HOME", str(tmp_path / "home"))
    now = (datetime.now(UTC) - at(0)) / timedelta(days=1)
    made = tables()
    ages = [
        {"item_id": "i1", "event": now - 1, "item_clicks_7d": 1},
        {"item_id": "i2", "event": now - 7.5, "item_clicks_7d": 2},
    ]
    made["item_activity"] = view_table("item_activity", ages)
    as_of = format_utc(datetime.now(UTC) - timedelta(hours=1))
    folder = fill(tmp_path, made, as_of, "wall")
    opened = OnlineLookup(place(folder), spec(), "wall")
    found = opened.rows("u1", ["i1", "i2"], given("i1", "i2"))
    opened.close()
    np.testing.assert_array_equal(found.columns["item_clicks_7d"], [1, np.nan])
    assert found.expired == 1
    expected = pq.read_table(tmp_path / "made0/expected/expected.parquet").to_pylist()
    assert {row["item_clicks_7d"] for row in expected if row["item_id"] == "i2"} == {None}
    assert {row["item_clicks_7d"] for row in expected if row["item_id"] == "i1"} == {1}


def test_a_running_service_sees_a_new_materialization(tmp_path, monkeypatch):
    monkeypatch.setenv("ESMM_HOME", str(tmp_path / "home"))
    folder = fill(tmp_path, as_of=format_utc(at(18.5)))
    opened = OnlineLookup(place(folder), spec(), "frozen")
    assert opened.rows("u1", ["i1"], given("i1")).columns["item_clicks_7d"].tolist() == [7]
    assert opened.materialized_as_of() == format_utc(at(18.5))
    fill(tmp_path, tables(clicks=100), number=1)
    assert opened.rows("u1", ["i1"], given("i1")).columns["item_clicks_7d"].tolist() == [107]
    assert opened.materialized_as_of() == AS_OF
    opened.close()


def test_readers_see_old_or_new_and_are_never_refused(tmp_path, monkeypatch):
    """While materializations follow each other, every answer is one of them, whole."""
    monkeypatch.setenv("ESMM_HOME", str(tmp_path / "home"))
    folder = fill(tmp_path)
    opened = OnlineLookup(place(folder), spec(), "frozen")
    seen, failures, stop = set(), [], threading.Event()

    def read():
        while not stop.is_set():
            try:
                seen.add(tuple(opened.rows("u1", ["i1", "i3"], given("i1", "i3")).columns["item_clicks_7d"].tolist()))
            except ServiceError as error:
                failures.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    try:
        for number in (1, 2):
            fill(tmp_path, tables(clicks=100 * number), number=number)
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    seen.add(tuple(opened.rows("u1", ["i1", "i3"], given("i1", "i3")).columns["item_clicks_7d"].tolist()))
    opened.close()
    assert failures == []
    assert seen <= {(7, 6), (107, 106), (207, 206)}
    assert (207, 206) in seen


def test_a_dying_materialization_is_not_served(tmp_path, monkeypatch):
    monkeypatch.setenv("ESMM_HOME", str(tmp_path / "home"))
    folder = fill(tmp_path)
    opened = OnlineLookup(place(folder), spec(), "frozen")

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sqlite_store, "publish", die)
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path, tables(clicks=100), number=1)
    assert opened.rows("u1", ["i1"], given("i1")).columns["item_clicks_7d"].tolist() == [7]
    opened.close()


def test_a_dying_swap_is_rolled_back(store, tmp_path):
    """Killed inside the backup's transaction, after half of the pages: the old values answer."""
    bigger = tmp_path / "bigger.db"
    shutil.copy(store / "online.db", bigger)
    with closing(sqlite3.connect(bigger)) as db:
        db.execute("UPDATE tiny_item_activity SET event_ts = 0")
        db.execute("CREATE TABLE filler (text TEXT)")
        db.executemany("INSERT INTO filler VALUES (?)", [(f"{number:0100d}",) for number in range(20_000)])
        db.commit()
    code = f"""
import os, sqlite3
source, target = sqlite3.connect({str(bigger)!r}), sqlite3.connect({str(store / "online.db")!r})
source.backup(target, pages=64, progress=lambda status, left, total: os._exit(9) if left < total / 2 else None)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    opened = OnlineLookup(place(store), spec(), "frozen")
    assert opened.rows("u1", ["i1"], given("i1")).columns["item_clicks_7d"].tolist() == [7]
    opened.close()


def test_event_times_survive_a_change_of_time_zone(made):
    """Written where this test runs, read in New York: the same moment, so the same age."""
    code = f"""
from pathlib import Path
import numpy as np
from components.contracts.online import Place
from components.contracts.spec import FeatureSpec
from serving.lookup import OnlineLookup
spec = FeatureSpec.parse({spec().to_json()!r})
lookup = OnlineLookup(Place.of(Path({str(made)!r}), "tiny", {{}}), spec, "frozen")
cells = lookup.inspect("u1", ["i1", "i3"])
stamps = [cell.event_time.timestamp() for cell in cells if cell.feature == "item_clicks_7d"]
assert stamps == {[at(18).timestamp(), at(12).timestamp()]}, stamps
np.testing.assert_array_equal(lookup.rows("u1", ["i3", "i2"], {{}}).columns["item_clicks_7d"], [6, np.nan])
lookup.close()
"""
    environment = {**os.environ, "TZ": "America/New_York", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_serving_needs_nothing_of_training(made):
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
lookup = OnlineLookup(Place.of(Path({str(made)!r}), "tiny", {{}}), FeatureSpec.parse({spec().to_json()!r}), "frozen")
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


def test_a_view_or_feature_that_is_not_there_is_a_sentence(made):
    more = feature_spec(INFO, ("user_profile", "item_activity", "item_profile"))
    with pytest.raises(ServiceError, match="item_profile"):
        OnlineLookup(place(made), more, "frozen")
    changed = spec().model_dump(mode="json")
    changed["features"].append({**changed["features"][-1], "name": "item_carts_7d"})
    with pytest.raises(ServiceError, match="no feature 'item_carts_7d'"):
        OnlineLookup(place(made), type(spec()).parse(changed), "frozen")


def test_another_project_s_store_is_a_sentence(made):
    with pytest.raises(ServiceError, match="does not answer"):
        OnlineLookup(place(made, "other"), spec(), "frozen")


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


def test_a_model_that_reads_one_view_asks_for_one(made):
    opened = OnlineLookup(place(made), spec(("user_profile",)), "frozen")
    found = opened.rows("u1", ["i1", "nothing"], given("i1", "nothing"))
    opened.close()
    assert "item_clicks_7d" not in found.columns
    assert found.unknown_items == []  # the store does not say; the model's vocabulary does


def test_materialized_json_round_trip(tmp_path):
    assert read_materialized(tmp_path) is None
    value = Materialized(as_of=AS_OF, views={"user_profile": 3})
    write_materialized(tmp_path, value)
    assert read_materialized(tmp_path) == value


GROUPS = [
    {"group_id": "g1", "event": 18, "f121": "x", "f109_14": ["a", "b"], "f109_14_weights": [0.5, 2.0]},
    {"group_id": "g2", "event": 18, "f109_14": [], "f109_14_weights": []},
    {"group_id": "g3", "event": 18},
    {"group_id": "g4", "event": 18 - 400, "f121": "x", "f109_14": ["a"], "f109_14_weights": [1.0]},
]


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """(store, expected rows) of a dataset with groups, bags and context of items."""
    root = tmp_path_factory.mktemp("grouped")
    made = {GROUP_VIEW: view_table(GROUP_VIEW, GROUPS), "item_activity": tables()["item_activity"]}
    features = write_features(root / "features", made)
    log = [
        {"event": day + n / 100, "split": split, "user_id": f"u{n % 3}", "group_id": f"g{n % 4 + 1}", "seen": ["s"] * n,
         "item_id": f"i{n % 5}", "f206": f"c{n}", "f210": [f"t{n}"] * (n % 3), "f210_weights": [n / 2] * (n % 3)}
        for day, split in ((1, "train"), (5, "valid"), (9, "test"))
        for n in range(12)
    ]  # fmt: skip
    clean = write_clean(root / "clean", impressions(log, **LOGGED), GROUPED)
    retrieve(RetrieveConfig(dataset="tiny", spec=grouped_spec()), clean, features, root / "dataset")
    config = MaterializeConfig(dataset="tiny", as_of=AS_OF, spec=grouped_spec(), clock="frozen")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESMM_HOME", str(root / "home"))
        materialize(config, features, root / "dataset", root / "expected")
    return Home(root / "home").feast("tiny"), pq.read_table(root / "expected/expected.parquet")


@pytest.fixture
def group_lookup(grouped):
    opened = OnlineLookup(place(grouped[0]), grouped_spec(), "frozen")
    yield opened
    opened.close()


def nothing(*items):
    return context_columns(grouped_spec(), {}, {}, len(items))


def lists(column):
    assert isinstance(column, Ragged)
    ends = column.offsets.tolist()
    return [column.values[start:end].tolist() for start, end in pairwise(ends)]


@pytest.mark.parametrize(
    ("group", "bag", "weights", "single", "unknown"),
    [
        ("g1", ["a", "b"], [0.5, 2.0], "x", False),
        ("g2", [], [], None, False),
        ("g3", [], [], None, False),
        ("g4", [], [], None, False),  # too old
        ("nobody", [], [], None, True),
        (None, [], [], None, True),
    ],
)
def test_features_of_a_group(group_lookup, group, bag, weights, single, unknown):
    found = group_lookup.rows("u1", ["i1", "i3"], nothing("i1", "i3"), group)
    assert lists(found.columns["f109_14"]) == [bag, bag]
    assert lists(found.columns["f109_14_weights"]) == [weights, weights]
    assert found.columns["f109_14_weights"].values.dtype == np.float64
    assert found.columns["f121"].tolist() == [single, single]
    assert lists(found.columns["f110_14"]) == [[], []]
    assert found.unknown_group is unknown
    assert found.columns["item_clicks_7d"].tolist() == [7, 6]
    assert (found.unknown_user, found.unknown_items) == (False, [])
    # f121 and one bag; its weights are no value of their own.
    assert found.expired == (2 if group == "g4" else 0)


def test_what_is_served_of_groups_is_what_retrieval_gives(group_lookup, grouped):
    table = grouped[1]
    spec_ = grouped_spec()
    names = [name for name in spec_.raw if name != "position"]
    requests = table["request"].to_numpy()
    for number in np.unique(requests):
        part = table.filter(pa.array(requests == number))
        sent = {name: part[name][0].as_py() for name in ("device", "seen")}
        of_items = {name: part[name].to_pylist() for name in ("f206", "f210", "f210_weights")}
        context = context_columns(spec_, sent, of_items, len(part))
        keys = part["user_id"][0].as_py(), part["item_id"].to_pylist(), context, part["group_id"][0].as_py()
        found = group_lookup.rows(*keys).columns
        for name, expected in columns_from_table(part, names).items():
            if isinstance(expected, Ragged):
                assert lists(found[name]) == lists(expected), name
            else:
                np.testing.assert_array_equal(found[name], expected, err_msg=name)
    assert len(np.unique(requests)) == 6


def test_weights_that_the_store_lacks_are_a_sentence(grouped):
    changed = grouped_spec().model_dump(mode="json")
    last = next(feature for feature in changed["features"] if feature["name"] == "f109_14")
    changed["features"].append({**last, "name": "f999"})
    with pytest.raises(ServiceError, match="no feature 'f999'"):
        OnlineLookup(place(grouped[0]), type(grouped_spec()).parse(changed), "frozen")
