from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from features.made import (
    AS_OF,
    COLUMNS,
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

from components.contracts.dataset import write_info
from components.contracts.errors import Busy, DataError, UsageError
from components.contracts.files import read_manifest
from components.contracts.locks import exclusive
from components.contracts.online import read_materialized
from components.contracts.paths import Home
from components.contracts.times import format_utc
from components.features.expected import REQUEST, UNKNOWN_GROUP, UNKNOWN_ITEMS, UNKNOWN_USER
from components.features.materialize import MaterializeConfig, materialize_dataset, run
from components.features.online import sqlite_store, staging, targets
from components.features.retrieve import RetrieveConfig
from components.features.retrieve import run as retrieve
from feature_repo import views
from feature_repo.store import open_store

CONFIG = MaterializeConfig(dataset="tiny", as_of=AS_OF, spec=spec(), clock="frozen", sample_users=3, sample_items=4)
ROOT = Path(__file__).resolve().parents[2]


def tables(clicks=0):
    """Users u0-u5 (the last with nulls only), items i0-i9 with a row a day; `clicks` is added to each count."""
    profiles = [{"user_id": f"u{n}", "event": 0, "country": "de", "age_band": n} for n in range(5)]
    activity = [
        {"item_id": f"i{n}", "event": day, "created": day + 0.1, "item_clicks_7d": clicks + 100 * n + day}
        for n in range(10)
        for day in range(19)
    ]
    return {
        "user_profile": view_table("user_profile", [*profiles, {"user_id": "u5", "event": 0}]),
        "item_activity": view_table("item_activity", activity),
    }


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ESMM_HOME", str(tmp_path / "home"))
    return Home(tmp_path / "home")


@pytest.fixture
def features(tmp_path):
    return write_features(tmp_path / "features", tables())


@pytest.fixture
def dataset(tmp_path, features):
    rows = [
        {"event": 17 + n / 100, "split": "test", "user_id": f"u{n % 6}", "item_id": f"i{n % 10}", "device": f"d{n % 6}"}
        for n in range(40)
    ]
    rows += [{"event": 1, "split": "train"}, {"event": 5, "split": "valid"}]
    clean = write_clean(tmp_path / "clean", impressions(rows))
    retrieve(RetrieveConfig(dataset="tiny", spec=spec()), clean, features, tmp_path / "dataset")
    return tmp_path / "dataset"


def online(home, view="item_activity"):
    """Rows of Feast's own table: (feature, event time in epoch seconds) by entity key."""
    with closing(sqlite3.connect(home.feast("tiny") / "online.db")) as db:
        return db.execute(f"SELECT entity_key, feature_name, value, event_ts FROM tiny_{view} ORDER BY 1, 2").fetchall()


def test_fills_the_store_up_to_as_of(home, features, dataset, tmp_path):
    facts = run(CONFIG, features, dataset, tmp_path / "expected")
    assert facts["views"] == {"user_profile": 6, "item_activity": 10}
    folder = home.feast("tiny")
    done = read_materialized(folder)
    assert (done.as_of, {view: state.rows for view, state in done.views.items()}) == (AS_OF, facts["views"])
    assert {view: (state.as_of, state.newest_event) for view, state in done.views.items()} == {
        "user_profile": (AS_OF, format_utc(at(0))), "item_activity": (AS_OF, format_utc(at(18))),
    }  # fmt: skip
    reports = facts["report"].items()
    assert {view: (report["mode"], report["written"], report["lag_seconds"]) for view, report in reports} == {
        "user_profile": ("full", 6, 19 * 86_400), "item_activity": ("full", 10, 86_400),
    }  # fmt: skip
    assert {int(at(18).timestamp())} == {row[3] for row in online(home)}
    offline = next((folder / "offline").iterdir())
    assert offline.name.startswith("20260320T000000")
    read_manifest(offline)
    assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


def test_nothing_at_or_after_as_of_is_in_it(home, features, dataset, tmp_path):
    """Event time exactly as-of, and an earlier event written exactly at as-of, are both not known yet."""
    late = [
        {"item_id": "i0", "event": 19, "item_clicks_7d": 777},
        {"item_id": "i0", "event": 18.5, "created": 19, "item_clicks_7d": 888},
    ]
    given = tables()
    given["item_activity"] = pa.concat_tables([given["item_activity"], view_table("item_activity", late)])
    features = write_features(tmp_path / "late", given)
    run(CONFIG, features, dataset, tmp_path / "expected")
    assert format_utc(at(19)) == AS_OF
    assert {int(at(18).timestamp())} == {row[3] for row in online(home)}


def test_expected_is_the_offline_store_s_view(home, features, dataset, tmp_path):
    facts = run(CONFIG, features, dataset, tmp_path / "expected")
    table = pq.read_table(tmp_path / "expected/expected.parquet")
    read_manifest(tmp_path / "expected")
    assert len(table) == facts["expected"] == 5 * 4
    features_and_context = {feature.name for feature in (*spec().context, *spec().stored)}
    assert set(table.column_names) == {REQUEST, "user_id", "item_id", *features_and_context}
    rows = table.to_pylist()
    for row in rows:
        known_item, known_user = row["item_id"] not in UNKNOWN_ITEMS, row["user_id"] != UNKNOWN_USER
        assert row["item_clicks_7d"] == (100 * int(row["item_id"][1:]) + 18 if known_item else None)
        number = int(row["user_id"][1:]) if known_user else None
        assert row["age_band"] == (number if known_user and number < 5 else None)
    requests = {row[REQUEST] for row in rows}
    assert requests == set(range(5))
    for number in requests:
        asked = [row for row in rows if row[REQUEST] == number]
        assert len({(row["user_id"], row["device"], row["position"]) for row in asked}) == 1
        assert len({row["item_id"] for row in asked}) == len(asked) == 4
    assert next(row["user_id"] for row in rows if row[REQUEST] == 0) == "u3"  # the last impression is number 39
    assert {row["user_id"] for row in rows if row[REQUEST] == 3} == {UNKNOWN_USER}
    assert set(UNKNOWN_ITEMS) < {row["item_id"] for row in rows if row[REQUEST] == 4}


def test_again_changes_nothing(home, features, dataset, tmp_path):
    run(CONFIG, features, dataset, tmp_path / "expected")
    first = online(home), pq.read_table(tmp_path / "expected/expected.parquet")
    run(CONFIG, features, dataset, tmp_path / "expected")
    assert first[0] == online(home)
    assert first[1].equals(pq.read_table(tmp_path / "expected/expected.parquet"))
    assert len(list((home.feast("tiny") / "offline").iterdir())) == 1


def test_later_as_of_replaces_and_one_earlier_folder_is_kept(home, features, dataset, tmp_path):
    names = []
    for day in (15, 16, 17):
        as_of = format_utc(at(day))
        run(CONFIG.model_copy(update={"as_of": as_of}), features, dataset, tmp_path / "expected")
        names.append(max(path.name for path in (home.feast("tiny") / "offline").iterdir()))
    assert sorted(path.name for path in (home.feast("tiny") / "offline").iterdir()) == names[1:]
    assert {int(at(16).timestamp())} == {row[3] for row in online(home)}


def test_an_older_as_of_writes_nothing(home, features, dataset, tmp_path):
    run(CONFIG, features, dataset, tmp_path / "expected")
    before = online(home)
    older = CONFIG.model_copy(update={"as_of": format_utc(at(10))})
    with pytest.raises(DataError, match=r"is older than 2026-03-20.*nothing was written"):
        run(older, features, dataset, tmp_path / "expected")
    assert online(home) == before
    assert json.loads((home.feast("tiny") / "materialized.json").read_text())["as_of"] == AS_OF


def test_an_entity_that_is_gone_is_gone_online(home, features, dataset, tmp_path):
    run(CONFIG, features, dataset, tmp_path / "expected")
    fewer = tables()
    fewer["user_profile"] = fewer["user_profile"].slice(0, 2)
    facts = run(CONFIG, write_features(tmp_path / "fewer", fewer), dataset, tmp_path / "expected")
    assert facts["views"]["user_profile"] == 2


def break_before(function):
    def broken(*_, **__):
        raise KeyboardInterrupt(f"killed before {function}")

    return broken


@pytest.mark.parametrize(
    ("module", "step"), [(staging, "copy"), (staging, "plan"), (sqlite_store, "stage"), (sqlite_store, "publish")]
)
def test_what_dies_on_the_way_leaves_the_old_values(home, features, dataset, tmp_path, monkeypatch, module, step):
    run(CONFIG.model_copy(update={"as_of": format_utc(at(15))}), features, dataset, tmp_path / "expected")
    before = online(home), online(home, "user_profile")
    changed = write_features(tmp_path / "changed", tables(clicks=50_000))
    monkeypatch.setattr(module, step, break_before(step))
    with pytest.raises(KeyboardInterrupt):
        run(CONFIG, changed, dataset, tmp_path / "expected")
    assert (online(home), online(home, "user_profile")) == before
    monkeypatch.undo()
    monkeypatch.setenv("ESMM_HOME", str(home.root))
    run(CONFIG, changed, dataset, tmp_path / "expected")
    assert online(home) != before[0]


def test_killed_inside_the_transaction(home, features, dataset, tmp_path):
    """A real process, ended for good when one of two views is written."""
    run(CONFIG.model_copy(update={"as_of": format_utc(at(15))}), features, dataset, tmp_path / "expected")
    before = online(home)
    changed = write_features(tmp_path / "changed", tables(clicks=50_000))
    code = f"""
import os
from pathlib import Path
from components.features.online import sqlite_store, staging, targets
from components.features.materialize import MaterializeConfig, run
replace = sqlite_store._replace
def half(db, plan, project):
    written = replace(db, plan, project)
    if plan.view.name == "item_activity":
        assert written.written == 10
        os._exit(9)
    return written
sqlite_store._replace = half
config = MaterializeConfig.parse({CONFIG.to_json()!r})
run(config, Path({str(changed)!r}), Path({str(dataset)!r}), Path({str(tmp_path / "e")!r}))
"""
    environment = {**__import__("os").environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], env=environment).returncode == 9
    folder = home.feast("tiny")
    assert online(home) == before
    assert list(folder.glob(f"{targets.SCRATCH}*"))  # what the killed run left ...
    facts = run(CONFIG, changed, dataset, tmp_path / "expected")
    assert facts["views"]["item_activity"] == 10
    assert not list(folder.glob(f"{targets.SCRATCH}*"))  # ... the next one clears


def test_two_at_once_is_refused(home, features, dataset, tmp_path):
    lock = home.feast("tiny") / targets.LOCK
    with exclusive(lock, "a test"), pytest.raises(Busy, match="materializing the features of 'tiny'"):
        run(CONFIG, features, dataset, tmp_path / "expected")


def test_without_views_it_is_a_no_op_that_says_so(home, features, dataset, tmp_path):
    config = CONFIG.model_copy(update={"spec": spec(())})
    facts = run(config, features, dataset, tmp_path / "expected")
    assert "no feature views" in facts["materialized"]
    assert not home.feast("tiny").exists()
    table = pq.read_table(tmp_path / "expected/expected.parquet")
    assert set(table.column_names) == {REQUEST, "user_id", "item_id", "position", "device"}
    assert len(table) == 20


def test_a_view_a_model_needs_must_be_there(home, dataset, tmp_path):
    only = write_features(tmp_path / "only", {"user_profile": tables()["user_profile"]})
    with pytest.raises(DataError, match="no table for view 'item_activity'"):
        run(CONFIG, only, dataset, tmp_path / "expected")
    assert not (home.feast("tiny") / "online.db").exists()


def make_dataset(folder: Path, given) -> Path:
    table = impressions([{"event": day} for day in range(19)])
    (folder / "log/dt=2026-03-01").mkdir(parents=True)
    pq.write_table(table, folder / "log/dt=2026-03-01/part-0.parquet")
    for view, rows in given.items():
        (folder / "features" / view).mkdir(parents=True)
        pq.write_table(rows, folder / "features" / view / "part-0.parquet")
    write_info(folder, INFO)
    return folder


def test_a_dataset_s_own_tables_outside_of_a_run(home, tmp_path):
    data = make_dataset(tmp_path / "data", tables())
    report = materialize_dataset(home, data, format_utc(at(10)))
    assert {name: (view.rows, view.mode) for name, view in report.views.items()} == {
        "user_profile": (6, "full"), "item_activity": (10, "full"),
    }  # fmt: skip
    assert {int(at(9).timestamp())} == {row[3] for row in online(home)}
    report = materialize_dataset(home, data, format_utc(at(11)))
    assert {name: (view.rows, view.mode) for name, view in report.views.items()} == {
        "user_profile": (6, "unchanged"), "item_activity": (10, "incremental"),
    }  # fmt: skip
    assert {int(at(10).timestamp())} == {row[3] for row in online(home)}
    report = materialize_dataset(home, data, format_utc(at(11)), full=True)
    assert {view.mode for view in report.views.values()} == {"full"}


def test_a_dataset_that_lost_a_served_view_is_refused(home, tmp_path):
    materialize_dataset(home, make_dataset(tmp_path / "data", tables()), format_utc(at(10)))
    less = make_dataset(tmp_path / "less", {"user_profile": tables()["user_profile"]})
    with pytest.raises(DataError, match="no table for view 'item_activity'"):
        materialize_dataset(home, less, format_utc(at(11)))


def test_code_that_lost_a_served_feature_is_refused(home, tmp_path, monkeypatch):
    data = make_dataset(tmp_path / "data", tables())
    materialize_dataset(home, data, format_utc(at(10)))
    fewer = tuple(
        views.view(v.name, v.entity, v.ttl, *(f for f in v.fields if f.name != "age_band")) for v in views.VIEWS
    )
    monkeypatch.setattr(views, "VIEWS", fewer)
    with pytest.raises(DataError, match=r"'age_band' of view 'user_profile'.*no longer declared"):
        materialize_dataset(home, data, format_utc(at(11)))


def test_a_dataset_without_tables_has_nothing_to_materialize(home, tmp_path):
    with pytest.raises(DataError, match="nothing to materialize"):
        materialize_dataset(home, make_dataset(tmp_path / "data", {}), format_utc(at(10)))


def test_as_of_has_to_be_a_time(home, tmp_path):
    with pytest.raises(UsageError, match="no ISO-8601 time"):
        materialize_dataset(home, make_dataset(tmp_path / "data", tables()), "yesterday")


def test_home_has_to_be_known(features, dataset, tmp_path, monkeypatch):
    monkeypatch.delenv("ESMM_HOME", raising=False)
    with pytest.raises(UsageError, match="ESMM_HOME"):
        run(CONFIG, features, dataset, tmp_path / "expected")


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


def test_the_tables_views_are_the_declared_ones():
    """The tables of these tests follow feature_repo/views.py."""
    for name, columns in COLUMNS.items():
        declared = next(view for view in views.VIEWS if view.name == name)
        assert {declared.entity.join_key, *(f.name for f in declared.fields)} == set(columns)
