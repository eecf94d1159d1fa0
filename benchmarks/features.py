"""Features at a point in time: this offline store against Feast's own and against a join by hand.

Three views with 20 features between them, a version a day. Each contender starts from the impressions and the views in
Parquet and ends with a Parquet file; it runs in a process of its own, so that peak memory is its own, and the seconds
are taken inside it, imports and the registry left out. All apply the same rules: the newest version stamped and created
by then, within the time to live.

- `offline`: this store, `to_parquet`. Keeps the order of the rows and would see late backfills and ties through.
- `handwritten`: ASOF joins in DuckDB as one writes them knowing that this data has neither, in whatever order.
- `feast_duckdb`: Feast's DuckDB store: a pandas frame in, an Arrow table out, written by pyarrow.
- `feast_dask`: Feast's default store, on fewer rows and only if asked for, since it takes minutes; it loses rows.

    esmm bench features [--json] [--full]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from benchmarks.figures import Figures, Ratios, figure, peak_mb, show

ROUNDS, DAYS, DASK_ROWS = 7, 30, 200_000


@dataclass(frozen=True)
class Size:
    rows: int
    users: int
    items: int
    versions: int
    """A key, over `DAYS` days."""


DAILY = Size(rows=1_000_000, users=50_000, items=10_000, versions=DAYS)
TENFOLD = Size(rows=10_000_000, users=50_000, items=10_000, versions=DAYS)
TWENTYFOLD = Size(rows=20_000_000, users=50_000, items=10_000, versions=DAYS)
SHALLOW = Size(rows=1_000_000, users=50_000, items=10_000, versions=3)
DEEP = Size(rows=100_000, users=5_000, items=1_000, versions=300)
"""Fewer rows: Feast's store looks at all versions of a row's key, up to 300 here."""

INT, FLOAT, TEXT = "(random() * 1000)::BIGINT", "random()", "'c' || (random() * 50)::INTEGER"
VIEWS: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "user_activity": ("user_id", 7, (INT, INT, INT, INT, FLOAT, FLOAT, FLOAT)),
    "user_profile": ("user_id", 365, (TEXT, TEXT, INT, INT, FLOAT, FLOAT)),
    "item_activity": ("item_id", 7, (INT, INT, INT, FLOAT, FLOAT, FLOAT, TEXT)),
}
"""Key, time to live in days, and how each feature is drawn."""
NEW_KEYS = 5
ENTITIES, RESULT = "entities.parquet", "result.parquet"


def feature_figures(
    rounds: int = ROUNDS, dask_rows: int = 0, tenfold: bool = False, daily: Size = DAILY, shallow: Size = SHALLOW,
    deep: Size = DEEP,
) -> tuple[Figures, Ratios]:  # fmt: skip
    """Seconds and peak MB by history and contender, in turns, after one round that does not count.

    Args:
        dask_rows: entity rows for Feast's default store, once; 0 leaves it out.
        tenfold: this store alone on twenty and ten times the rows too, once, and on the usual ones just before.

    Returns:
        Figures by name, and the ratios: their median seconds over ours.

    Raises:
        SystemExit: a contender's values differ from this store's.
    """
    figures: Figures = {}
    ratios: Ratios = {}
    both = ("offline", "feast_duckdb")
    sizes: dict[str, tuple[Size, tuple[str, ...]]] = {
        "1m": (daily, (*both, "handwritten")), "shallow": (shallow, both), "deep": (deep, both),
    }  # fmt: skip
    for label, (size, names) in sizes.items():
        found = _in_turns(size, names, rounds)
        for name, runs in found.items():
            figures[f"{label}_{name}_s"] = figure([run["seconds"] for run in runs])
            figures[f"{label}_{name}_peak_mb"] = figure([run["peak_mb"] for run in runs])
        for name in names[1:]:
            theirs, ours = figures[f"{label}_{name}_s"]["median"], figures[f"{label}_offline_s"]["median"]
            ratios[f"offline_vs_{name}_{label}"] = theirs / ours
    if tenfold:
        once = figure([run["seconds"] for run in _in_turns(daily, ("offline",), 3)["offline"]])["median"]
        for label, size in (("20m", TWENTYFOLD), ("10m", TENFOLD)):
            (run,) = _in_turns(size, ("offline",), 1, warm=False)["offline"]
            figures |= {
                f"{label}_offline_s": figure([run["seconds"]]),
                f"{label}_offline_peak_mb": figure([run["peak_mb"]]),
            }
        ratios["offline_1m_times_ten_vs_10m"] = 10 * once / run["seconds"]
    if dask_rows:
        size = Size(dask_rows, DAILY.users, DAILY.items, DAILY.versions)
        pair = {name: runs[0] for name, runs in _in_turns(size, ("offline", "feast_dask"), 1, warm=False).items()}
        for name, run in pair.items():
            figures |= {f"{dask_rows}_{name}_{key}": figure([run[key]]) for key in ("seconds", "peak_mb", "rows")}
        ratios[f"offline_vs_feast_dask_{dask_rows}"] = pair["feast_dask"]["seconds"] / pair["offline"]["seconds"]
    return figures, ratios


def _in_turns(size: Size, names: tuple[str, ...], rounds: int, warm: bool = True) -> dict[str, list[dict[str, float]]]:
    found: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write(folder, size)
        for turn in range(rounds + warm):
            sums = {}
            for name in names:
                run = _in_a_process(name, folder)
                sums[name] = _sums(folder / RESULT)
                if turn >= warm:
                    found[name].append(run)
            wrong = [name for name in names if sums[name] != sums[names[0]] and name != "feast_dask"]
            if wrong:
                raise SystemExit(f"{', '.join(wrong)} and {names[0]} found different values: the times mean nothing")
    return found


def write(folder: Path, size: Size) -> None:
    """The impressions and the views' tables. One key in a hundred that is asked for is in no table, and the history of
    one in `NEW_KEYS` begins later than the impressions."""
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'; SET threads = 1; SELECT setseed(0.5)")
        step = DAYS * 86_400_000_000 // size.versions
        for view, (key, _, drawn) in VIEWS.items():
            features = ", ".join(f"{value} AS {view}_{number}" for number, value in enumerate(drawn))
            keys = size.users if key == "user_id" else size.items
            known_for = f"k % {NEW_KEYS} > 0 OR v >= k // {NEW_KEYS} % {size.versions}"
            db.execute(
                f"COPY (SELECT '{key[0]}' || k AS {key}, {features}, "
                f"TIMESTAMPTZ '2026-01-01 00:00:00+00' + to_microseconds(v * {step}) AS event_timestamp, "
                f"event_timestamp + INTERVAL 10 MINUTE AS created FROM range({size.versions}) t(v), range({keys}) u(k) "
                f"WHERE {known_for} ORDER BY event_timestamp, {key}) TO '{folder / view}.parquet' (FORMAT parquet)"
            )
        db.execute(
            f"COPY (SELECT 'm' || n AS impression_id, 'u' || (random() * {size.users * 1.01})::INTEGER AS user_id, "
            f"'i' || (random() * {size.items * 1.01})::INTEGER AS item_id, TIMESTAMPTZ '2026-01-02 00:00:00+00' + "
            f"to_microseconds((random() * {DAYS - 1.1} * 86400e6)::BIGINT) AS event_timestamp "
            f"FROM range({size.rows}) r(n) ORDER BY event_timestamp, impression_id) "
            f"TO '{folder / ENTITIES}' (FORMAT parquet)"
        )


def _features(view: str) -> list[str]:
    return [f"{view}_{number}" for number in range(len(VIEWS[view][2]))]


def _sums(result: Path) -> list[Any]:
    """Of each feature its values, whatever their order and number type: how many, and a sum of hashes."""
    columns = [name for view in VIEWS for name in _features(view)]
    with duckdb.connect() as db:
        kinds = {row[0]: row[1] for row in db.execute(f"DESCRIBE SELECT * FROM '{result}'").fetchall()}
        # To Feast's stores an integer that may be missing is a float, and what is missing NaN.
        known = [name if kinds[name] == "VARCHAR" else f"nullif({name}::DOUBLE, 'nan'::DOUBLE)" for name in columns]
        picked = ", ".join(f"count({value}), sum(hash(impression_id, {value})::HUGEINT)" for value in known)
        return list(db.execute(f"SELECT count(*), {picked} FROM '{result}'").fetchone())


def offline(folder: Path) -> Callable[[], int]:
    store, references = _store(folder, "feature_repo.asof.AsofOfflineStore")

    def work() -> int:
        job = store.get_historical_features(entity_df=str(folder / ENTITIES), features=references)
        return int(job.to_parquet(folder / RESULT))

    return work


def handwritten(folder: Path) -> Callable[[], int]:
    def work() -> int:
        chosen, joins = [], []
        for view, (key, days, _) in VIEWS.items():
            alive = f"e.event_timestamp <= {view}.event_timestamp + INTERVAL {days} DAY"
            chosen += [f"CASE WHEN {alive} THEN {view}.{name} END AS {name}" for name in _features(view)]
            table = f"(SELECT *, greatest(event_timestamp, created) AS known FROM '{folder / view}.parquet')"
            on = f"{view}.{key} = e.{key} AND {view}.known <= e.event_timestamp"
            joins.append(f"ASOF LEFT JOIN {table} AS {view} ON {on}")
        with duckdb.connect() as db:
            db.execute(f"SET TimeZone = 'UTC'; SET temp_directory = '{folder / 'spill'}'")
            (count,) = db.execute(
                f"COPY (SELECT e.*, {', '.join(chosen)} FROM '{folder / ENTITIES}' AS e {' '.join(joins)}) "
                f"TO '{folder / RESULT}' (FORMAT parquet)"
            ).fetchone()
        return int(count)

    return work


def feast_duckdb(folder: Path) -> Callable[[], int]:
    return _feast(folder, "duckdb")


def feast_dask(folder: Path) -> Callable[[], int]:
    return _feast(folder, "dask")


def _feast(folder: Path, kind: str) -> Callable[[], int]:
    store, references = _store(folder, kind)

    def work() -> int:
        frame = pq.read_table(folder / ENTITIES).to_pandas()
        # The default store knows no such filter; in this data it changes nothing but the ten minutes before `created`.
        only_known = {"filter_by_created_timestamp": True} if kind == "duckdb" else {}
        table = store.get_historical_features(entity_df=frame, features=references, **only_known).to_arrow()
        pq.write_table(table, folder / RESULT)
        return int(table.num_rows)

    return work


def _store(folder: Path, kind: str) -> tuple[Any, list[str]]:
    # Feast takes seconds to import, and the join by hand does without.
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, Int64, String

    types = {INT: Int64, FLOAT: Float64, TEXT: String}
    state = Path(tempfile.mkdtemp(dir=folder))
    config = RepoConfig(
        project="benchmark", provider="local", registry=str(state / "registry.db"), offline_store={"type": kind},
        online_store={"type": "sqlite", "path": str(state / "online.db")}, entity_key_serialization_version=3,
    )  # fmt: skip
    entities = {key: Entity(name=key, join_keys=[key], value_type=ValueType.STRING) for key in ("user_id", "item_id")}
    views = [
        FeatureView(
            name=view,
            entities=[entities[key]],
            ttl=timedelta(days=days),
            schema=[
                Field(name=key, dtype=String),
                *(Field(name=name, dtype=types[value]) for name, value in zip(_features(view), drawn, strict=True)),
            ],
            source=FileSource(
                name=f"{view}_rows",
                path=str(folder / f"{view}.parquet"),
                timestamp_field="event_timestamp",
                created_timestamp_column="created",
            ),
        )
        for view, (key, days, drawn) in VIEWS.items()
    ]
    store = FeatureStore(config=config)
    store.apply([*entities.values(), *views])
    return store, [f"{view}:{name}" for view in VIEWS for name in _features(view)]


CONTENDERS = {
    "offline": offline, "handwritten": handwritten, "feast_duckdb": feast_duckdb, "feast_dask": feast_dask,
}  # fmt: skip


def _in_a_process(name: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.features", name, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} failed: {done.stderr.strip()[-2000:]}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def _contend(name: str, folder: Path) -> None:
    warnings.simplefilter("ignore")
    work = CONTENDERS[name](folder)
    started = time.perf_counter()
    rows = work()
    print(json.dumps({"rows": rows, "seconds": time.perf_counter() - started, "peak_mb": peak_mb()}))


def main(as_json: bool, rounds: int = ROUNDS, full: bool = False) -> None:
    """Prints the figures; `full`: Feast's default store, and this one on 10 and 20 times the rows too, once each."""
    features = sum(len(drawn) for _, _, drawn in VIEWS.values())
    title = (
        f"{DAILY.rows:,} rows x {len(VIEWS)} views x {features} features, {DAYS} daily versions, {rounds} rounds; "
        f"shallow: {SHALLOW.rows:,} rows, {SHALLOW.versions} versions; "
        f"deep: {DEEP.rows:,} rows, {DEEP.versions} versions"
    )
    show(title, *feature_figures(rounds, DASK_ROWS if full else 0, full), as_json)


if __name__ == "__main__":
    # One contender in a process of its own.
    _contend(sys.argv[1], Path(sys.argv[2]))
