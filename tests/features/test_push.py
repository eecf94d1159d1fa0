"""Events in, rows out: each event once, when it happened."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from features import pushing
from features.pushing import (
    DAY,
    END,
    MINUTE,
    NOON,
    SECOND,
    HandClock,
    counted,
    event,
    line,
    offline,
    online,
    opened,
    us,
)

from components.contracts.errors import Busy, UsageError
from components.features.materialize import materialize_dataset


def moment(microseconds):
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)


def test_a_click_counts_at_once(shop):
    data, home = shop
    shown, click = event("impression", "u3", "i5", NOON - MINUTE), event("click", "u3", "i5", NOON - SECOND)
    with opened(data, home, HandClock(NOON)) as pusher:
        pusher.take(shown)
        pusher.take(click)
        done = pusher.flush()
        assert online(home, "item_activity", "i5") == counted(data, "item_activity", "i5", NOON, [shown, click])
        assert online(home, "user_activity", "u3") == counted(data, "user_activity", "u3", NOON, [shown, click])
        assert not offline(data, "item_activity")
    (row,) = offline(data, "item_activity")
    assert (us(row["event_timestamp"]), us(row["created"])) == (done.stamp, done.created)
    assert done.stamp < done.created
    assert (pusher.counts.counted, pusher.counts.rows, pusher.counts.pushes) == (2, 2, 1)


def test_who_was_never_seen_gets_a_row(shop):
    data, home = shop
    with opened(data, home, HandClock(NOON)) as pusher:
        pusher.take(event("click", "new-user", "new-item", NOON - SECOND))
        pusher.flush()
    expected = {"user_impressions_7d": 0, "user_clicks_7d": 1, "user_conversions_7d": 0, "user_ctr_7d": None}
    assert online(home, "user_activity", "new-user") == expected


def test_all_rows_are_what_the_batch_path_would_count(shop):
    data, home = shop
    clock, sent = HandClock(END), []
    with opened(data, home, clock) as pusher:
        for number in range(60):
            clock.time += timedelta(hours=5)
            one = event(("impression", "click", "conversion")[number % 3], f"u{number % 7}", f"i{number % 5}",
                        clock.time - timedelta(hours=number % 11))  # fmt: skip
            sent.append(one)
            pusher.take(one)
            if number % 4 == 3:
                pusher.flush()
    rows = [(view, row) for view in pushing.SIDES for row in offline(data, view)]
    assert len(rows) == pusher.counts.rows > 60
    for view, row in rows:
        key = row[f"{pushing.SIDES[view]}_id"]
        known = [one for one in sent if one.time < us(row["event_timestamp"])]
        by_hand = counted(data, view, key, row["event_timestamp"], known)
        assert {name: row[name] for name in by_hand} == by_hand


def test_an_event_is_counted_once(shop):
    data, home = shop
    one = event("click", "u3", "i5", NOON - SECOND)
    (last,) = max((data / "log").glob("*")).glob("*.parquet")
    logged = pq.read_table(last).to_pylist()[0]
    with opened(data, home, HandClock(NOON)) as pusher:
        for _ in range(3):
            pusher.take(one)
        pusher.flush()
        pusher.take(one)
        pusher.take(event("impression", logged["user_id"], logged["item_id"], logged["event_timestamp"]))
        assert pusher.flush() is None
        assert (pusher.counts.counted, pusher.counts.duplicates) == (1, 4)
        pusher.take(one._replace(time=one.time + 1))
        pusher.take(one._replace(kind="impressions"))
        pusher.flush()
        assert pusher.counts.counted == 3


def test_a_late_event_counts_when_it_happened(shop):
    data, home = shop
    clock = HandClock(NOON)
    first, late = event("click", "u3", "i5", NOON - SECOND), event("click", "u3", "i5", NOON - 6 * DAY)
    with opened(data, home, clock) as pusher:
        pusher.take(first)
        pusher.flush()
        pusher.take(late)
        pusher.flush()
        assert online(home, "user_activity", "u3") == counted(data, "user_activity", "u3", NOON, [first, late])
        clock.time += 2 * DAY
        pusher.take(again := event("click", "u3", "i5", clock.time - SECOND))
        stamp = moment(pusher.flush().stamp)
        assert online(home, "user_activity", "u3") == counted(data, "user_activity", "u3", stamp, [first, late, again])


def test_an_event_older_than_the_window_changes_nothing_and_is_told(shop):
    data, home = shop
    with opened(data, home, HandClock(NOON)) as pusher:
        pusher.take(event("click", "u3", "i5", NOON - 8 * DAY))
        assert pusher.flush() is None
        assert pusher.counts.outdated == 1


def test_clocks_five_minutes_apart(shop):
    """Events from a clock that is ahead wait for ours, over a restart too: no row speaks of what is still to come."""
    data, home = shop
    clock = HandClock(NOON)
    ahead = event("click", "u3", "i5", NOON + 5 * MINUTE)
    before = online(home, "user_activity", "u3")
    with pushing.killed(opened(data, home, clock)) as pusher:
        pusher.take(ahead)
        assert pusher.flush() is None
        assert (pusher.waiting, pusher.counts.early) == (1, 1)
    clock.time += 4 * MINUTE
    with opened(data, home, clock) as pusher:
        assert pusher.counts.recovered == 1
        assert pusher.flush() is None
        assert online(home, "user_activity", "u3") == before
        clock.time += MINUTE
        done = pusher.flush()
        assert done.stamp > ahead.time
        stamp = moment(done.stamp)
        assert online(home, "user_activity", "u3") == counted(data, "user_activity", "u3", stamp, [ahead])
        assert pusher.waiting == 0


def test_an_event_of_next_year_is_refused(shop):
    data, home = shop
    with opened(data, home, HandClock(NOON)) as pusher:
        reason = pusher.take_line(line("click", "u3", "i5", NOON + 365 * DAY))
    assert reason == "is more than 600 seconds ahead of the clock"
    assert pusher.counts.refused == {reason: 1}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{", "is no JSON"),
        ("[1]", "is no JSON object"),
        ('{"event": "view"}', "has no event of impression, click, conversion"),
        ('{"event": "click", "user_id": 1.5}', "has no user_id that is a string or an integer"),
        ('{"event": "click", "user_id": "u1", "item_id": ""}', "has no item_id that is a string or an integer"),
        ('{"event": "click", "user_id": "u1", "item_id": "i1", "time": 17}', "has no time in ISO-8601"),
        ('{"event": "click", "user_id": "u1", "item_id": "i1", "time": "noon"}', "has no time in ISO-8601"),
    ],
)
def test_a_line_that_is_no_event_is_counted_and_kept(shop, bad, reason):
    data, home = shop
    with opened(data, home, HandClock(NOON)) as pusher:
        assert pusher.take_line(bad + "\n") == reason
        assert pusher.take_line("\n") is None
    assert pusher.counts.refused == {reason: 1}
    assert reason in (data / "activity" / "refused.jsonl").read_text()


def test_integers_are_ids_and_other_zones_are_times(shop):
    data, home = shop
    with opened(data, home, HandClock(NOON)) as pusher:
        given = '{"event": "click", "user_id": 7, "item_id": "i1", "time": "2026-01-14T12:59:59+01:00", "more": 1}'
        assert pusher.take_line(given) is None
        (taken,) = pusher.flush().events
    assert taken == ("clicks", "7", "i1", us(NOON - SECOND))


def test_a_clock_set_back_never_takes_a_value_back(shop):
    data, home = shop
    clock = HandClock(NOON)
    sent = [event("click", "u3", "i5", NOON - n * SECOND) for n in (1, 20, 3)]
    with opened(data, home, clock) as pusher:
        pusher.take(sent[0])
        first = pusher.flush()
        clock.time = NOON - 10 * SECOND
        pusher.take(sent[1])
        second = pusher.flush()
        assert first.stamp < second.stamp <= second.created
        assert online(home, "user_activity", "u3") == counted(data, "user_activity", "u3", NOON, sent[:2])
        pusher.take(sent[2])
        assert pusher.flush() is None, "its time has not come by the clock that was set back"
        clock.time = NOON + SECOND
        pusher.flush()
        assert online(home, "user_activity", "u3") == counted(data, "user_activity", "u3", NOON, sent)


def test_a_materialization_takes_no_push_back(shop):
    data, home = shop
    clock = HandClock(NOON)
    one = event("click", "u3", "i5", NOON - SECOND)
    with opened(data, home, clock) as pusher:
        pusher.take(one)
        pusher.flush()
        expected = counted(data, "user_activity", "u3", NOON, [one])
        for full, as_of in ((False, pushing.KNOWN + MINUTE), (True, NOON), (True, NOON + MINUTE)):
            materialize_dataset(home, data, as_of.isoformat(), full)
            assert online(home, "user_activity", "u3") == expected
            pusher.flush()
            assert online(home, "user_activity", "u3") == expected


def test_rows_that_a_materialization_did_put_back_are_written_again(shop):
    data, home = shop
    clock = HandClock(NOON)
    one = event("click", "u3", "i5", NOON - SECOND)
    with opened(data, home, clock) as pusher:
        pusher.take(one)
        pusher.flush()
        expected = counted(data, "user_activity", "u3", NOON, [one])
        path = home.feast("shop") / "online.db"
        with sqlite3.connect(path) as db:
            db.execute("DELETE FROM shop_user_activity")
        assert online(home, "user_activity", "u3") != expected
        pusher.flush()
        assert online(home, "user_activity", "u3") != expected, "nobody said that anything changed"
        materialize_dataset(home, data, NOON.isoformat())
        with sqlite3.connect(path) as db:
            db.execute("DELETE FROM shop_user_activity")
        pusher.flush()
        assert online(home, "user_activity", "u3") == expected


def test_only_one_pusher_at_a_time(shop):
    data, home = shop
    with opened(data, home, HandClock(NOON)), pytest.raises(Busy, match="pushing activity of 'shop'"):
        opened(data, home, HandClock(NOON)).__enter__()


def test_the_views_that_there_are_are_pushed(shop):
    data, home = shop
    for file in (data / "features" / "user_activity").glob("*"):
        file.unlink()
    with opened(data, home, HandClock(NOON)) as pusher:
        pusher.take(event("click", "u3", "i5", NOON - SECOND))
        assert list(pusher.flush().rows) == ["item_activity"]
    for file in (data / "features" / "item_activity").glob("*"):
        file.unlink()
    with pytest.raises(UsageError, match="make them with `esmm activity build"), opened(data, home, HandClock(NOON)):
        pass


def test_what_nobody_would_read_is_not_pushed(shop, tmp_path):
    data, _ = shop
    from components.contracts.paths import Home

    with (
        pytest.raises(UsageError, match="esmm materialize"),
        opened(data, Home(tmp_path / "other"), HandClock(NOON)),
    ):
        pass


def test_columns_that_are_no_features_stay_null(shop):
    data, home = shop
    with opened(data, home, HandClock(NOON)) as pusher:
        pusher.take(event("click", "u3", "i5", NOON - SECOND))
        pusher.flush()
    (row,) = offline(data, "user_activity")
    assert row["user_sessions_7d"] is None
    table: Path = data / "features" / "user_activity"
    assert len({tuple(pq.read_schema(file).names) for file in table.glob("*.parquet")}) == 1
