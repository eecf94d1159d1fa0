"""What goes wrong while the online store is filled, and what is served then: never a wrong value, never a mixed row."""

from __future__ import annotations

import random
import sqlite3
import threading
from contextlib import closing

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faults.kills import killed_at
from features import online_made as made
from features.made import at
from features.online_made import NAMES, PROJECT, every_type, plain, write_tables
from servers import free_port, postgres, redis_server

from components.contracts import layout
from components.contracts.errors import Busy, DataError, ServiceError
from components.contracts.online import Place, read_materialized
from components.contracts.times import format_utc
from components.features.online import redis_lock, staging
from components.features.online.bring_up import bring_up
from components.features.online.redis_store import Journal
from feature_repo import views

USERS = 30
STATE, JOURNAL, LOCK = (
    layout.materialized_key(PROJECT),
    f"esmm:materializing:{PROJECT}",
    f"esmm:materialize-lock:{PROJECT}",
)


@pytest.fixture(autouse=True)
def declared(monkeypatch):
    monkeypatch.setattr(views, "VIEWS", made.VIEWS)


@pytest.fixture(scope="module")
def server():
    with redis_server(settings=("--appendonly", "yes", "--appendfsync", "always")) as started:
        yield started


@pytest.fixture
def client(server):
    server.client().flushall()
    return server.client()


@pytest.fixture
def old(tmp_path):
    return tables(tmp_path / "old", 0, (1,))


@pytest.fixture
def new(tmp_path):
    """Every entity has a new row, and what was known before is still there."""
    return tables(tmp_path / "new", 0, (1, 12))


def tables(folder, value, days):
    rows = [(f"u{n}", day, value + 100 * day + n) for day in days for n in range(USERS)]
    return write_tables(folder, {"plain": plain(rows), "every_type": every_type(days)})


def generations(client):
    """Event days of the users' rows in Redis, after checking that no row is a mixture."""
    fields = [layout.redis_field("plain", name) for name in ("a", "b")]
    found = set()
    for n in range(USERS):
        a, b = client.hmget(layout.redis_key(PROJECT, "user_id", f"u{n}"), fields)
        assert a == b
        value = int.from_bytes(bytes(byte & 127 for byte in a[1:2]), "little") | (
            (a[2] & 127) << 7 if len(a) > 2 else 0
        )
        found.add((value - n) // 100)
    return found


def undisturbed(tmp_path, client, new):
    """What Redis holds after one run that nothing happens to."""
    client.flushall()
    bring_up(made.on_redis(tmp_path / "undisturbed", address(client)), new, NAMES, at(20))
    found = made.redis_rows(client)
    client.flushall()
    return found


def address(client):
    return f"127.0.0.1:{client.connection_pool.connection_kwargs['port']}"


def test_redis_killed_in_the_middle_and_restarted(tmp_path, server, client, old, new, monkeypatch):
    """Each entity has its previous or its new row; the watermark is the old one; the next run goes on."""
    expected = undisturbed(tmp_path, client, new)
    place = made.on_redis(tmp_path / "place", server.address)
    bring_up(place, old, NAMES, at(10))
    monkeypatch.setattr(staging, "BATCH_ENTITIES", 5)

    def kill(view, done, total):
        if view == "plain" and done == 10:
            server.kill()

    with pytest.raises(ServiceError, match=rf"Redis at {server.address} does not answer.*goes on where it stopped"):
        bring_up(place, new, NAMES, at(20), progress=kill)
    server.start()
    client = server.client()
    assert generations(client) == {1, 12}
    assert f'"as_of":"{format_utc(at(10))}"' in client.get(STATE).decode()
    client.delete(LOCK)  # or half a minute later
    seen = []
    report = bring_up(place, new, NAMES, at(20), progress=lambda *step: seen.append(step))
    assert seen[-1][0] == "plain"
    assert report.views["plain"].written == 20
    assert report.views["every_type"].written == 0
    assert made.redis_rows(client) == expected
    assert client.get(JOURNAL) is None


@pytest.mark.parametrize(
    ("step", "times", "there"),
    [
        pytest.param("components.features.online.staging:batches", 0, {1}, marks=pytest.mark.slow),
        ("components.features.online.redis_store:RedisTarget._note", 3, {1, 12}),
        ("components.features.online.redis_store:RedisTarget.finish", 0, {12}),
    ],
    ids=["before_writing", "before_the_journal", "before_the_watermark"],
)
def test_killed_while_it_writes_to_redis(tmp_path, server, client, old, new, step, times, there):
    expected = undisturbed(tmp_path, client, new)
    place = made.on_redis(tmp_path / "place", server.address)
    bring_up(place, old, NAMES, at(10))
    assert killed_at(place, new, NAMES, at(20), step, times, batch=5)
    assert generations(client) == there
    journal = Journal.parse(client.get(JOURNAL) or '{"tables": "", "as_of": "", "full": false}')
    assert (journal.full, journal.reached, len(journal.places)) == (False, None, len(there & {12}) * len(NAMES))
    with pytest.raises(Busy, match=r"already going on \(.* process \d+\).*if it was killed, run again in 30 seconds"):
        bring_up(place, new, NAMES, at(20))
    client.delete(LOCK)
    bring_up(place, new, NAMES, at(20))
    assert made.redis_rows(client) == expected


def test_other_tables_after_a_killed_run(tmp_path, server, client, old, new):
    """What the killed run wrote and the tables no longer say does not stay."""
    place = made.on_redis(tmp_path / "place", server.address)
    bring_up(place, old, NAMES, at(10))
    assert killed_at(place, new, NAMES, at(20), "components.features.online.redis_store:RedisTarget._note", 3, batch=5)
    assert generations(client) == {1, 12}
    client.delete(LOCK)
    corrected = tables(tmp_path / "corrected", 0, (1, 11))
    report = bring_up(place, corrected, NAMES, at(21))
    assert {view.mode for view in report.views.values()} == {"full"}
    assert generations(client) == {11}
    assert made.redis_rows(client) == undisturbed(tmp_path, client, corrected)


@pytest.mark.parametrize(
    ("step", "day"),
    [
        pytest.param("components.features.online.sqlite_store:stage", 1, marks=pytest.mark.slow),
        ("components.features.online.sqlite_store:_drop_others", 1),
        ("components.features.online.registry:swap", 12),
        pytest.param("components.features.online.targets:write_materialized", 12, marks=pytest.mark.slow),
    ],
    ids=["before_writing", "before_the_commit", "before_the_registry", "before_the_watermark"],
)
def test_killed_while_it_writes_to_sqlite(tmp_path, old, new, step, day):
    """All rows are the old ones or all are the new ones."""
    place, other = (Place.of(tmp_path / name, PROJECT, {}) for name in ("place", "other"))
    bring_up(place, old, NAMES, at(10))
    bring_up(other, new, NAMES, at(20))
    assert killed_at(place, new, NAMES, at(20), step)
    assert event_days(place) == {day}
    assert read_materialized(place.folder).as_of == format_utc(at(10))
    bring_up(place, new, NAMES, at(20))
    assert list(place.folder.glob(".materialize-*")) == []
    for view in NAMES:
        assert made.sqlite_rows(place.folder, view) == made.sqlite_rows(other.folder, view)


def event_days(place):
    with closing(sqlite3.connect(place.folder / "online.db")) as db:
        stamps = db.execute(f"SELECT DISTINCT event_ts FROM {PROJECT}_plain").fetchall()
    return {(stamp - int(at(0).timestamp())) // 86_400 for (stamp,) in stamps}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
def test_killed_again_and_again(tmp_path, server, client, old, new, seed):
    """At chance points, several times over: the run that comes through leaves what an undisturbed one leaves."""
    draw = random.Random(seed)
    expected = undisturbed(tmp_path, client, new)
    place = made.on_redis(tmp_path / "place", server.address)
    bring_up(place, old, NAMES, at(10))
    for _ in range(3):
        step = draw.choice(["RedisTarget._note", "RedisTarget._run", "encode", "RedisTarget.finish", "stamp"])
        killed_at(
            place, new, NAMES, at(20), f"components.features.online.redis_store:{step}", draw.randrange(8), batch=4
        )
        assert generations(client) <= {1, 12}
        client.delete(LOCK)
    bring_up(place, new, NAMES, at(20))
    assert made.redis_rows(client) == expected


def test_two_at_once_from_two_machines(tmp_path, server, client, old, new, monkeypatch):
    """Each has a folder of its own, Redis is the same; the one that runs comes to its end."""
    monkeypatch.setattr(redis_lock, "SECONDS", 1.0)
    here, there = (made.on_redis(tmp_path / name, server.address) for name in ("here", "there"))
    refused = []

    def second(view, done, total):
        if not refused:
            threading.Event().wait(1.5)  # longer than the lock lasts unless it is renewed
            with pytest.raises(Busy, match=f"materializing the features of '{PROJECT}' is already going on"):
                bring_up(there, new, NAMES, at(20))
            refused.append(view)

    bring_up(here, old, NAMES, at(10), progress=second)
    assert refused
    assert generations(client) == {1}
    bring_up(there, new, NAMES, at(20))
    assert generations(client) == {12}


def test_two_at_once_on_one_machine(tmp_path, old, new):
    place = Place.of(tmp_path / "place", PROJECT, {})
    refused = []

    def second(view, done, total):
        with pytest.raises(Busy, match=f"materializing the features of '{PROJECT}' is already going on"):
            bring_up(place, new, NAMES, at(20))
        refused.append(view)

    bring_up(place, old, NAMES, at(10), progress=second)
    assert refused
    assert event_days(place) == {1}


def test_a_lost_lock_ends_the_run(tmp_path, server, client, old, new, monkeypatch):
    """Somebody removed it, or this process slept for too long: another run may have begun."""
    monkeypatch.setattr(redis_lock, "SECONDS", 0.6)
    monkeypatch.setattr(staging, "BATCH_ENTITIES", 10)
    place = made.on_redis(tmp_path / "place", server.address)
    bring_up(place, old, NAMES, at(10))

    def lose(view, done, total):
        client.set(LOCK, "another")
        threading.Event().wait(0.5)

    with pytest.raises(Busy, match="lock in Redis was lost"):
        bring_up(place, new, NAMES, at(20), progress=lose)
    assert client.get(LOCK) == b"another"
    assert f'"as_of":"{format_utc(at(10))}"' in client.get(STATE).decode()


def test_the_registry_does_not_answer(tmp_path, server, client, old, new):
    """Nothing is written, and the sentence names the server without its password."""
    with postgres() as url:
        place = Place(tmp_path / "place", PROJECT, "production", url, server.address)
        bring_up(place, old, NAMES, at(10))
    before = made.redis_rows(client)
    gone = Place(
        place.folder,
        PROJECT,
        "production",
        f"postgresql+psycopg://esmm:geheim@127.0.0.1:{free_port()}/feast",
        server.address,
    )
    for unreachable in (gone, place):
        with pytest.raises(ServiceError, match=r"feature registry postgresql.*does not answer.*run again") as error:
            bring_up(unreachable, new, NAMES, at(20))
        assert "geheim" not in str(error.value)
    assert made.redis_rows(client) == before
    assert f'"as_of":"{format_utc(at(10))}"' in client.get(STATE).decode()


def test_redis_does_not_answer(tmp_path, old):
    place = made.on_redis(tmp_path / "place", f"127.0.0.1:{free_port()},password=geheim")
    with pytest.raises(ServiceError, match=r"Redis at 127.0.0.1:\d+ does not answer") as error:
        bring_up(place, old, NAMES, at(10))
    assert "geheim" not in str(error.value)


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
@pytest.mark.parametrize("fault", ["truncated", "wrong_type", "column_gone", "empty_file"])
def test_a_broken_table_in_the_source(tmp_path, server, client, old, new, kind, fault):
    """Found before anything is written, also if the view before it is whole."""
    place = (
        made.on_redis(tmp_path / "place", server.address)
        if kind == "redis"
        else Place.of(tmp_path / "place", PROJECT, {})
    )
    bring_up(place, old, NAMES, at(10))
    path = new / "plain/part-0.parquet"
    table = pq.read_table(path)
    if fault == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif fault == "wrong_type":
        pq.write_table(table.set_column(table.column_names.index("a"), "a", table["a"].cast(pa.string())), path)
    elif fault == "column_gone":
        pq.write_table(table.drop_columns(["a"]), path)
    else:
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"plain|cannot be read"):
        bring_up(place, new, NAMES, at(20))
    if kind == "redis":
        assert generations(client) == {1}
        assert client.get(JOURNAL) is None
    else:
        assert event_days(place) == {1}


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_clocks_five_minutes_apart(tmp_path, server, client, kind):
    """A source ahead of us: its rows come in when our as-of has passed them. A source behind: its row says that it was
    known before the watermark; the watermark alone would leave it out for ever, the changed past brings it in."""
    minutes = 1 / (24 * 60)
    place = (
        made.on_redis(tmp_path / "place", server.address)
        if kind == "redis"
        else Place.of(tmp_path / "place", PROJECT, {})
    )

    def values():
        with made.registry.opened(place) as store:
            rows = [{"user_id": user} for user in ("ahead", "behind", "usual")]
            return store.get_online_features(features=["plain:a"], entity_rows=rows).to_dict()["a"]

    usual = [("usual", 9, 9, 1), ("ahead", 9, 9, 1), ("behind", 9, 9, 1)]
    ahead = [*usual, ("ahead", 10 + 4 * minutes, 10 + 5 * minutes, 2), ("usual", 9.5, 10 + 5 * minutes, 2)]
    bring_up(place, write_tables(tmp_path / "t1", {"plain": plain(ahead)}), ("plain",), at(10))
    assert values() == [1, 1, 1]
    behind = [*ahead, ("behind", 10 - 5 * minutes, 10 - 4 * minutes, 2)]
    report = bring_up(place, write_tables(tmp_path / "t2", {"plain": plain(behind)}), ("plain",), at(10 + 6 * minutes))
    assert report.views["plain"].mode == "full"
    assert values() == [2, 2, 2]


def test_an_as_of_ahead_of_the_clock_leaves_nothing_out_later(tmp_path, server, client):
    """What comes in between, stamped before that as-of, is no news to the watermark; it is to the changed past."""
    place = made.on_redis(tmp_path / "place", server.address)
    bring_up(place, write_tables(tmp_path / "t1", {"plain": plain([("u0", 1, 1, 100)])}), ("plain",), at(30))
    later = write_tables(tmp_path / "t2", {"plain": plain([("u0", 1, 1, 100), ("u0", 12, 12, 1200)])})
    report = bring_up(place, later, ("plain",), at(30))
    assert (report.views["plain"].mode, report.views["plain"].written) == ("full", 1)
    with made.registry.opened(place) as store:
        answer = store.get_online_features(features=["plain:a"], entity_rows=[{"user_id": "u0"}])
    assert answer.to_dict()["a"] == [1200]
