"""Materializing: what is in the store, when it changes, and what a death on the way leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from features.made import AS_OF, COLUMNS, at, impressions, spec, view_table, write_clean, write_features
from features.materialize_made import CONFIG, make_dataset, online, tables

from components.contracts.errors import Busy, DataError, UsageError
from components.contracts.files import read_manifest
from components.contracts.locks import exclusive
from components.contracts.online import read_materialized
from components.contracts.times import format_utc
from components.features.expected import REQUEST, UNKNOWN_ITEMS, UNKNOWN_USER
from components.features.materialize import materialize_dataset, run
from components.features.online import sqlite_store, staging, targets
from components.features.retrieve import RetrieveConfig
from components.features.retrieve import run as retrieve
from feature_repo import views

ROOT = Path(__file__).resolve().parents[2]


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


def test_the_tables_views_are_the_declared_ones():
    """The tables of these tests follow feature_repo/views.py."""
    for name, columns in COLUMNS.items():
        declared = next(view for view in views.VIEWS if view.name == name)
        assert {declared.entity.join_key, *(f.name for f in declared.fields)} == set(columns)
