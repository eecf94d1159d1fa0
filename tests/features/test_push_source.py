"""Feast's own `push` on the repository: online at once, offline as a file beside the others."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pandas as pd
import pyarrow.parquet as pq
import pytest
from feast.data_source import PushMode
from feast.errors import PushSourceNotFoundException
from features.made import at, view_table, write_features

from components.contracts.errors import DataError
from feature_repo import store as repo
from feature_repo.asof.append import append

NOW = datetime(2026, 3, 5, 12, 0, 0, 500_000, tzinfo=UTC)
ROW = {"item_impressions_7d": 7, "item_clicks_7d": 2, "item_conversions_7d": 1, "item_ctr_7d": 2 / 7}
FEATURES = [f"item_activity:{name}" for name in ROW]


@pytest.fixture
def features(tmp_path):
    batch = {"event": 0, "item_impressions_7d": 1, "item_clicks_7d": 0, "item_conversions_7d": 0, "item_ctr_7d": 0.0}
    tables = {
        "user_profile": view_table("user_profile", [{"user_id": "u1", "event": 0}]),
        "item_activity": view_table("item_activity", [{"item_id": "i1", **batch}, {"item_id": "i2", **batch}]),
    }
    return write_features(tmp_path / "features", tables)


@pytest.fixture
def store(features, tmp_path):
    (tmp_path / "feast").mkdir()
    opened = repo.open_store("tiny", tmp_path / "feast")
    repo.apply(opened, features, ("user_profile", "item_activity"))
    return opened


def frame(**changes):
    return pd.DataFrame([{"item_id": "i1", "event_timestamp": NOW, "created": NOW, **ROW, **changes}])


def test_a_push_is_seen_online_and_offline(store, features):
    table = features / "item_activity"
    before = (table / "part-0.parquet").read_bytes()
    store.push("item_activity_push", frame(), to=PushMode.ONLINE_AND_OFFLINE)
    online = store.get_online_features(FEATURES, [{"item_id": "i1"}]).to_dict()
    assert {name: online[name] for name in ROW} == {name: [value] for name, value in ROW.items()}
    asked = pd.DataFrame(
        {"item_id": ["i1", "i1", "i2"], "event_timestamp": [NOW - timedelta(microseconds=1), NOW, NOW]}
    )
    found = store.get_historical_features(asked, FEATURES).to_df()
    assert found["item_clicks_7d"].tolist() == [0, 2, 0]
    assert (table / "part-0.parquet").read_bytes() == before
    assert [file.name.split("-")[:2] for file in table.glob("push-*")] == [["push", "20260305T120000500000Z"]]
    assert not list(table.glob(".*"))


def test_only_activity_has_a_push_source(store):
    pushed = {view.name: view.stream_source.name for view in store.list_feature_views() if view.stream_source}
    assert pushed == {"item_activity": "item_activity_push"}
    with pytest.raises(PushSourceNotFoundException):
        store.push("user_profile_push", frame())


def test_feast_materializes_what_was_pushed(store):
    store.push("item_activity_push", frame(), to=PushMode.OFFLINE)
    store.materialize(at(0) - timedelta(days=1), NOW + timedelta(seconds=1), feature_views=["item_activity"])
    assert store.get_online_features(FEATURES, [{"item_id": "i1"}]).to_dict()["item_clicks_7d"] == [2]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"item_clicks_7d": "two"}, "do not fit the table's types"),
        ({"created": pd.NaT}, "1 rows to append have no created"),
    ],
)
def test_rows_that_do_not_fit_are_refused(store, features, changes, said):
    with pytest.raises(DataError, match=said):
        store.push("item_activity_push", frame(**changes), to=PushMode.OFFLINE)
    assert not list((features / "item_activity").glob("push-*"))


def test_rows_of_other_columns_are_refused(features):
    rows = pq.read_table(features / "item_activity").drop_columns(["item_ctr_7d"])
    with pytest.raises(DataError, match="lack item_ctr_7d"):
        append(features / "item_activity", rows)
    with pytest.raises(DataError, match="have more, which it has not"):
        append(
            features / "item_activity", pq.read_table(features / "item_activity").append_column("more", rows["item_id"])
        )


def test_equal_rows_are_one_file(features):
    rows = pq.read_table(features / "item_activity")
    assert append(features / "item_activity", rows) == append(features / "item_activity", rows)
    assert len(list((features / "item_activity").glob("push-*"))) == 1


def test_a_table_that_is_not_there_says_so(tmp_path, features):
    rows = pq.read_table(features / "item_activity")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"holds no \*\.parquet"):
        append(tmp_path / "none", rows)
