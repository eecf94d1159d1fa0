"""What is online after `bring_up`, on SQLite and on Redis: the same bytes as Feast's, the newest row, nothing else."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta

import pytest
from feast.infra.online_stores.sqlite import SqliteOnlineStore  # noqa: F401 (its adapters come before ours)
from features import online_made as made
from features.made import at
from features.online_made import NAMES, PROJECT, every_type, plain, write_tables
from meanwhile import meanwhile
from servers import redis_cluster, redis_server

from components.contracts import layout
from components.contracts.errors import DataError
from components.contracts.online import Place, read_materialized
from components.contracts.times import format_utc
from components.features.online import registry, staging
from components.features.online.bring_up import bring_up
from components.features.online.redis_store import stamp
from feature_repo import views


@pytest.fixture(autouse=True)
def declared(monkeypatch):
    monkeypatch.setattr(views, "VIEWS", made.VIEWS)


@pytest.fixture(scope="module")
def server():
    with redis_server() as started:
        yield started


@pytest.fixture(params=["sqlite", "redis"])
def place(request, tmp_path):
    if request.param == "sqlite":
        return Place.of(tmp_path / "place", PROJECT, {})
    server = request.getfixturevalue("server")
    server.client().flushall()
    return made.on_redis(tmp_path / "place", server.address)


def values(place, *users):
    """The field `a` of view `plain` as Feast reads it."""
    with registry.opened(place) as store:
        answer = store.get_online_features(
            features=["plain:a", "plain:b"], entity_rows=[{"user_id": user} for user in users]
        ).to_dict()
    assert answer["a"] == answer["b"]
    return answer["a"]


def push(place, user, event, value):
    """What a push does: Feast writes one row."""
    import pandas as pd

    with registry.opened(place) as store:
        frame = pd.DataFrame(
            {"user_id": [user], "a": [value], "b": [value], "event_timestamp": [at(event)], "created": [at(event)]}
        )
        store.write_to_online_store("plain", frame)


def up(place, tables, day, **how):
    present = tuple(sorted(folder.name for folder in tables.iterdir()))
    return bring_up(place, tables, present, at(day), **how)


def modes(report):
    return {name: view.mode for name, view in report.views.items()}


def test_the_same_bytes_as_feast_s_in_sqlite(tmp_path):
    tables = write_tables(tmp_path / "t", {"every_type": every_type(), "plain": plain([("u1", 1, 5), ("u2", 2, 6)])})
    ours, theirs = (Place.of(tmp_path / name, PROJECT, {}) for name in ("ours", "theirs"))
    up(ours, tables, 10)
    made.feast_filled(theirs, tables, NAMES, at(10))
    for view in NAMES:
        assert made.sqlite_rows(ours.folder, view) == made.sqlite_rows(theirs.folder, view)
    assert len(made.sqlite_rows(ours.folder, "every_type")) == 7 * 8


def test_the_same_bytes_as_feast_s_in_redis(tmp_path, server):
    tables = write_tables(tmp_path / "t", {"every_type": every_type(), "plain": plain([("u1", 1, 5), ("u2", 2, 6)])})
    found = []
    for name, fill in (
        ("ours", lambda place: up(place, tables, 10)),
        ("theirs", lambda place: made.feast_filled(place, tables, NAMES, at(10))),
    ):
        server.client().flushall()
        fill(made.on_redis(tmp_path / name, server.address))
        found.append(made.redis_rows(server.client()))
    assert found[0] == found[1]
    assert len(found[0]) == 9


def test_feast_reads_every_type_back(place, tmp_path):
    up(place, write_tables(tmp_path / "t", {"every_type": every_type()}), 10)
    names = [field.name for field in made.EVERY.fields]
    with registry.opened(place) as store:
        found = store.get_online_features(
            features=[f"every_type:{name}" for name in names], entity_rows=[{"item_id": f"i{n}"} for n in range(8)]
        ).to_dict()
    expected = [made.ITEMS[(number + 2) % 7] for number in range(7)]
    for name in ("text", "count", "small", "flag", "bag", "bag_weights"):
        assert found[name] == [*(row.get(name) for row in expected), None]
    # NaN is a null to Feast.
    assert found["share"] == [
        None if row.get("share") != row.get("share") else row.get("share") for row in expected
    ] + [None]


def test_the_newest_row_known_at_as_of(place, tmp_path):
    """Exclusive in event and in created time; ties in event time go to the latest created."""
    rows = [
        ("tie", 3, 3, 1), ("tie", 3, 4, 2), ("tie", 2, 5, 9),
        ("event", 4, 4, 1), ("event", 10, 10, 2),
        ("created", 4, 4, 1), ("created", 5, 10, 2),
        ("unknown", 10, 10, 1),
    ]  # fmt: skip
    report = up(place, write_tables(tmp_path / "t", {"plain": plain(rows)}), 10)
    assert values(place, "tie", "event", "created", "unknown") == [2, 1, 1, None]
    found = report.views["plain"]
    assert (found.rows, found.written, found.removed, found.mode) == (3, 3, 0, "full")
    assert (found.lag_seconds, found.newest_event) == (6 * 86_400, format_utc(at(4)))


def test_incremental_brings_what_became_known(place, tmp_path):
    """Also a row of an earlier event that was created since, and a correction of the same event time."""
    first = [("same", 1, 1, 1), ("new", 1, 1, 1), ("late", 1, 1, 1), ("late_old", 5, 5, 1), ("fixed", 5, 5, 1)]
    later = [
        *first,
        ("new", 11, 11, 2), ("late", 2, 11, 2), ("late_old", 2, 11, 2), ("fixed", 5, 11, 2), ("first", 12, 12, 3),
    ]  # fmt: skip
    up(place, write_tables(tmp_path / "t1", {"plain": plain(first)}), 10)
    report = up(place, write_tables(tmp_path / "t2", {"plain": plain(later)}), 20)
    assert modes(report) == {"plain": "incremental"}
    assert (report.views["plain"].rows, report.views["plain"].written) == (6, 5)
    assert values(place, "same", "new", "late", "late_old", "fixed", "first") == [1, 2, 2, 1, 2, 3]


def test_incremental_and_full_leave_the_same(tmp_path, server):
    rows = [(f"u{n % 7}", n / 3, n / 3 + (n % 4) / 2, n) for n in range(60)]
    tables = write_tables(tmp_path / "t", {"plain": plain(rows), "every_type": every_type(range(1, 18))})
    found = []
    for days in ((5, 6, 10, 19), (19,)):
        server.client().flushall()
        embedded = Place.of(tmp_path / f"sqlite{len(days)}", PROJECT, {})
        redis = made.on_redis(tmp_path / f"redis{len(days)}", server.address)
        for day in days:
            last = [up(place, tables, day) for place in (embedded, redis)]
        assert {mode for report in last for mode in modes(report).values()} == {
            "incremental" if len(days) > 1 else "full"
        }
        found.append([made.sqlite_rows(embedded.folder, view) for view in NAMES] + [made.redis_rows(server.client())])
    assert found[0] == found[1]


def test_nothing_new_writes_nothing_and_moves_the_watermark(place, tmp_path):
    tables = write_tables(tmp_path / "t", {"plain": plain([("u1", 1, 1)])})
    up(place, tables, 10)
    report = up(place, tables, 20)
    assert (modes(report), report.views["plain"].written, report.as_of) == (
        {"plain": "unchanged"},
        0,
        format_utc(at(20)),
    )
    with pytest.raises(DataError, match=rf"is older than {format_utc(at(20))}.*nothing was written"):
        up(place, tables, 15)


@pytest.mark.parametrize(
    ("changed", "expected", "removed"),
    [
        ([("u1", 1, 1, 7), ("u2", 2, 2, 2)], [7, 2], 0),
        ([("u1", 1, 1, 1)], [1, None], 1),
        ([("u1", 1, 1, 1), ("u2", 1, 1, 8)], [1, 8], 0),
        ([("u1", 1, 1, 1), ("u2", 2, 2, 2), ("u1", 3, 3, 9)], [9, 2], 0),
    ],
    ids=["corrected", "entity_gone", "newest_row_gone", "written_into_the_past"],
)
def test_a_changed_past_brings_the_view_whole(place, tmp_path, changed, expected, removed):
    """The last: a row whose clock says it was known before the watermark, and which was not there then."""
    up(place, write_tables(tmp_path / "t1", {"plain": plain([("u1", 1, 1, 1), ("u2", 2, 2, 2)])}), 10)
    report = up(place, write_tables(tmp_path / "t2", {"plain": plain(changed)}), 20)
    assert (modes(report), report.views["plain"].removed) == ({"plain": "full"}, removed)
    assert values(place, "u1", "u2") == expected


def test_the_order_of_rows_and_files_is_no_change(place, tmp_path):
    rows = [("u1", 1, 1, 1), ("u2", 2, 2, 2), ("u1", 3, 3, 3)]
    up(place, write_tables(tmp_path / "t1", {"plain": plain(rows)}), 10)
    again = write_tables(tmp_path / "t2", {"plain": plain(rows[:1])})
    write_tables(tmp_path / "t3", {"plain": plain(reversed(rows[1:]))})
    (tmp_path / "t3/plain/part-0.parquet").rename(again / "plain/another.parquet")
    assert modes(up(place, again, 20)) == {"plain": "unchanged"}


@pytest.mark.parametrize("full", [False, True])
def test_what_was_pushed_since_stays(place, tmp_path, full):
    """Later than the watermark it can only have been pushed, in the tables or not, whichever way the run goes."""
    rows = [("u1", 1, 1, 1), ("u2", 1, 1, 1), ("u3", 1, 1, 1)]
    up(place, write_tables(tmp_path / "t1", {"plain": plain(rows)}), 10)
    push(place, "u1", 15, 100)
    push(place, "u2", 12, 100)
    push(place, "pushed_only", 15, 100)
    push(place, "u3", 25, 100)
    later = [*rows, ("u1", 14, 14, 2), ("u2", 14, 14, 2), ("u3", 14, 14, 2)]
    report = up(place, write_tables(tmp_path / "t2", {"plain": plain(later)}), 20, full=full)
    assert modes(report) == {"plain": "full" if full else "incremental"}
    assert (report.views["plain"].written, report.views["plain"].removed) == (1, 0)
    assert values(place, "u1", "u2", "pushed_only", "u3") == [100, 2, 100, 100]


def test_full_removes_what_is_older_than_the_watermark_and_in_no_table(place, tmp_path):
    tables = write_tables(tmp_path / "t1", {"plain": plain([("u1", 1, 1, 1)])})
    up(place, tables, 10)
    push(place, "gone", 9, 100)
    report = up(place, tables, 10, full=True)
    assert report.views["plain"].removed == 1
    assert values(place, "u1", "gone") == [1, None]


def test_other_projects_and_views_in_the_same_redis_are_left_alone(tmp_path, server):
    """One project's name ends as the other's, and users are keyed alike."""
    client = server.client()
    client.flushall()
    tables = write_tables(tmp_path / "t1", {"plain": plain([("u1", 1, 1, 1), ("u2", 1, 1, 1)])})
    other = made.on_redis(tmp_path / "other", server.address, "very" + PROJECT)
    up(other, tables, 10)
    before = made.redis_rows(client)
    place = made.on_redis(tmp_path / "place", server.address)
    up(place, tables, 10)
    key = layout.redis_key(PROJECT, "user_id", "u2")
    client.hset(key, mapping={b"_ts:another_view": stamp(1), layout.redis_field("another_view", "x"): b"\x20\x01"})
    report = up(place, write_tables(tmp_path / "t2", {"plain": plain([("u1", 1, 1, 1)])}), 10)
    assert report.views["plain"].removed == 1
    assert set(client.hgetall(key)) == {b"_ts:another_view", layout.redis_field("another_view", "x")}
    assert {key: fields for key, fields in made.redis_rows(client).items() if key in before} == before


def test_a_cluster_is_filled_and_emptied_as_one_server_is(tmp_path):
    tables = write_tables(tmp_path / "t1", {"plain": plain([(f"u{n}", 1, 1, n) for n in range(50)])})
    with redis_cluster() as nodes:
        place = made.on_redis(tmp_path / "place", ",".join(node.address for node in nodes))
        place = Place(place.folder, PROJECT, "production", place.registry, place.redis, "redis_cluster")
        up(place, tables, 10)
        assert values(place, *(f"u{n}" for n in range(50))) == list(range(50))
        assert all(node.client().dbsize() > 5 for node in nodes)
        report = up(place, write_tables(tmp_path / "t2", {"plain": plain([("u1", 1, 1, 5)])}), 20)
        assert (report.views["plain"].removed, values(place, "u1", "u2")) == (49, [5, None])


def test_a_store_that_is_gone_is_filled_again(tmp_path):
    """The file says that everything is there, and it is not."""
    place = Place.of(tmp_path / "place", PROJECT, {})
    tables = write_tables(tmp_path / "t", {"plain": plain([("u1", 1, 1, 1), ("u2", 1, 1, 1)])})
    up(place, tables, 10)
    with closing(sqlite3.connect(place.folder / "online.db")) as db:
        db.execute("DELETE FROM tiny_plain WHERE entity_key = ?", (layout.entity_key("user_id", "u2"),))
        db.commit()
    assert modes(up(place, tables, 10)) == {"plain": "full"}
    (place.folder / "online.db").unlink()
    assert modes(up(place, tables, 10)) == {"plain": "full"}
    assert values(place, "u1", "u2") == [1, 1]


def test_a_changed_declaration_brings_the_view_whole(place, tmp_path, monkeypatch):
    rows = plain([("u1", 1, 1, 1)])
    up(place, write_tables(tmp_path / "t", {"plain": rows}), 10)
    fewer = views.view("plain", made.USER, timedelta(days=365), made.PLAIN.fields[0])
    monkeypatch.setattr(views, "VIEWS", (fewer,))
    assert modes(up(place, tmp_path / "t", 10)) == {"plain": "full"}


def test_any_other_store_of_feast_s_goes_through_its_interface(tmp_path, monkeypatch):
    """SQLite by its class's full name is such a store."""
    tables = write_tables(tmp_path / "t", {"every_type": every_type()})
    ours, other = (Place.of(tmp_path / name, PROJECT, {}) for name in ("ours", "other"))
    up(ours, tables, 10)
    kind = {"type": "feast.infra.online_stores.sqlite.SqliteOnlineStore", "path": str(other.folder / "online.db")}
    monkeypatch.setattr(Place, "online_store", property(lambda self: kind))
    monkeypatch.setattr(staging, "BATCH_ENTITIES", 3)
    seen = []
    report = up(other, tables, 10, progress=lambda *step: seen.append(step))
    assert seen == [("every_type", done, 7) for done in (3, 6, 7)]
    assert (report.views["every_type"].written, read_materialized(other.folder).as_of) == (7, format_utc(at(10)))
    assert made.sqlite_rows(other.folder, "every_type") == made.sqlite_rows(ours.folder, "every_type")
    assert modes(up(other, tables, 10)) == {"every_type": "unchanged"}


def test_progress_counts_up_to_the_whole(place, tmp_path, monkeypatch):
    monkeypatch.setattr(staging, "BATCH_ENTITIES", 4)
    seen = []
    tables = write_tables(tmp_path / "t", {"plain": plain([(f"u{n}", 1, 1, n) for n in range(10)])})
    up(place, tables, 10, progress=lambda *step: seen.append(step))
    assert seen == [("plain", 4, 10), ("plain", 8, 10), ("plain", 10, 10)]


def test_a_row_of_nobody_is_refused(place, tmp_path):
    up(place, write_tables(tmp_path / "t1", {"plain": plain([("u1", 1, 1, 1)])}), 10)
    with pytest.raises(DataError, match="plain: 1 rows have no user_id"):
        up(place, write_tables(tmp_path / "t2", {"plain": plain([("u1", 1, 1, 2), (None, 1, 1, 2)])}), 20)
    assert values(place, "u1") == [1]


def test_readers_see_whole_states_meanwhile(tmp_path):
    """One statement over many keys, again and again while the store is replaced: all old or all new."""
    place = Place.of(tmp_path / "place", PROJECT, {})
    users = [f"u{n}" for n in range(300)]
    up(place, write_tables(tmp_path / "t0", {"plain": plain([(user, 1, 1, 0) for user in users])}), 10)
    seen, failures = [], []

    def read(over):
        with closing(sqlite3.connect(place.folder / "online.db")) as db:
            while not over.is_set():
                try:
                    found = db.execute("SELECT count(*), count(DISTINCT value), min(value) FROM tiny_plain").fetchone()
                    seen.append(found)
                except sqlite3.Error as error:
                    failures.append(error)

    with meanwhile(read):
        for number in (1, 2):
            rows = plain([(user, 10 + number, 10 + number, number) for user in users])
            up(place, write_tables(tmp_path / f"t{number}", {"plain": rows}), 12 + number)
    assert failures == []
    assert {(rows, kinds) for rows, kinds, _ in seen} == {(600, 1)}
    assert len({value for *_, value in seen}) > 1


def test_readers_of_redis_see_whole_rows_meanwhile(tmp_path, server, monkeypatch):
    """Of an entity all fields are of one generation."""
    server.client().flushall()
    monkeypatch.setattr(staging, "BATCH_ENTITIES", 50)
    place = made.on_redis(tmp_path / "place", server.address)
    users = [f"u{n}" for n in range(300)]
    up(place, write_tables(tmp_path / "t0", {"plain": plain([(user, 1, 1, 0) for user in users])}), 10)
    mixed, generations = [], set()
    fields = [layout.redis_field("plain", "a"), layout.redis_field("plain", "b"), layout.redis_time_field("plain")]

    def read(over):
        client = server.client()
        while not over.is_set():
            pipe = client.pipeline(transaction=False)
            for user in users:
                pipe.hmget(layout.redis_key(PROJECT, "user_id", user), fields)
            for row in map(tuple, pipe.execute()):
                generations.add(row)
                if row[0] != row[1]:
                    mixed.append(row)

    with meanwhile(read, threads=1):
        for number in (1, 2):
            rows = plain([(user, 10 + number, 10 + number, number) for user in users])
            up(place, write_tables(tmp_path / f"t{number}", {"plain": rows}), 12 + number)
    assert mixed == []
    assert 1 < len(generations) <= 3
