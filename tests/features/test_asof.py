"""The offline store against a reference short enough to be believed, and against Feast's own."""

from __future__ import annotations

from datetime import timedelta

import pytest
from features.asof_made import TTL, at, entities, open_store, references, write
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

TICK = timedelta(microseconds=1)
NEVER = at(-1000)


def reference(key, time, versions, ttl, known_only):
    """The number of the version that counts at `time`: the last by event, created and place of those that may."""
    may = [
        (v["event"], v["created"] or NEVER, n)
        for n, v in enumerate(versions)
        if None not in (key, time, v["event"])
        and v["key"] == key
        and v["event"] <= time
        and (ttl is None or time <= v["event"] + ttl)
        and (not known_only or (v["created"] is not None and v["created"] <= time))
    ]
    return max(may)[2] if may else None


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """One folder of tables that each example writes anew; three stores that read them."""
    folder = tmp_path_factory.mktemp("asof")
    for name in TTL:
        write(folder, name, [])
    opened = {
        True: open_store(folder),
        False: open_store(folder, offline={"filter_by_created_timestamp": False}),
        "feast": open_store(folder, offline="duckdb"),
    }
    return folder, opened


def ask(store, rows, known_only, *names):
    job = store.get_historical_features(
        entity_df=rows, features=references(*names), filter_by_created_timestamp=known_only
    )
    return job.to_arrow()


quarters = st.integers(0, 40).map(lambda n: at(n / 4))
late = st.sampled_from([0.0, 0.0, 0.0, 0.25, 1.0, 3.0, 9.0, -0.5])


def version(keys, event, known):
    """`known`: how long after the event it was created; None: nobody knows."""
    return st.builds(
        lambda key, event, known: {
            "key": key, "event": event,
            "created": None if event is None or known is None else event + timedelta(days=known),
        },
        keys, event, known,
    )  # fmt: skip


@st.composite
def cases(draw, nulls=True, twice=True):
    """Versions by view and rows to ask for, at the moments that matter and just beside them.

    `nulls`: keys and times may be; `twice`: versions may agree in key, event and created.
    """
    absent = st.none() if nulls else st.nothing()
    tables = {}
    for name in TTL:
        found = draw(
            st.lists(
                version(st.sampled_from(["a", "b"]) | absent, quarters | absent, late | absent),
                max_size=14,
                unique_by=None if twice else lambda v: (v["key"], v["event"], v["created"]),
            )
        )
        tables[name] = [{**v, "count": n} for n, v in enumerate(found)]
    moments = [at(1)]
    for name, versions in tables.items():
        for v in versions:
            moments += [time for time in (v["event"], v["created"]) if time is not None]
            moments += [v["event"] + TTL[name]] if v["event"] is not None and TTL[name] else []
    near = st.builds(lambda time, by: time + by * TICK, st.sampled_from(moments), st.sampled_from([-1, 0, 1]))
    key = st.sampled_from(["a", "b", "nobody"]) | absent
    row = st.fixed_dictionaries({**dict.fromkeys(TTL, key), "time": near | absent})
    rows = draw(st.lists(row, min_size=1, max_size=25))
    return tables, rows + draw(st.lists(st.sampled_from(rows), max_size=5))


def backfills(*events_and_created):
    return [{"key": "a", "event": at(e), "created": at(c), "count": n} for n, (e, c) in enumerate(events_and_created)]


LATE = {
    # Known in another order than stamped; two known at one moment; one that is outdated when it becomes known.
    "user": backfills((1, 1), (3, 8), (2, 5), (4, 8), (6, 6), (5, 7)),
    "item": backfills((1, 2), (1, 1), (1, 3), (2, 3), (0, 3)),
    "group": [],
}


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(case=cases(), known_only=st.booleans())
@example(case=(LATE, [{"user": "a", "item": "a", "time": at(n / 8)} for n in range(120)]), known_only=True)
@example(case=(LATE, [{"user": "a", "item": "a", "time": at(n / 8)} for n in range(120)]), known_only=False)
def test_equals_the_reference_on_random_timelines(stores, case, known_only):
    folder, opened = stores
    tables, rows = case
    for name, versions in tables.items():
        write(folder, name, versions)
    given = entities(rows)
    found = ask(opened[known_only], given, known_only, *TTL)
    assert found["n"].to_pylist() == list(range(len(rows)))
    for name, ttl in TTL.items():
        expected = [reference(row.get(name), row["time"], tables[name], ttl, known_only) for row in rows]
        assert found[f"{name}_count"].to_pylist() == expected, name


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(case=cases(nulls=False, twice=False), known_only=st.booleans())
def test_equals_feast_s_duckdb_store(stores, case, known_only):
    """Where both say what they do: with all keys and times, and no two versions that nothing tells apart."""
    folder, opened = stores
    tables, rows = case
    for name, versions in tables.items():
        write(folder, name, versions)
    given = entities(rows).to_pandas()
    ours = ask(opened[known_only], given, known_only, *TTL)
    theirs = ask(opened["feast"], given.copy(), known_only, *TTL).sort_by("n")
    assert ours.column_names == theirs.column_names
    for name in ("n", *(f"{name}_count" for name in TTL)):
        assert ours[name].to_pylist() == [None if v is None or v != v else v for v in theirs[name].to_pylist()], name


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(times=st.lists(quarters, min_size=300, max_size=300), delays=st.lists(late, min_size=300, max_size=300))
def test_deep_histories_with_many_late_backfills(stores, times, delays):
    folder, opened = stores
    versions = [
        {"key": "ab"[n % 2], "event": time, "created": time + timedelta(days=delay), "count": n}
        for n, (time, delay) in enumerate(zip(times, delays, strict=True))
    ]
    write(folder, "user", versions)
    rows = [{"user": "ab"[n % 2], "time": at(n / 5)} for n in range(100)]
    found = ask(opened[True], entities(rows), True, "user")["user_count"].to_pylist()
    assert found == [reference(row["user"], row["time"], versions, TTL["user"], True) for row in rows]
