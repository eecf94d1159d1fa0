"""What the Bento is asked over when rows were pushed after as-of."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa
import pytest
from features.pushing import END, KNOWN, HandClock, copy_shop, event, make_shop, online, opened

from components.contracts.dataset import FEATURES, read_info, view_names
from components.contracts.online import Place
from components.contracts.paths import Home
from components.features import expected_store
from pipelines.feature_spec import feature_spec

NOON = END + timedelta(hours=12)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_shop(tmp_path_factory.mktemp("pushed"))


def test_the_store_of_as_of_stands_in_once_rows_were_pushed_since(made, tmp_path):
    data, home = copy_shop(made, tmp_path)
    spec = feature_spec(read_info(data), view_names(data))
    rows = pa.table({"user_id": ["u1", "u2", "nobody"], "item_id": ["i1", "i2", "nothing"]})
    place = Place.of(home.feast("shop"), "shop")
    assert not expected_store.pushed_since(place, spec, rows, KNOWN)
    before = {item: online(home, "item_activity", item) for item in ("i1", "i2", "nothing")}
    with opened(data, home, HandClock(NOON)) as pusher:
        pusher.take(event("click", "somebody", "i3", NOON - timedelta(seconds=1)))
        pusher.flush()
        assert not expected_store.pushed_since(place, spec, rows, KNOWN), "nobody asks for i3"
        pusher.take(event("click", "somebody", "i1", NOON - timedelta(seconds=1)))
        pusher.flush()
    assert expected_store.pushed_since(place, spec, rows, KNOWN)
    assert not expected_store.pushed_since(place, spec, rows, NOON + timedelta(minutes=1))
    assert online(home, "item_activity", "i1") != before["i1"]
    expected_store.write(data / FEATURES, "shop", spec, rows, KNOWN, tmp_path / "expected")
    beside = Home(tmp_path / "expected" / "home")
    assert {item: online(beside, "item_activity", item) for item in before} == before
    assert online(home, "item_activity", "i1") != before["i1"], "the live store is left alone"
