"""Materialization: this one against Feast's `materialize_incremental` at its default settings, to Redis; to SQLite too.

One view of 8 floats, a row a day for each key; the newest has to be online. Each contender starts from Parquet and ends
with the values in an empty store; it runs in a process of its own, so that peak memory is its own, and the seconds are
taken inside it, imports left out. What is in Redis afterwards is compared byte by byte.

- `ours`: `bring_up`, all of it: copying and checking the tables, the registry, the values, the watermark.
- `feast`: `materialize_incremental` with Feast's DuckDB offline store, the registry applied before the clock starts.
- `ours_sqlite`: `bring_up` to the embedded profile's SQLite.

    esmm bench materialize [--json]
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb

from benchmarks.figures import Figures, Ratios, figure, peak_mb, show
from benchmarks.redis_server import redis_server

ROUNDS, KEYS, FLOATS, DAYS = 7, 200_000, 8, 2
PROJECT, VIEW = "benchmark", "bench_view"
AS_OF = datetime(2026, 1, 1 + DAYS, tzinfo=UTC)
NAMES = tuple(f"f{number}" for number in range(FLOATS))


def materialize_figures(rounds: int = ROUNDS, keys: int = KEYS) -> tuple[Figures, Ratios]:
    """Seconds and peak MB of each, in turns, after one round that does not count; ratios to `materialize_incremental`.

    Raises:
        SystemExit: a contender failed, or left other bytes in Redis.
    """
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as scratch, redis_server() as (address, client):
        write(Path(scratch) / "tables", keys)
        for turn in range(rounds + 1):
            sums = {}
            for name in CONTENDERS:
                client.flushall()
                run = _in_a_process(name, Path(scratch), address)
                if name in ("ours", "feast"):
                    sums[name] = stored(client)
                if turn:
                    found[name].append(run)
            if len(set(sums.values())) > 1:
                raise SystemExit("the contenders left different bytes in Redis: the times mean nothing")
    figures = {
        f"{name}_{unit}": figure([run[key] for run in runs])
        for name, runs in found.items()
        for unit, key in (("s", "seconds"), ("peak_mb", "peak_mb"))
    }
    return figures, {
        "materialize_vs_feast": figures["feast_s"]["median"] / figures["ours_s"]["median"],
        "materialize_memory_vs_feast": figures["feast_peak_mb"]["median"] / figures["ours_peak_mb"]["median"],
    }


def write(folder: Path, keys: int) -> None:
    (folder / VIEW).mkdir(parents=True)
    floats = ", ".join(f"random() AS {name}" for name in NAMES)
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'; SET threads = 1; SELECT setseed(0.5)")
        db.execute(
            f"COPY (SELECT 'i' || k AS item_id, {floats}, TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_days(d::INTEGER) "
            f"+ to_milliseconds(k % 1000) AS event_timestamp, event_timestamp AS created "
            f"FROM range({DAYS}) t(d), range({keys}) u(k) ORDER BY event_timestamp) "
            f"TO '{folder / VIEW / 'part-0.parquet'}' (FORMAT parquet)"
        )


def stored(client: Any) -> tuple[int, str]:
    """How many entities Redis holds, and a hash of every key, field and value of theirs."""
    keys = sorted(key for key in client.scan_iter(count=10_000) if not key.startswith(b"esmm:"))
    digest = hashlib.sha256()
    for first in range(0, len(keys), 5_000):
        part = keys[first : first + 5_000]
        pipe = client.pipeline(transaction=False)
        for key in part:
            pipe.hgetall(key)
        for key, fields in zip(part, pipe.execute(), strict=True):
            digest.update(repr((key, sorted(fields.items()))).encode())
    return len(keys), digest.hexdigest()


def ours(folder: Path, address: str) -> Callable[[], object]:
    from components.contracts.online import Place

    state = Path(tempfile.mkdtemp(dir=folder))
    place = Place(state, PROJECT, "production", f"sqlite:///{state / 'registry.db'}", address)
    return _bring_up(place, folder)


def ours_sqlite(folder: Path, address: str) -> Callable[[], object]:
    from components.contracts.online import Place

    return _bring_up(Place.of(Path(tempfile.mkdtemp(dir=folder)), PROJECT, {}), folder)


def _bring_up(place: Any, folder: Path) -> Callable[[], object]:
    from feast.types import Float64

    from components.features.online.bring_up import bring_up
    from feature_repo import declare, views
    from feature_repo.entities import ITEM

    fields = (declare.field(name, Float64, encoding="bucket") for name in NAMES)
    views.VIEWS = (declare.view(VIEW, ITEM, timedelta(days=365), *fields),)
    return lambda: bring_up(place, folder / "tables", (VIEW,), AS_OF)


def feast(folder: Path, address: str) -> Callable[[], object]:
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, String

    state = Path(tempfile.mkdtemp(dir=folder))
    config = RepoConfig(
        project=PROJECT, provider="local", registry=str(state / "registry.db"), offline_store={"type": "duckdb"},
        online_store={"type": "redis", "connection_string": address}, entity_key_serialization_version=3,
    )  # fmt: skip
    item = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING)
    view = FeatureView(
        name=VIEW,
        entities=[item],
        ttl=timedelta(days=3_650),
        schema=[Field(name="item_id", dtype=String), *(Field(name=name, dtype=Float64) for name in NAMES)],
        source=FileSource(
            name="rows",
            path=str(folder / "tables" / VIEW / "part-0.parquet"),
            timestamp_field="event_timestamp",
            created_timestamp_column="created",
        ),
    )
    store = FeatureStore(config=config)
    store.apply([item, view])
    return lambda: store.materialize_incremental(AS_OF)


CONTENDERS: dict[str, Callable[[Path, str], Callable[[], object]]] = {
    "ours": ours, "feast": feast, "ours_sqlite": ours_sqlite,
}  # fmt: skip


def _in_a_process(name: str, folder: Path, address: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.materialize", name, str(folder), address]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed: {done.stderr.strip()[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _contend(name: str, folder: Path, address: str) -> None:
    warnings.simplefilter("ignore")
    work = CONTENDERS[name](folder, address)
    started = time.perf_counter()
    work()
    print(json.dumps({"seconds": time.perf_counter() - started, "peak_mb": peak_mb()}))


def main(as_json: bool, rounds: int = ROUNDS) -> None:
    title = f"{KEYS:,} keys x {FLOATS} floats, {DAYS} rows a key, {rounds} rounds; Redis unless it says SQLite"
    show(title, *materialize_figures(rounds), as_json)


if __name__ == "__main__":
    # One contender in a process of its own.
    _contend(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
