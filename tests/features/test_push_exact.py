"""Training sees what serving saw: asked online at known times, and offline at the same times afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from features import pushing
from features.pushing import END, HandClock, copy_shop, event, line, offline, online, opened
from servers import redis_cluster, redis_server

from components.contracts.dataset import FEATURES, read_info, view_names, write_info
from components.contracts.online import Place
from components.contracts.paths import Home
from components.features.materialize import materialize_dataset
from components.features.point_in_time import PointInTime
from pipelines.feature_spec import feature_spec
from serving.lookup import OnlineLookup

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
NOON = END + timedelta(hours=12)
USERS, ITEMS = ("u1", "u2", "never-seen"), ("i1", "i2", "i3", "never-shown")


@pytest.fixture(params=["embedded", "redis", "cluster"])
def shop(request, pushed, tmp_path, monkeypatch):
    data, home = copy_shop(pushed, tmp_path)
    if request.param == "embedded":
        yield data, home
        return
    monkeypatch.setenv("ESMM_PROFILE", "production")
    monkeypatch.setenv("ESMM_REGISTRY", f"sqlite:///{tmp_path}/registry.db")
    with redis_server() if request.param == "redis" else redis_cluster(2) as server:
        monkeypatch.setenv("ESMM_REDIS", server.address if request.param == "redis" else server[0].address)
        monkeypatch.setenv("ESMM_REDIS_TYPE", "redis" if request.param == "redis" else "redis_cluster")
        materialize_dataset(home, data, pushing.KNOWN.isoformat())
        yield data, home


def activity_spec(data):
    return feature_spec(read_info(data), view_names(data))


def served(data, home, at, users, items):
    """What the service's lookup says at `at`: (user, item) -> values."""
    spec = activity_spec(data)
    found = {}
    place = Place.of(home.feast("shop"), "shop")
    lookup = OnlineLookup(place, spec, at.timestamp)
    try:
        context = {"position": [1] * len(items), "hour": [1] * len(items), "device": ["web"] * len(items)}
        for user in users:
            columns = lookup.rows(user, list(items), context).columns
            for number, item in enumerate(items):
                found[user, item] = {f.name: columns[f.name][number] for f in spec.stored}
    finally:
        lookup.close()
    return found


def trained(data, asked):
    """What a point-in-time join says for (time, user, item)."""
    spec = activity_spec(data)
    keys = pa.table(
        {
            "user_id": [row[1] for row in asked],
            "item_id": [row[2] for row in asked],
            "event_timestamp": pa.array([row[0] for row in asked], pa.timestamp("us", tz="UTC")),
        }
    )
    with PointInTime(data / FEATURES, spec) as store:
        return store.join(keys).to_pylist()


def same(left, right):
    nothing = (None, "", float("nan"))
    if left in nothing or left != left:
        return right is None or right != right
    return left == right


def test_training_sees_what_serving_saw(shop):
    data, home = shop
    clock = HandClock(NOON)
    asked, saw = [], []

    def ask():
        clock.time += SECOND
        found = served(data, home, clock.time, USERS, ITEMS)
        for (user, item), values in found.items():
            asked.append((clock.time, user, item))
            saw.append(values)
        for item in ITEMS[:2]:
            by_feast = online(home, "item_activity", item)
            at_once = found[USERS[0], item]
            assert all(same(at_once[name], value) for name, value in by_feast.items())

    ask()
    with opened(data, home, clock) as pusher:
        for batch in (
            [event("impression", "u1", "i1", NOON - 2 * SECOND), event("click", "u1", "i1", NOON - SECOND)],
            [event("click", "never-seen", "never-shown", NOON)],
            [event("conversion", "u1", "i1", NOON - MINUTE), event("click", "u2", "i2", NOON - 100 * MINUTE)],
            [event("click", "u2", "i3", NOON + 2 * MINUTE)],
            [],
        ):
            for one in batch:
                pusher.take(one)
            pusher.flush()
            ask()
            clock.time += MINUTE
        pusher.settle()
        ask()
    found = trained(data, asked)
    assert len(found) == len(saw) == 7 * len(USERS) * len(ITEMS)
    wrong = [
        (asked[n], name, saw[n][name], values[name])
        for n, values in enumerate(found)
        for name in values
        if not same(saw[n][name], values[name])
    ]
    assert not wrong
    clicks = [values["user_clicks_7d"] for values, (_, user, _) in zip(saw, asked, strict=True) if user == "u1"]
    assert len(set(clicks)) == 2


def test_a_row_is_seen_from_the_moment_it_was_created(pushed, tmp_path):
    data, home = copy_shop(pushed, tmp_path)
    before = online(home, "user_activity", "u1")["user_clicks_7d"]
    with opened(data, home, HandClock(NOON)) as pusher:
        pusher.take(event("click", "u1", "i1", NOON - SECOND))
        done = pusher.flush()
    created = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=done.created)
    found = trained(data, [(created - timedelta(microseconds=1), "u1", "i1"), (created, "u1", "i1")])
    assert [row["user_clicks_7d"] for row in found] == [before, before + 1]


def test_a_recording_is_pushed_alike_however_fast_it_comes(pushed, tmp_path):
    found = []
    for name, size in (("one", 1), ("all", 100)):
        data, home = copy_shop(pushed, tmp_path / name)
        write_info(data, read_info(data).model_copy(update={"clock": "frozen"}))
        lines = [line("click", f"u{n % 4}", "i1", NOON + n * timedelta(seconds=0.1)) for n in range(20)]
        with opened(data, home, None) as pusher:
            for start in range(0, len(lines), size):
                for text in lines[start : start + size]:
                    assert pusher.take_line(text) is None
                if size > 1:
                    pusher.flush()
        rows = offline(data, "user_activity")
        found.append(sorted(rows, key=lambda row: (row["event_timestamp"], row["user_id"])))
        assert pusher.counts.pushes == 10
    assert found[0] == found[1]


class Esmm:
    """`esmm activity push` as a process."""

    def __init__(self, data, home, *arguments):
        command = [sys.executable, "-m", "pipelines", "--home", home.root, "activity", "push", "--data", data]
        self.process = subprocess.Popen(
            [str(part) for part in (*command, *arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip

    def started(self):
        for text in self.process.stderr:
            if text.startswith("pushing"):
                return self
        raise AssertionError(self.process.stdout.read())

    def send(self, text):
        self.process.stdin.write(text)
        self.process.stdin.flush()

    def end(self, number=None):
        if number is not None:
            self.process.send_signal(number)
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, err
        return out


def test_the_command_counts_within_a_second_and_ends_in_order(pushed, tmp_path):
    data, home = copy_shop(pushed, tmp_path)
    command = Esmm(data, home).started()
    now = datetime.now(UTC)
    command.send(line("click", "live-user", "live-item", now))
    sent = time.monotonic()
    while online(home, "item_activity", "live-item")["item_clicks_7d"] is None:
        assert time.monotonic() - sent < 20
    took = time.monotonic() - sent
    command.send("nonsense\n" + line("click", "live-user", "live-item", datetime.now(UTC)))
    time.sleep(0.1)
    out = command.end(signal.SIGTERM)
    assert "3 lines: 2 events counted" in out
    assert "refused: 1 lines, is no JSON" in out
    rows = sorted(offline(data, "item_activity"), key=lambda row: row["event_timestamp"])
    assert [row["item_clicks_7d"] for row in rows] == [1, 2]
    # A second on a machine that does nothing else; `esmm bench push` measures.
    assert took < 10


@pytest.mark.slow
def test_kills_at_any_moment_lose_and_double_nothing(pushed, tmp_path):
    data, home = copy_shop(pushed, tmp_path)
    write_info(data, read_info(data).model_copy(update={"clock": "frozen"}))
    file = tmp_path / "events.jsonl"
    sent = 500
    file.write_text("".join(line("click", f"u{n % 9}", "the-item", NOON + n * SECOND) for n in range(sent)))
    for delay in (0.05, 0.2, 0.5, 1.0):
        command = Esmm(data, home, "--events", file).started()
        time.sleep(delay)
        command.process.kill()
        command.process.communicate()
    out = Esmm(data, home, "--events", file).end()
    assert f"{sent} lines" in out
    assert online(home, "item_activity", "the-item")["item_clicks_7d"] == sent
    for view, side in pushing.SIDES.items():
        rows = offline(data, view)
        keys = [(row[f"{side}_id"], row["event_timestamp"]) for row in rows]
        assert len(keys) == len(set(keys))
        assert all(row["created"] >= row["event_timestamp"] for row in rows)
    kept = [row for part in (data / "activity" / "events").glob("*.parquet") for row in pq.read_table(part).to_pylist()]
    assert len(kept) == sent
    assert isinstance(home, Home)
