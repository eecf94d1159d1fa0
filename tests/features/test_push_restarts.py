"""A pusher that dies or starts again: no event is lost, none counted twice, and what it keeps stays small."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from features import pushing
from features.pushing import DAY, MINUTE, NOON, SECOND, HandClock, counted, event, offline, online, opened

from components.contracts.errors import CorruptArtifact, ServiceError
from components.contracts.locks import exclusive
from components.features.activity import online as push_online
from components.features.activity import tables as push_tables


@pytest.mark.parametrize("moment_", ["before online", "between views", "after online"])
def test_a_restart_loses_nothing(shop, monkeypatch, moment_):
    data, home = shop
    clock = HandClock(NOON)
    sent = [event("click", "u3", "i5", NOON - SECOND), event("conversion", "u3", "i5", NOON - SECOND)]
    write, seen = push_online.SqliteOnline.write, []

    def fails(self, view, rows):
        if moment_ != "after online" and len(seen) == (moment_ == "between views"):
            raise ServiceError("gone")
        seen.append(view)
        write(self, view, rows)

    monkeypatch.setattr(push_online.SqliteOnline, "write", fails)

    def push_and_die():
        with opened(data, home, clock) as pusher:
            for one in sent:
                pusher.take(one)
            pusher.flush()
            raise KeyboardInterrupt

    with pytest.raises((ServiceError, KeyboardInterrupt)):
        push_and_die()
    monkeypatch.undo()
    assert not offline(data, "user_activity")
    clock.time += MINUTE
    restarted = clock.time
    with opened(data, home, clock) as pusher:
        assert pusher.counts.recovered == 2
        for one in sent:
            pusher.take(one)
        assert pusher.flush() is None
        assert pusher.counts.duplicates == 2
    for view, key in (("user_activity", "u3"), ("item_activity", "i5")):
        assert online(home, view, key) == counted(data, view, key, NOON, sent)
        (row,) = offline(data, view)
        assert (row["created"] > restarted) == (moment_ != "after online")
    with opened(data, home, clock) as pusher:
        assert pusher.counts.recovered == 0


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_kill_while_rows_go_offline_doubles_none(shop, monkeypatch, step):
    data, home = shop
    append, done = push_tables.append_rows, []

    def fails(folder, rows):
        if len(done) == step:
            raise KeyboardInterrupt
        done.append(folder)
        append(folder, rows)

    def push_and_die():
        with opened(data, home, HandClock(NOON)) as pusher:
            pusher.take(event("click", "u3", "i5", NOON - SECOND))
            pusher.flush()
            monkeypatch.setattr(push_tables, "append_rows", fails)
            pusher.settle()

    with pytest.raises(KeyboardInterrupt):
        push_and_die()
    monkeypatch.undo()
    with opened(data, home, HandClock(NOON + MINUTE)):
        pass
    assert [len(offline(data, view)) for view in pushing.SIDES] == [1, 1]
    events = sorted((data / "activity" / "events").glob("push-*"))
    assert sum(pq.read_metadata(file).num_rows for file in events) == 1


def test_a_torn_last_line_of_the_journal_is_not_acted_on(shop):
    data, home = shop
    with pushing.killed(opened(data, home, HandClock(NOON))) as pusher:
        pusher.take(event("click", "u3", "i5", NOON - SECOND))
        pusher.flush()
    pending = data / "activity" / "pending.jsonl"
    pending.write_text(pending.read_text() + '{"stamp":17')
    with opened(data, home, HandClock(NOON)) as pusher:
        assert pusher.counts.recovered == 1
    pending.write_text('{"stamp":17\n{"held":[]}\n')
    with pytest.raises(CorruptArtifact, match="line 1 is not what"), opened(data, home, HandClock(NOON)):
        pass


def test_small_files_are_put_together_and_no_row_is_lost(shop, monkeypatch):
    data, home = shop
    monkeypatch.setattr(push_tables, "COMPACT_FILES", 4)
    monkeypatch.setattr(push_tables.compact, "__defaults__", (4, None))
    clock, sent = HandClock(NOON), []
    with opened(data, home, clock) as pusher:
        for number in range(10):
            clock.time += MINUTE
            sent.append(event("click", f"u{number}", "i5", clock.time - SECOND))
            pusher.take(sent[-1])
            pusher.flush()
            with exclusive(home.lock, "a run"):
                pusher.settle()
        table = data / "features" / "item_activity"
        assert len(list(table.glob("push-*"))) == 10, "a run was reading"
        before = sorted(offline(data, "item_activity"), key=lambda row: row["event_timestamp"])
        clock.time += MINUTE
        pusher.take(event("click", "u1", "i6", clock.time - SECOND))
        pusher.flush()
        pusher.settle()
        assert len(list(table.glob("push-*"))) == 1
    after = sorted(offline(data, "item_activity"), key=lambda row: row["event_timestamp"])
    assert [row for row in after if row["item_id"] == "i5"] == before
    with opened(data, home, clock) as pusher:
        for one in sent:
            pusher.take(one)
        assert pusher.flush() is None


def test_events_that_count_no_more_leave_the_journal(shop, monkeypatch):
    data, home = shop
    monkeypatch.setattr(push_tables.compact, "__defaults__", (2, None))
    clock = HandClock(NOON)
    with opened(data, home, clock) as pusher:
        for _ in range(3):
            pusher.take(event("click", "u3", "i5", clock.time - SECOND))
            pusher.flush()
            pusher.settle()
            clock.time += 5 * DAY
    kept = [row for file in (data / "activity" / "events").glob("push-*") for row in pq.read_table(file).to_pylist()]
    assert len(kept) == 2
    assert all(row["event_timestamp"] > NOON for row in kept)


def test_what_a_crash_left_twice_is_put_together_once(shop):
    data, _ = shop
    table = data / "features" / "item_activity"
    rows = pq.read_table(table).slice(0, 3)
    file = push_tables.append(table, rows)
    copy = file.with_name(file.name.replace("-", "-", 1).replace(file.stem.split("-")[-1], "ab"))
    copy.write_bytes(file.read_bytes())
    assert push_tables.compact(table, files=2) == 2
    assert len(offline(data, "item_activity")) == 3
