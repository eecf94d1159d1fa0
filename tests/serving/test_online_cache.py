"""The cache of items: bounded, of one state of the store, and no older than it says."""

from __future__ import annotations

import threading
from datetime import timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from online_made import NOW, PROJECT, apply, note, spec, write
from servers import redis_server

from components.contracts.online import Place
from serving.lookup import ITEM_SECONDS, PUSHED_SECONDS, OnlineLookup
from serving.online.cache import EVICTED, ItemCache
from serving.online.fields import fields
from serving.online.rows import Block

OF = fields(spec(("item_activity",)), "item_id", {"item_activity"})


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def rows(values):
    """A block whose item_views are `values`."""
    block = Block.empty(OF, len(values))
    block.ints[0] = values
    block.present[:] = True
    block.stamps[:] = 1
    return block


def cache(size=10, seconds=60.0):
    """Empty, of state 1."""
    clock = Clock()
    made = ItemCache(OF, size, seconds, clock)
    made.put(["first"], rows([0]), None, 1, clock.now)
    return made, clock


def kept(made, ids):
    hit = made.get(ids)
    return dict(zip(np.array(ids)[hit.places].tolist(), hit.block.ints[0].tolist(), strict=True))


def test_the_first_trip_only_says_which_state_it_is():
    made, _ = cache()
    assert kept(made, ["first"]) == {}
    made.put(["a", "b"], rows([1, 2]), 1, 1, 100)
    assert kept(made, ["b", "c", "a", "b"]) == {"b": 2, "a": 1}


def test_another_state_drops_everything():
    made, _ = cache()
    made.put(["a"], rows([1]), 1, 1, 100)
    made.put(["b"], rows([2]), 1, 2, 100)  # a trip that began before and saw the new state keeps nothing
    assert kept(made, ["a", "b"]) == {}
    assert made.get(["a"]).token == 2
    made.put(["a"], rows([3]), 2, 2, 100)
    assert kept(made, ["a"]) == {"a": 3}


def test_a_late_answer_of_the_state_before_is_not_kept():
    """Its thread looked before the materialization and comes back after it."""
    made, _ = cache()
    before = made.get(["a"]).token
    made.put(["b"], rows([9]), 1, 2, 100)
    made.put(["a"], rows([1]), before, 1, 99)
    assert kept(made, ["a"]) == {}


def test_of_two_answers_the_one_asked_for_later_stays():
    made, _ = cache()
    made.put(["a"], rows([2]), 1, 1, 100)
    made.put(["a", "b"], rows([1, 1]), 1, 1, 99)
    assert kept(made, ["a", "b"]) == {"a": 2, "b": 1}


def test_age_is_bounded_and_counts_from_before_the_read():
    made, clock = cache(seconds=60)
    made.put(["a"], rows([1]), 1, 1, 98)
    clock.now = 158
    assert kept(made, ["a"]) == {"a": 1}
    clock.now = 158.1
    assert kept(made, ["a"]) == {}
    made.put(["a"], rows([2]), 1, 1, 158)
    assert kept(made, ["a"]) == {"a": 2}


def test_what_was_asked_for_longest_ago_goes_first():
    made, _ = cache(size=3)
    for number, id_ in enumerate("abc"):
        made.put([id_], rows([number]), 1, 1, 100)
    assert kept(made, ["a"]) == {"a": 0}
    made.put(["d"], rows([3]), 1, 1, 100)
    assert kept(made, list("abcd")) == {"a": 0, "c": 2, "d": 3}


def test_an_answer_larger_than_the_cache():
    made, _ = cache(size=4)
    ids = [f"i{number}" for number in range(9)]
    made.put(ids, rows(range(9)), 1, 1, 100)
    assert kept(made, ids) == {"i0": 0, "i1": 1, "i2": 2, "i3": 3}
    assert len(made) == 4


def test_size_zero_keeps_nothing():
    made = ItemCache(OF, 0, 60)
    for _ in range(2):
        made.put(["a"], rows([1]), 1, 1, 100)
    assert kept(made, ["a"]) == {}


@given(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=12, unique=True), max_size=40), st.integers(1, 20))
def test_it_holds_what_was_put_and_never_more_than_its_size(requests, size):
    """As the lookup uses it: ask, read what is missing, put. Each id's value is its own number."""
    made, _ = cache(size)
    for numbers in requests:
        ids = [str(number) for number in numbers]
        hit = made.get(ids)
        assert hit.block.ints[0].tolist() == [n for n, there in zip(numbers, hit.places, strict=True) if there]
        missing = [id_ for id_, there in zip(ids, hit.places, strict=True) if not there]
        made.put(missing, rows([int(id_) for id_ in missing]), 1, 1, 100)
        assert len(made) <= size
        assert kept(made, missing[:size]) == {id_: int(id_) for id_ in missing[:size]}
    assert EVICTED > 1


def test_threads_meet_no_rows_of_other_items():
    made, _ = cache(size=50)
    failures = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(300):
            numbers = rng.choice(200, 20, replace=False)
            ids = [str(number) for number in numbers]
            hit = made.get(ids)
            if hit.block.ints[0].tolist() != numbers[hit.places].tolist():
                failures.append(ids)
            missing = numbers[~hit.places]
            made.put([str(number) for number in missing], rows(missing), 1, 1, 100)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# In a store.


@pytest.fixture(scope="module")
def server():
    with redis_server() as running:
        yield running


@pytest.fixture(params=["redis", "sqlite"])
def place(request, server, tmp_path):
    """(place, client): an empty store. Materialized to NOW."""
    registry = f"sqlite:///{tmp_path}/registry.db"
    if request.param == "sqlite":
        return Place(tmp_path, PROJECT, "embedded", registry), None
    client = server.client()
    client.flushall()
    return Place(tmp_path, PROJECT, "production", registry, server.address), client


def views_of(opened, item="i1"):
    return opened.rows("u", [item], {}).columns["item_views"].tolist()[0]


def activity(item, views, hours=1.0):
    return {"item_id": item, "item_views": views, "event_timestamp": NOW - timedelta(hours=hours)}


def warm(opened, *items):
    for _ in range(2):
        opened.rows("u", list(items), {})


def test_a_materialization_is_seen_by_the_next_request(place):
    place, client = place
    store = apply(place, ("item_activity", "user_activity"))
    write(store, "item_activity", [activity(f"i{n}", n, hours=9) for n in range(5)])
    note(place, client)
    opened = OnlineLookup(place, spec(("item_activity", "user_activity")), NOW.timestamp)
    warm(opened, "i1", "i2")
    asked = opened.freshness()["cache"]
    assert (opened.freshness()["cache"]["items"], views_of(opened)) == (2, 1)
    assert opened.freshness()["cache"]["hits"] == asked["hits"] + 1
    write(store, "item_activity", [activity("i1", 100, hours=8)])
    note(place, client, NOW + timedelta(hours=1))
    assert [views_of(opened), views_of(opened), views_of(opened, "i2")] == [100, 100, 2]
    opened.close()


def test_the_user_is_always_read_afresh(place):
    place, client = place
    store = apply(place, ("item_activity", "user_activity"))
    write(store, "item_activity", [activity("i1", 1)])
    note(place, client)
    opened = OnlineLookup(place, spec(("item_activity", "user_activity")), NOW.timestamp)
    warm(opened, "i1")
    for number in range(3):
        event = NOW - timedelta(hours=5 - number)
        write(store, "user_activity", [{"user_id": "u", "user_views": number, "event_timestamp": event}])
        assert opened.rows("u", ["i1"], {}).columns["user_views"].tolist() == [number]
    opened.close()


def test_a_row_written_without_a_note_is_seen_within_the_bound(server, tmp_path):
    """By Feast's own materialize, say. On Redis nothing tells, so a kept row ages out."""
    server.client().flushall()
    place = Place(tmp_path, PROJECT, "production", f"sqlite:///{tmp_path}/registry.db", server.address)
    store = apply(place, ("item_activity",))
    write(store, "item_activity", [activity("i1", 1, hours=9)])
    note(place, server.client())
    opened = OnlineLookup(place, spec(("item_activity",)), NOW.timestamp)
    clock = Clock()
    (items,) = opened._plan.items
    assert items.seconds == ITEM_SECONDS <= 60
    items.clock = clock
    warm(opened, "i1")
    write(store, "item_activity", [activity("i1", 100, hours=8)])
    clock.now += ITEM_SECONDS
    assert views_of(opened) == 1
    clock.now += 0.1
    assert views_of(opened) == 100
    opened.close()


def test_sqlite_serves_nothing_stale_even_without_a_note(tmp_path):
    """Every commit is noticed, by each of the threads' connections."""
    place = Place(tmp_path, PROJECT, "embedded", f"sqlite:///{tmp_path}/registry.db")
    store = apply(place, ("item_activity",))
    write(store, "item_activity", [activity("i1", 0)])
    note(place)
    opened = OnlineLookup(place, spec(("item_activity",)), NOW.timestamp)
    failures: list[tuple[int, int]] = []
    written = 0

    def ask():
        for _ in range(10):
            least = written
            found = views_of(opened)
            if found < least:
                failures.append((found, least))

    for number in range(1, 8):
        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        write(store, "item_activity", [activity("i1", number)])
        written = number
        for thread in threads:
            thread.join()
        assert views_of(opened) == number
    opened.close()
    assert failures == []


def test_pushed_views_are_held_for_no_longer_than_half_a_second(server, tmp_path):
    server.client().flushall()
    place = Place(tmp_path, PROJECT, "production", f"sqlite:///{tmp_path}/registry.db", server.address)
    store = apply(place, ("item_activity", "item_profile"), pushed=("item_activity",))
    write(store, "item_activity", [activity("i1", 1, hours=9)])
    note(place, server.client())
    opened = OnlineLookup(place, spec(("item_activity", "item_profile")), NOW.timestamp)
    steady, pushed = opened._plan.items
    assert [view.name for view in steady.fields.views] == ["item_profile"]
    assert [view.name for view in pushed.fields.views] == ["item_activity"]
    assert pushed.seconds == PUSHED_SECONDS <= 0.5
    assert opened.freshness()["views"]["item_activity"]["pushed"]
    clock = Clock()
    steady.clock = pushed.clock = clock
    warm(opened, "i1")
    write(store, "item_activity", [activity("i1", 2, hours=8)])
    assert views_of(opened) == 1
    clock.now += PUSHED_SECONDS + 0.01
    assert views_of(opened) == 2
    opened.close()


def test_a_view_that_becomes_pushed_while_serving(server, tmp_path):
    server.client().flushall()
    place = Place(tmp_path, PROJECT, "production", f"sqlite:///{tmp_path}/registry.db", server.address)
    apply(place, ("item_activity",))
    note(place, server.client())
    opened = OnlineLookup(place, spec(("item_activity",)), NOW.timestamp)
    assert [items.seconds for items in opened._plan.items] == [ITEM_SECONDS]
    apply(place, ("item_activity",), pushed=("item_activity",))
    opened._registry.refresh()
    views_of(opened)
    assert [items.seconds for items in opened._plan.items] == [PUSHED_SECONDS]
    opened.close()


def test_kept_rows_expire_as_time_goes_on(place):
    """The age is taken when asked, not when read."""
    place, client = place
    store = apply(place, ("item_activity",))
    write(store, "item_activity", [activity("i1", 1, hours=24 * 6)])
    note(place, client)
    now = [NOW.timestamp()]
    opened = OnlineLookup(place, spec(("item_activity",)), lambda: now[0])
    warm(opened, "i1")
    assert views_of(opened) == 1
    now[0] += 86400
    assert views_of(opened) == 1
    now[0] += 1
    found = opened.rows("u", ["i1"], {})
    assert np.isnan(found.columns["item_views"]).all()
    assert (found.expired, found.unknown_items) == (1, [])
    opened.close()
