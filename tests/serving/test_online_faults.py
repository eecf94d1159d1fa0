"""What happens when something fails while serving: each with its outcome, and never a wrong value."""

from __future__ import annotations

import logging
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from feast.protos.feast.types.Value_pb2 import Value
from online_made import NOW, PROJECT, apply, assert_equal, by_feast, note, random_rows, spec, write
from proxy import proxy
from servers import postgres, redis_server

from components.contracts import layout
from components.contracts.errors import ServiceError
from components.contracts.online import Place
from serving.lookup import OnlineLookup
from serving.online import registry as watch
from serving.online.rows import AHEAD_SECONDS

ITEMS = [f"i{number}" for number in range(60)]
VIEWS = ("user_profile", "item_profile", "item_activity")


def redis_place(folder, address, registry=None):
    return Place(folder, PROJECT, "production", registry or f"sqlite:///{folder}/registry.db", address)


def filled(place, client=None):
    store = apply(place, VIEWS)
    write(store, "user_profile", random_rows("user_profile", ["u1", "u2"], 1))
    for number, view in enumerate(VIEWS[1:]):
        write(store, view, random_rows(view, ITEMS, 2 + number))
    note(place, client)
    return store


def opened(place, cache_items=0, clock=NOW.timestamp):
    return OnlineLookup(place, spec(VIEWS), clock, cache_items)


@pytest.fixture
def kept(tmp_path):
    """A Redis that survives a restart, filled; (place, store, server)."""
    with redis_server(settings=("--appendonly", "yes", "--appendfsync", "always")) as server:
        place = redis_place(tmp_path, server.address)
        yield place, filled(place, server.client()), server


def test_redis_killed_and_restarted(kept):
    """While it is down a sentence, after it the same values; no request waits long."""
    place, store, server = kept
    lookup = opened(place, 1000)
    expected = by_feast(store, spec(VIEWS), "u1", ITEMS, None)[0]
    for _ in range(3):
        assert_equal(lookup.rows("u1", ITEMS, {}).columns, expected)
    server.kill()
    started = time.monotonic()
    for _ in range(3):  # the items are in memory, but the user is not
        with pytest.raises(ServiceError, match=r"Redis at 127\.0\.0\.1:\d+ does not answer.*check that Redis is up"):
            lookup.rows("u1", ITEMS, {})
    assert time.monotonic() - started < 3
    assert lookup.materialized_as_of() is None
    assert lookup.freshness()["views"]["item_profile"] == {"pushed": False, "expired": 0}
    server.start()
    assert_equal(lookup.rows("u1", ITEMS, {}).columns, expected)
    assert lookup.materialized_as_of() is not None
    lookup.close()


@pytest.mark.parametrize("sent", [0, 1, 100, 3000])
def test_an_answer_that_breaks_off_is_asked_for_again(kept, tmp_path, sent):
    _, store, server = kept
    with proxy(server.port) as before:
        lookup = opened(redis_place(tmp_path, f"127.0.0.1:{before.port}"))
        lookup.rows("u2", ITEMS[::-1], {})
        before.answer_bytes = sent
        found = lookup.rows("u1", ITEMS, {})
        lookup.close()
    assert_equal(found.columns, by_feast(store, spec(VIEWS), "u1", ITEMS, None)[0])


def test_a_redis_that_hangs_is_not_waited_for_and_its_late_answer_is_nobody_s(kept, tmp_path):
    _, store, server = kept
    lookup = opened(redis_place(tmp_path, server.address + ",socket_timeout=0.3"))
    lookup.rows("u2", ITEMS, {})
    server.process.send_signal(signal.SIGSTOP)
    try:
        started = time.monotonic()
        with pytest.raises(ServiceError, match=r"(?i)timeout"):
            lookup.rows("u2", ITEMS[:30], {})
        assert time.monotonic() - started < 5
    finally:
        server.process.send_signal(signal.SIGCONT)
    assert_equal(lookup.rows("u1", ITEMS, {}).columns, by_feast(store, spec(VIEWS), "u1", ITEMS, None)[0])
    lookup.close()


def test_requests_at_once_while_redis_comes_and_goes(kept):
    """Every answer is right or a ServiceError."""
    place, store, server = kept
    lookup = opened(place, 30)
    expected = {user: by_feast(store, spec(VIEWS), user, ITEMS, None)[0] for user in ("u1", "u2")}
    stop = time.monotonic() + 3
    answers = []

    def ask(number):
        while time.monotonic() < stop:
            user = f"u{1 + number % 2}"
            try:
                found = lookup.rows(user, ITEMS, {}).columns
            except ServiceError:
                answers.append(False)
                time.sleep(0.01)
                continue
            assert_equal(found, expected[user])
            answers.append(True)

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, number) for number in range(4)]
        for _ in range(2):
            time.sleep(0.4)
            server.kill()
            time.sleep(0.3)
            server.start()
        for each in asking:
            each.result()
    lookup.close()
    assert {True, False} == set(answers)


def test_a_view_deleted_while_serving(kept):
    """Feast deletes its rows too: missing and said to be unknown, then refused once the registry was read again."""
    place, store, _ = kept
    lookup = opened(place)
    store.apply([store.get_feature_view("item_profile")], objects_to_delete=[store.get_feature_view("item_activity")],
                partial=False)  # fmt: skip
    found = lookup.rows("u1", ITEMS, {})
    assert np.isnan(found.columns["item_views"].astype(float)).all()
    lookup._registry.refresh()
    with pytest.raises(ServiceError, match=r"no view 'item_activity', which the model reads.*esmm materialize"):
        lookup.rows("u1", ITEMS, {})
    apply(place, VIEWS)
    lookup._registry.refresh()
    assert lookup.rows("u1", ITEMS, {}).unknown_items == []
    lookup.close()


def test_the_registry_is_read_again_by_itself(kept):
    place, store, _ = kept
    assert watch.SECONDS == 30
    lookup = opened(place)
    lookup._registry.close()
    lookup._registry = watch.RegistryWatch(place, spec(VIEWS), seconds=0.1)
    store.delete_feature_view("item_activity")
    deadline = time.monotonic() + 10
    while lookup._registry.store.registry.cached_registry_proto is lookup._registry._read_proto:
        assert time.monotonic() < deadline, "the registry was not read again"
        time.sleep(0.02)
    with pytest.raises(ServiceError, match="no view 'item_activity'"):
        lookup.rows("u1", ITEMS, {})
    lookup.close()


def test_registry_unreachable(tmp_path, caplog):
    """PostgreSQL goes away: served as before, from the registry read last, and said so; without it none starts."""
    with redis_server() as server, ExitStack() as stack:
        url = stack.enter_context(postgres())
        place = redis_place(tmp_path, server.address, url)
        store = filled(place, server.client())
        expected = by_feast(store, spec(VIEWS), "u1", ITEMS, None)[0]
        lookup = opened(place, 1000)
        assert lookup.freshness()["registry"] == "read"
        store.registry.write_engine.dispose()
        stack.close()
        with caplog.at_level(logging.WARNING, "bentoml.esmm"):
            lookup._registry.refresh()
            lookup._registry.refresh()
        assert [record.message for record in caplog.records if "registry does not answer" in record.message] != []
        assert len(caplog.records) == 1  # said once
        assert lookup.freshness()["registry"] != "read"
        for _ in range(3):
            assert_equal(lookup.rows("u1", ITEMS, {}).columns, expected)
        with pytest.raises(ServiceError, match=f"the registry of '{PROJECT}' does not answer"):
            opened(place)
        lookup.close()


def test_the_registry_comes_back(kept, caplog):
    place, _, _ = kept
    lookup = opened(place)
    proto = lookup._registry.store.registry.proto

    def lost():
        raise OSError("no route to host")

    lookup._registry.store.registry.proto = lost
    lookup._registry.refresh()
    assert lookup.freshness()["registry"] == "no route to host"
    lookup._registry.store.registry.proto = proto
    with caplog.at_level(logging.INFO, "bentoml.esmm"):
        lookup._registry.refresh()
    assert "the registry answers again" in caplog.text
    assert lookup.freshness()["registry"] == "read"
    lookup.close()


def test_serving_can_change_nothing_in_a_postgresql_registry(tmp_path):
    """Not even a project that is not there is made."""
    with redis_server() as server, postgres() as url:
        place = redis_place(tmp_path, server.address, url)
        filled(place, server.client())
        with pytest.raises(ServiceError, match="read-only transaction"):
            opened(Place(tmp_path, "another", "production", url, server.address))


@pytest.mark.parametrize("kind", ["redis", "sqlite"])
def test_clocks_five_minutes_apart(tmp_path, caplog, kind):
    """What was written by a clock ahead of ours is fresh up to AHEAD_SECONDS, and beyond it missing and reported."""
    with redis_server() as server:
        place = redis_place(tmp_path, server.address)
        if kind == "sqlite":
            place = Place(tmp_path, PROJECT, "embedded", place.registry)
        store = apply(place, VIEWS)
        now = datetime.now(UTC)
        ahead = {"now": 0, "ahead": 300, "behind": -300, "zone": 3600, "edge": AHEAD_SECONDS - 30}
        rows = [
            {"item_id": item, "item_views": 7, "event_timestamp": now + timedelta(seconds=seconds)}
            for item, seconds in ahead.items()
        ]
        # A clock five minutes ahead of the writer's ages a value five minutes early, and no more.
        ttl = timedelta(days=7)
        rows += [
            {"item_id": "old", "item_views": 7, "event_timestamp": now - ttl + timedelta(seconds=360)},
            {"item_id": "older", "item_views": 7, "event_timestamp": now - ttl - timedelta(seconds=1)},
        ]
        write(store, "item_activity", rows)
        note(place, None if kind == "sqlite" else server.client())
        lookup = OnlineLookup(place, spec(VIEWS), "wall")
        items = [row["item_id"] for row in rows]
        with caplog.at_level(logging.WARNING, "bentoml.esmm"):
            for _ in range(3):
                found = lookup.rows("u", items, {})
        np.testing.assert_array_equal(found.columns["item_views"], [7, 7, 7, np.nan, 7, 7, np.nan])
        assert found.unknown_items == []
        assert found.expired_by_view == {"item_activity": 2}
        warned = [r.message for r in caplog.records if "in the future" in r.message]
        assert len(warned) == 1
        assert "item_activity" in warned[0]
        status = {cell.key: cell.status for cell in lookup.inspect("u", items) if cell.feature == "item_views"}
        assert status == {**dict.fromkeys(items, "fresh"), "zone": "future", "older": "expired"}
        lookup.close()


def test_an_event_after_a_frozen_as_of_is_no_clock_s_fault(tmp_path):
    """A recording's pushes come after its materialization."""
    with redis_server() as server:
        place = redis_place(tmp_path, server.address)
        store = apply(place, VIEWS)
        event = NOW + timedelta(days=2)
        write(store, "item_activity", [{"item_id": "i1", "item_views": 7, "event_timestamp": event}])
        note(place, server.client())
        lookup = OnlineLookup(place, spec(VIEWS), "frozen")
        assert lookup.rows("u", ["i1"], {}).columns["item_views"].tolist() == [7]
        lookup.close()


def test_a_frozen_clock_is_the_note_s_and_goes_with_it(kept):
    place, _, server = kept
    lookup = OnlineLookup(place, spec(VIEWS), "frozen")
    at_now = lookup.rows("u1", ITEMS, {}).expired
    note(place, server.client(), NOW + timedelta(days=30))
    assert lookup.rows("u1", ITEMS, {}).expired > at_now
    server.client().delete(layout.materialized_key(PROJECT))
    with pytest.raises(ServiceError, match="esmm:materialized:shop"):
        lookup.rows("u1", ITEMS, {})
    lookup.close()


def test_by_the_wall_clock_the_note_is_not_needed_to_go_on(kept):
    place, store, server = kept
    lookup = opened(place, 1000)
    server.client().delete(layout.materialized_key(PROJECT))
    expected = by_feast(store, spec(VIEWS), "u1", ITEMS, None)[0]
    for _ in range(3):
        assert_equal(lookup.rows("u1", ITEMS, {}).columns, expected)
    assert lookup.materialized_as_of() is None
    lookup.close()


def test_a_note_that_is_not_ours_is_a_sentence(kept):
    place, _, server = kept
    lookup = opened(place)
    server.client().set(layout.materialized_key(PROJECT), '{"as_of": 3, "more": 1}')
    with pytest.raises(ServiceError, match="esmm:materialized:shop"):
        lookup.rows("u1", ITEMS, {})
    lookup.close()


@pytest.mark.parametrize("kind", ["redis", "sqlite"])
def test_a_value_of_another_type_is_never_a_number(tmp_path, kind):
    """What a renamed or retyped column would leave in the store."""
    with redis_server() as server:
        place = redis_place(tmp_path, server.address)
        if kind == "sqlite":
            place = Place(tmp_path, PROJECT, "embedded", place.registry)
        filled(place, None if kind == "sqlite" else server.client())
        blob = Value(string_val="19").SerializeToString()
        if kind == "redis":
            key, field = layout.redis_key(PROJECT, "item_id", "i7"), layout.redis_field("item_profile", "price")
            server.client().hset(key, field, blob)
        else:
            with closing(sqlite3.connect(tmp_path / "online.db")) as db:
                table, key = layout.sqlite_table(PROJECT, "item_profile"), layout.entity_key("item_id", "i7")
                where = "entity_key = ? AND feature_name = 'price'"
                assert db.execute(f"UPDATE {table} SET value = ? WHERE {where}", (blob, key)).rowcount == 1
                db.commit()
        lookup = opened(place)
        with pytest.raises(
            ServiceError, match="holds a string_val as item_profile:price, which the model reads as flo"
        ):
            lookup.rows("u1", ITEMS, {})
        assert lookup.rows("u1", ITEMS[8:], {}).unknown_items == []
        lookup.close()


def test_a_key_of_another_kind_is_a_sentence(kept):
    place, _, server = kept
    key = layout.redis_key(PROJECT, "item_id", "i7")
    server.client().delete(key)
    server.client().set(key, "a string")
    lookup = opened(place)
    with pytest.raises(ServiceError, match="WRONGTYPE"):
        lookup.rows("u1", ITEMS, {})
    kept_open = lookup._reader._client.connection_pool._available_connections
    assert [connection._sock for connection in kept_open] == [None]
    assert lookup.rows("u1", ITEMS[8:], {}).unknown_items == []  # no reply of the failed request was left over
    lookup.close()


def test_a_sqlite_store_that_is_replaced_or_removed(tmp_path):
    """Another file of the same name is another store: no connection goes on with the old one."""
    place = Place(tmp_path, PROJECT, "embedded", f"sqlite:///{tmp_path}/registry.db")
    filled(place)
    lookup = opened(place, 1000)
    for _ in range(3):
        assert lookup.rows("u1", ITEMS, {}).unknown_items == []
    (tmp_path / "online.db").rename(tmp_path / "away.db")
    with pytest.raises(ServiceError, match=r"does not answer.*esmm materialize"):
        lookup.rows("u1", ITEMS, {})
    with closing(sqlite3.connect(tmp_path / "online.db")) as db, closing(sqlite3.connect(tmp_path / "away.db")) as old:
        old.backup(db)
        db.execute(f"DELETE FROM {layout.sqlite_table(PROJECT, 'item_profile')}")
        db.execute(f"DELETE FROM {layout.sqlite_table(PROJECT, 'item_activity')}")
        db.commit()
    assert lookup.rows("u1", ITEMS, {}).unknown_items == ITEMS
    lookup.close()


def test_a_time_that_is_no_number_is_a_sentence(tmp_path):
    place = Place(tmp_path, PROJECT, "embedded", f"sqlite:///{tmp_path}/registry.db")
    filled(place)
    with closing(sqlite3.connect(tmp_path / "online.db")) as db:
        db.execute(f"UPDATE {layout.sqlite_table(PROJECT, 'item_activity')} SET event_ts = '2026-03-01T00:00:00'")
        db.commit()
    lookup = opened(place)
    with pytest.raises(ServiceError, match="holds the event time '2026-03-01T00:00:00' in view 'item_activity'"):
        lookup.rows("u1", ITEMS, {})
    lookup.close()
