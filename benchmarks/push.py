"""`esmm bench push`: from an event line written to `esmm activity push` until its count is read online.

The command runs as a process of its own on a simulated shop (200,000 impressions), with its default settings. A hundred
events a second come in; among them, now and then, a click on an item that nobody knows, whose row is then looked for
every two milliseconds in the store itself: SQLite, and a real Redis. Beside it how many events a second it takes when
they come as fast as they can.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from benchmarks.figures import Figures, figure, show
from benchmarks.redis_server import redis_server
from components.contracts import layout
from components.contracts.dataset import read_info, write_info
from components.contracts.online import ONLINE
from components.contracts.paths import Home

ROUNDS, PROBES = 7, 15
RATE = 100
"""Events a second beside the probes."""
FLOOD = 20_000
EVERY_SECONDS = 0.002
GIVE_UP_SECONDS = 30.0
VIEW, PROJECT = "item_activity", "shop"

Seen = Callable[[str], bool]
"""Whether an item has a row online."""


def main(as_json: bool) -> None:
    figures: Figures = {}
    with tempfile.TemporaryDirectory(prefix="bench-push-") as folder:
        data = Path(folder) / "shop"
        _make(data)
        for name, store in (("sqlite", _sqlite), ("redis", _on_redis)):
            with store(Path(folder) / name, data) as (environment, seen):
                figures |= {f"{name}_{what}": found for what, found in _measure(data, environment, seen).items()}
    show("push: event line in to count readable online, and events a second", figures, {}, as_json)


def _make(data: Path) -> None:
    from components.ingestion.sources.simulator import SimulatorConfig, simulate

    start = (datetime.now(UTC) - timedelta(days=8)).strftime("%Y-%m-%dT00:00:00Z")
    simulate(SimulatorConfig(days=8, impressions=200_000, start=start), data)
    write_info(data, read_info(data).model_copy(update={"clock": "wall"}))


@contextmanager
def _sqlite(home: Path, data: Path) -> Iterator[tuple[dict[str, str], Seen]]:
    environment = {**os.environ, "ESMM_HOME": str(home)}
    _run(environment, "materialize", "--data", data)
    table = layout.sqlite_table(PROJECT, VIEW)
    with closing(sqlite3.connect(Home(home).feast(PROJECT) / ONLINE, timeout=GIVE_UP_SECONDS)) as db:
        query = f"SELECT 1 FROM {table} WHERE entity_key = ? LIMIT 1"
        yield environment, lambda item: bool(db.execute(query, [layout.entity_key("item_id", item)]).fetchall())


@contextmanager
def _on_redis(home: Path, data: Path) -> Iterator[tuple[dict[str, str], Seen]]:
    with redis_server() as (address, client):
        environment = {
            **os.environ, "ESMM_HOME": str(home), "ESMM_PROFILE": "production", "ESMM_REDIS": address,
            "ESMM_REGISTRY": f"sqlite:///{home}.db",
        }  # fmt: skip
        _run(environment, "materialize", "--data", data)
        field = layout.redis_time_field(VIEW)
        yield environment, lambda item: bool(client.hexists(layout.redis_key(PROJECT, "item_id", item), field))


def _measure(data: Path, environment: dict[str, str], seen: Seen) -> Figures:
    with _pushing(environment, data) as process:
        assert process.stdin is not None
        pipe, lock, done = process.stdin, threading.Lock(), threading.Event()
        tag = f"{time.time_ns()}"

        def send(user: str, item: str) -> None:
            text = json.dumps(
                {"event": "click", "user_id": user, "item_id": item, "time": datetime.now(UTC).isoformat()}
            )
            with lock:
                pipe.write(text + "\n")
                pipe.flush()

        def traffic() -> None:
            while not done.wait(1 / RATE):
                send(f"u{random.randrange(2_000)}", f"i{random.randrange(1_500)}")

        beside = threading.Thread(target=traffic)
        beside.start()
        rounds = []
        for number in range(ROUNDS):
            rounds.append([_probe(send, seen, f"probe-{tag}-{number}-{probe}") for probe in range(PROBES)])
        done.set()
        beside.join()
        started = time.monotonic()
        for number in range(FLOOD):
            send(f"u{number % 2_000}", f"i{number % 1_500}")
        send("u0", last := f"probe-{tag}-last")
        _wait(seen, last, started)
        rate = FLOOD / (time.monotonic() - started)
    every = sorted(value for each in rounds for value in each)
    return {
        "p50_ms": figure([statistics.median(each) for each in rounds]),
        "p99_ms": figure([every[int(0.99 * len(every))]]),
        "events_per_s": figure([rate]),
    }


def _probe(send: Callable[[str, str], None], seen: Seen, item: str) -> float:
    """Milliseconds until the item's row is there."""
    time.sleep(random.uniform(0.05, 0.3))
    started = time.monotonic()
    send("u0", item)
    return _wait(seen, item, started) * 1e3


def _wait(seen: Seen, item: str, started: float) -> float:
    while not seen(item):
        if time.monotonic() - started > GIVE_UP_SECONDS:
            raise TimeoutError(f"{item} was not online {GIVE_UP_SECONDS:.0f} s after it was pushed")
        time.sleep(EVERY_SECONDS)
    return time.monotonic() - started


@contextmanager
def _pushing(environment: dict[str, str], data: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "pipelines", "activity", "push", "--data", str(data)]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            while not (line := process.stderr.readline()).startswith("pushing"):
                if not line:
                    raise RuntimeError("`esmm activity push` did not start")
            yield process
        finally:
            assert process.stdin is not None
            process.stdin.close()
            process.wait(timeout=60)


def _run(environment: dict[str, str], *arguments: object) -> None:
    command = [sys.executable, "-m", "pipelines", *map(str, arguments)]
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
