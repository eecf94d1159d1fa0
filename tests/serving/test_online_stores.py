"""The lookup on every kind of store, filled by Feast, against plain `get_online_features`, value for value."""

from __future__ import annotations

import socket
import sys
import threading
from datetime import timedelta
from pathlib import Path

import numpy as np
import other_online_store
import pytest
import redis
from online_made import (
    NOW,
    PROJECT,
    VIEWS,
    apply,
    assert_equal,
    by_feast,
    note,
    random_rows,
    spec,
    write,
)
from proxy import certificate, proxy
from servers import redis_cluster, redis_server

from components.contracts import layout
from components.contracts.errors import ServiceError
from components.contracts.online import Place
from serving.lookup import OnlineLookup

ITEMS = [f"i{number}" for number in range(40)] + ["ünï 商品 🛒", "a\x00b", " ", "x" * 5000]
USERS = [f"u{number}" for number in range(12)] + ["ключ"]
GROUPS = [f"g{number}" for number in range(8)]
IDS = {"user_id": USERS, "item_id": ITEMS, "group_id": GROUPS}


class OtherPlace(Place):
    @property
    def online_store(self):
        return {"type": other_online_store.NAME, "path": str(self.folder / "other.db")}


def redis_place(folder: Path, address: str, kind: str = "redis") -> Place:
    return Place(folder, PROJECT, "production", f"sqlite:///{folder}/registry.db", address, kind)


def embedded(kind: type[Place], folder: Path) -> Place:
    return kind(folder, PROJECT, "embedded", f"sqlite:///{folder}/registry.db")


def filled(place: Place, client=None, seed: int = 0):
    """Each id has a row in most views, not in all."""
    store = apply(place)
    rng = np.random.default_rng(seed)
    for number, view in enumerate(VIEWS):
        ids = [id_ for id_ in IDS[VIEWS[view][0]] if rng.random() < 0.85]
        write(store, view, random_rows(view, ids, seed * 100 + number))
    note(place, client)
    return store


KINDS = ("redis", "password", "cluster", "tls", "sqlite", "other")


@pytest.fixture(scope="module", params=KINDS)
def made(request, tmp_path_factory):
    """(place, Feast store)."""
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "sqlite":
        place = embedded(Place, folder)
        yield place, filled(place)
    elif request.param == "other":
        place = embedded(OtherPlace, folder)
        yield place, filled(place)
    elif request.param == "cluster":
        with redis_cluster(2) as nodes:
            place = redis_place(folder, ",".join(node.address for node in nodes), "redis_cluster")
            client = redis.RedisCluster(host="127.0.0.1", port=nodes[0].port)
            yield place, filled(place, client)
            client.close()
    elif request.param == "tls":
        public, context = certificate(folder)
        with redis_server(password="s3cret") as server, proxy(server.port, context) as before:
            address = f"127.0.0.1:{before.port},password=s3cret,ssl=true,ssl_ca_certs={public}"
            place = redis_place(folder, address)
            yield place, filled(place, server.client())
    else:
        with redis_server(password="123456" if request.param == "password" else None) as server:
            place = redis_place(folder, server.address)
            yield place, filled(place, server.client())


@pytest.mark.parametrize("cache_items", [0, 7, 1000])
def test_random_requests_are_what_feast_says(made, cache_items):
    """Cold, warm, and with a cache that holds a part: the same columns, types and counts of expired values."""
    place, store = made
    opened = OnlineLookup(place, spec(), NOW.timestamp, cache_items)
    rng = np.random.default_rng(cache_items)
    for turn in range(6):
        user = [*USERS, "nobody"][rng.integers(len(USERS) + 1)]
        group = [*GROUPS, "none", None][rng.integers(len(GROUPS) + 2)]
        items = rng.choice([*ITEMS, "nothing", "日本"], int(rng.integers(1, 30)), replace=False).tolist()
        expected, expired = by_feast(store, spec(), user, items, group)
        for _ in range(2 if turn < 4 else 1):
            found = opened.rows(user, items, {}, group)
            assert_equal(found.columns, expected)
            assert found.expired_by_view == expired
            assert found.expired == sum(expired.values())
    opened.close()


def test_entities_that_are_not_there_are_told_from_those_that_are(made):
    place, _ = made
    opened = OnlineLookup(place, spec(), NOW.timestamp)
    for _ in range(2):
        found = opened.rows("nobody", [*ITEMS, "nothing"], {}, "none")
        assert (found.unknown_user, found.unknown_group) == (True, True)
        assert "nothing" in found.unknown_items
        assert len(found.unknown_items) < len(ITEMS) / 2
        assert set(found.columns["tags"].values) > {"tags0"}
    opened.close()


def test_many_threads_see_the_same(made):
    place, _ = made
    opened = OnlineLookup(place, spec(), NOW.timestamp, 20)
    alone = {user: opened.rows(user, ITEMS, {}, "g1").columns for user in USERS}
    failures = []

    def work(seed):
        rng = np.random.default_rng(seed)
        try:
            for _ in range(8):
                user, order = USERS[rng.integers(len(USERS))], rng.permutation(len(ITEMS))
                found = opened.rows(user, [ITEMS[number] for number in order], {}, "g1").columns
                assert_equal(found, {name: column[order] for name, column in alone[user].items()})
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    opened.close()
    assert failures == []


def test_inspect_says_what_rows_sees(made):
    place, _ = made
    opened = OnlineLookup(place, spec(), NOW.timestamp)
    items = ["i1", "nothing", "i2"]
    opened.rows("u1", ["i3"], {}, "g1")  # from now on the cache knows the store's state
    first, again = opened.inspect("u1", items, "g1"), opened.inspect("u1", items, "g1")
    columns = opened.rows("u1", items, {}, "g1").columns
    opened.close()
    assert [cell.key for cell in first if cell.feature == "price"] == items
    assert {cell.source for cell in first} == {"store"}
    assert {cell.source for cell in again if cell.entity == "item_id"} == {"cache"}
    assert {cell.source for cell in again if cell.entity != "item_id"} == {"store"}
    places = {item: number for number, item in enumerate(items)}
    for before, cell in zip(first, again, strict=True):
        assert (before.value, before.status, before.event_time) == (cell.value, cell.status, cell.event_time)
        if cell.feature in ("tags", "tags_weights", "seen", "words", "words_weights"):
            continue
        seen = columns[cell.feature][places.get(cell.key, 0)]
        missing = seen is None or seen != seen
        assert missing == (cell.status != "fresh"), cell
        assert missing or seen == cell.value, cell
        assert (cell.status == "unknown") == (cell.event_time is None) == (cell.age_seconds is None)
        if cell.event_time is not None:
            assert cell.age_seconds == pytest.approx((NOW - cell.event_time).total_seconds(), abs=1e-6)
    assert {cell.status for cell in first} >= {"fresh", "unknown"}
    assert next(cell for cell in first if cell.key == "nothing").status == "unknown"


@pytest.fixture(scope="module", params=["redis", "sqlite", "other"])
def edge(request, tmp_path_factory):
    """Rows at the edge of item_activity's seven days, and a whole and a fractional second past it."""
    folder = tmp_path_factory.mktemp("edge")
    ages = {"exact": 0.0, "before": -1.0, "after": 1.0, "hair": 1e-6}
    rows = [
        {"item_id": name, "event_timestamp": NOW - timedelta(days=7, seconds=late), "item_views": 1}
        for name, late in ages.items()
    ]
    if request.param != "redis":
        place = embedded(Place if request.param == "sqlite" else OtherPlace, folder)
        write(apply(place), "item_activity", rows)
        note(place)
        yield request.param, place
        return
    with redis_server() as server:
        place = redis_place(folder, server.address)
        write(apply(place), "item_activity", rows)
        note(place, server.client())
        yield request.param, place


def test_the_time_to_live_is_inclusive(edge):
    kind, place = edge
    opened = OnlineLookup(place, spec(("item_activity",)), NOW.timestamp)
    found = opened.rows("u", ["exact", "before", "after", "hair"], {})
    opened.close()
    # A microsecond past it is expired everywhere: SQLite keeps whole seconds, cut off, so nothing looks younger.
    np.testing.assert_array_equal(found.columns["item_views"], [1, 1, np.nan, np.nan])
    assert found.expired_by_view == {"item_activity": 2}
    assert kind in ("redis", "sqlite", "other")


def test_one_round_trip(tmp_path):
    """A user, a group, 30 items in two views and the watermark: the client speaks once."""
    with redis_server() as server, proxy(server.port) as before:
        place = redis_place(tmp_path, server.address)
        store = filled(place, server.client())
        opened = OnlineLookup(redis_place(tmp_path, f"127.0.0.1:{before.port}"), spec(), NOW.timestamp, 0)
        opened.rows("u1", ["i1"], {}, "g1")  # opens the connection
        trips = before.trips
        found = opened.rows("u1", ITEMS[:30], {}, "g1")
        assert before.trips == trips + 1
        opened.close()
        assert_equal(found.columns, by_feast(store, spec(), "u1", ITEMS[:30], "g1")[0])


def test_another_project_in_the_same_redis_is_not_seen(tmp_path):
    with redis_server() as server:
        place = redis_place(tmp_path, server.address)
        filled(place, server.client())
        other = Place(tmp_path, "other", "production", place.registry, server.address)
        apply(other)
        note(other, server.client())
        opened = OnlineLookup(other, spec(), NOW.timestamp)
        found = opened.rows("u1", ITEMS, {}, "g1")
        opened.close()
    assert found.unknown_user
    assert found.unknown_items == ITEMS


def test_a_wrong_password_is_a_sentence_without_any(tmp_path):
    with redis_server(password="right-one") as server:
        apply(redis_place(tmp_path, server.address))
        with pytest.raises(ServiceError, match=r"Redis at 127\.0\.0\.1:\d+ does not answer") as raised:
            OnlineLookup(redis_place(tmp_path, f"127.0.0.1:{server.port},password=wrong-one"), spec(), "wall")
    assert "wrong-one" not in str(raised.value)


def test_a_store_where_nothing_is_materialized_is_a_sentence(tmp_path):
    with redis_server() as server:
        place = redis_place(tmp_path, server.address)
        apply(place)
        with pytest.raises(ServiceError, match=r"esmm:materialized:shop.*run `esmm materialize`"):
            OnlineLookup(place, spec(), "wall")


def test_no_redis_at_all_is_a_sentence(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = redis_place(tmp_path, f"127.0.0.1:{probe.getsockname()[1]}")
        apply(embedded(Place, tmp_path))
        with pytest.raises(ServiceError, match=r"does not answer.*check that Redis is up"):
            OnlineLookup(place, spec(), "wall")


def test_hiredis_parses():
    """Its parser is what makes many small answers cheap; without it redis-py falls back silently."""
    from redis.connection import DefaultParser

    assert "hiredis" in DefaultParser.__name__.lower()
    assert "hiredis" in sys.modules


def test_the_note_s_key_is_no_entity_s():
    assert layout.materialized_key("shop") == "esmm:materialized:shop"
