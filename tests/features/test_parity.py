"""Offline against online over real stores: nothing differs, until one of the two is broken as such paths break."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from features.made import GROUP_VIEW, at, impressions, spec, view_table, write_clean, write_features
from features.parity_made import SHOWN, parity_spec, tables, write_dataset, write_model, write_tables

from components.contracts.parity import EVENT_TIME, SCORE
from components.features import retrieve
from components.features.online import sqlite_store, staging
from components.features.parity import stage as parity
from components.features.parity.settings import ParitySettings
from components.features.parity.stage import ParityConfig, judge, measure, retrieved_spec
from serving.lookup import OnlineLookup

ALL = ParitySettings(sample=SHOWN)
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Tables, the dataset retrieved from them and a model of it."""
    folder = tmp_path_factory.mktemp("parity")
    features = write_tables(folder / "features")
    dataset = write_dataset(folder, features)
    return features, dataset, write_model(folder / "model", dataset)


def found(world, features=None, dataset=None, settings=ALL):
    ours, theirs, model = world
    return measure(parity_spec(), settings, features or ours, dataset or theirs, model, OnlineLookup)


def differing(outcome):
    """Share of impressions that differ, by view and feature."""
    return {(row.view, row.feature): row for row in outcome.features if row.differing}


def test_nothing_differs(world):
    outcome = found(world)
    assert outcome.gate.passed, outcome.gate.reason
    assert outcome.sampled == SHOWN
    assert differing(outcome) == {}
    stored = [row for row in outcome.features if row.view != SCORE and row.feature != EVENT_TIME]
    assert [row.feature for row in stored] == list(parity_spec().raw)[-len(stored) :]
    assert sum(row.feature == EVENT_TIME for row in outcome.features) == 3
    assert [row.feature for row in outcome.features if row.view == SCORE] == ["pctr", "pcvr", "pctcvr"]
    assert outcome.moments <= 24
    assert f"{(len(stored) + 3) * SHOWN:,} values of {SHOWN} impressions" in outcome.gate.reason


def test_the_environment_s_store_plays_no_part(world, monkeypatch):
    monkeypatch.setenv("ESMM_PROFILE", "production")
    for name, value in {"ESMM_REDIS": "127.0.0.1:1", "ESMM_REGISTRY": "postgresql+psycopg://nowhere/none"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ESMM_HOME", "/nowhere")
    assert found(world, settings=ParitySettings(sample=20)).gate.passed


def test_the_same_twice(world):
    small = ParitySettings(sample=20)
    assert found(world, settings=small) == found(world, settings=small)


def test_event_times_an_hour_off_in_the_store(world, monkeypatch):
    """As when naive UTC times are taken for local ones by what writes them."""
    real = sqlite_store.encode

    def shifted(batch, view):
        rows = real(batch, view)
        return replace(rows, events=[event + HOUR // timedelta(microseconds=1) for event in rows.events])

    monkeypatch.setattr(sqlite_store, "encode", shifted)
    outcome = found(world)
    assert not outcome.gate.passed
    off = differing(outcome)
    assert {view for view, feature in off if feature == EVENT_TIME} == {"user_profile", "item_activity", GROUP_VIEW}
    assert off["item_activity", EVENT_TIME].largest == 3600
    assert "event time of user_profile" in outcome.gate.reason


def test_tables_in_local_time(world, tmp_path):
    """The job that feeds serving writes times of a zone an hour ahead: what it says happens an hour later."""
    table = tables()["item_activity"]
    for name in ("event_timestamp", "created"):
        later = pc.add(table[name], pa.scalar(HOUR, pa.duration("us")))
        table = table.set_column(table.column_names.index(name), name, later)
    outcome = found(world, write_tables(tmp_path / "features", item_activity=table))
    off = differing(outcome)
    assert not outcome.gate.passed
    assert off["item_activity", "item_impressions_7d"].differing > 0
    assert 0 < off["item_activity", "item_impressions_7d"].share < 0.3  # right but for an hour a day
    assert not any(view == "user_profile" for view, _ in off)


def test_a_view_that_is_no_longer_materialized(world, monkeypatch):
    real = staging.plan

    def stopped(copied, view, before, *arguments):
        plan = real(copied, view, before, *arguments)
        return replace(plan, mode="unchanged") if before is not None and view.name == "item_activity" else plan

    monkeypatch.setattr(staging, "plan", stopped)
    outcome = found(world)
    off = differing(outcome)
    assert not outcome.gate.passed
    assert {view for view, _ in off} == {"item_activity", SCORE}
    assert off["item_activity", "item_impressions_7d"].largest >= 10
    example = off["item_activity", "item_impressions_7d"].example
    assert int(example.online) < int(example.offline)


def test_a_column_that_was_renamed_in_the_table(world, tmp_path):
    table = tables()["user_profile"]
    renamed = table.rename_columns(["land" if name == "country" else name for name in table.column_names])
    outcome = found(world, write_tables(tmp_path / "features", user_profile=renamed))
    assert not outcome.gate.passed
    assert "no column 'country'" in outcome.gate.reason
    assert outcome.features == ()


def test_a_column_that_was_renamed_in_the_store(world, monkeypatch):
    real = sqlite_store.encode

    def renamed(batch, view):
        rows = real(batch, view)
        return replace(rows, values={"land" if name == "country" else name: v for name, v in rows.values.items()})

    monkeypatch.setattr(sqlite_store, "encode", renamed)
    outcome = found(world)
    off = differing(outcome)
    assert not outcome.gate.passed
    assert {key for key in off if key[0] != SCORE} == {("user_profile", "country")}
    assert off["user_profile", "country"].example.online == "missing"
    assert ("score", "pctr") in off


def test_another_default(world, tmp_path):
    """Zero in place of a null: the value a count would have, were it known."""
    table = tables()["item_activity"]
    filled = table.set_column(
        table.column_names.index("item_clicks_7d"), "item_clicks_7d", pc.fill_null(table["item_clicks_7d"], 0)
    )
    outcome = found(world, write_tables(tmp_path / "features", item_activity=filled))
    off = differing(outcome)
    assert not outcome.gate.passed
    assert {key for key in off if key[0] != SCORE} == {("item_activity", "item_clicks_7d")}
    row = off["item_activity", "item_clicks_7d"]
    assert (row.example.offline, row.example.online) == ("missing", "0")
    assert row.largest is None
    assert "in place of" not in outcome.gate.reason
    assert "'item_clicks_7d' of item_activity" in outcome.gate.reason


def test_an_offline_join_that_leaks(world, tmp_path):
    """It looks at the event time alone: a row counts hours or days before it was written."""
    leaking = {}
    for name, table in tables().items():
        leaking[name] = table.set_column(table.column_names.index("created"), "created", table["event_timestamp"])
    dataset = write_dataset(tmp_path, write_features(tmp_path / "leaking", leaking))
    outcome = found(world, dataset=dataset)
    off = differing(outcome)
    assert not outcome.gate.passed
    assert {view for view, _ in off} == {"user_profile", "item_activity", GROUP_VIEW, SCORE}
    assert not any(feature == EVENT_TIME for _, feature in off)  # the store is right
    country = off["user_profile", "country"].example
    assert country.offline != country.online


def test_a_small_sample_finds_a_leak_too(world, tmp_path):
    """One user in twelve is backfilled: the sample looks for rows that were written late."""
    table = tables()["user_profile"]
    seen_early = table.set_column(table.column_names.index("created"), "created", table["event_timestamp"])
    dataset = write_dataset(tmp_path, write_tables(tmp_path / "leaking", user_profile=seen_early))
    assert not found(world, dataset=dataset, settings=ParitySettings(sample=24)).gate.passed


def test_bags_out_of_order(world, tmp_path):
    table = tables()[GROUP_VIEW]
    turned = pa.array(
        [None if bag is None else bag[::-1] for bag in table["f109_14"].to_pylist()], table["f109_14"].type
    )
    table = table.set_column(table.column_names.index("f109_14"), "f109_14", turned)
    off = differing(found(world, write_tables(tmp_path / "features", **{GROUP_VIEW: table})))
    assert {key for key in off if key[0] != SCORE} == {(GROUP_VIEW, "f109_14")}
    assert off[GROUP_VIEW, "f109_14"].example.online.startswith("['c', 'b'")


def test_expiry_within_the_last_second_is_counted_and_not_held_against_it(tmp_path):
    half = 0.5 / 86400
    items = [{"item_id": "i1", "event": 2 + half, "item_clicks_7d": 3}]
    features = write_features(tmp_path / "features", {"item_activity": view_table("item_activity", items)})
    # The time to live ends at day 9 and half a second; online, at day 9.
    ends = (9 + half / 2, 9 + half, 9 + 3 * half, 8.0)
    rows = [{"event": day, "split": "test", "item_id": "i1"} for day in ends]
    clean = write_clean(tmp_path / "clean", impressions(rows))
    given = spec(("item_activity",))
    retrieve.run(retrieve.RetrieveConfig(dataset="tiny", spec=given), clean, features, tmp_path / "dataset")
    outcome = measure(given, ALL, features, tmp_path / "dataset", None, OnlineLookup)
    assert outcome.gate.passed, outcome.gate.reason
    (clicks,) = (row for row in outcome.features if row.feature == "item_clicks_7d")
    assert (clicks.checked, clicks.differing, clicks.at_expiry) == (4, 0, 2)
    assert "2 expired online within the last second" in outcome.gate.reason
    assert at(9) - at(2) == timedelta(days=7)


def test_a_model_without_views_has_nothing_to_compare(tmp_path):
    outcome = measure(spec(()), ALL, tmp_path, tmp_path, None, OnlineLookup)
    assert (outcome.gate.passed, outcome.gate.applies) == (True, False)
    assert "nothing to compare" in outcome.gate.reason


def test_nothing_compared_closes_the_gate():
    gate = judge([], sampled=0, moments=0)
    assert (gate.passed, gate.applies) == (False, True)
    assert "no evidence" in gate.reason


def test_the_stage_s_facts(world, monkeypatch):
    features, dataset, model = world
    config = ParityConfig(dataset="tiny", parity=ParitySettings(sample=10))
    facts = parity.run(config, features, dataset, model, OnlineLookup)
    assert facts["passed"] is True
    assert facts["gate"]["gate"] == "online_parity"
    assert facts["sampled"] == 10
    assert facts["seconds"] > 0
    assert retrieved_spec(dataset) == parity_spec()
