"""Writes the embedded online store: all of a run in one transaction, so that a reader sees the old values or the new.

The rows are made in a database of their own, which may take minutes and fail; putting them in place is SQL alone, in
one transaction of the live file that a crash rolls back. In WAL mode readers go on with the old values meanwhile and
need not reconnect. Pushes may have come in since: of an entity the row with the later event time stays.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from components.contracts import duck
from components.contracts.layout import entity_key, sqlite_table
from components.contracts.online import ONLINE
from components.features.online import staging
from components.features.online.staging import Plan
from components.features.online.values import Rows, encode, texts

SECOND = 1_000_000
WAIT_SECONDS = 60.0
"""How long a push in progress may hold up the transaction."""
NEW = "new.db"
CACHE_KB = 64_000


class Written(NamedTuple):
    """Entities of a view that were written, and that were removed; seconds it took."""

    written: int
    removed: int
    seconds: float


def stage(plan: Plan, project: str, scratch: Path, progress: Callable[[int], None]) -> None:
    """Writes the rows that the plan calls for to `scratch`/new.db: a table of them, and one of their entities."""
    name = plan.view.name
    with closing(sqlite3.connect(scratch / NEW)) as db:
        db.execute("PRAGMA journal_mode = OFF")
        db.execute("PRAGMA synchronous = OFF")
        db.execute(f"CREATE TABLE {_rows(name)} (entity_key, feature_name, value, value_text, event_ts, created_ts)")
        db.execute(
            f"CREATE TABLE {_entities(name)} (entity_key PRIMARY KEY, event_ts INTEGER, created_ts INTEGER) "
            "WITHOUT ROWID"
        )
        for batch in staging.batches(plan):
            rows = encode(batch, plan.view)
            keys = [entity_key(plan.view.entity.join_key, key) for key in rows.keys]
            stamps = [
                (event // SECOND, known // SECOND) for event, known in zip(rows.events, rows.created, strict=True)
            ]
            db.executemany(
                f"INSERT INTO {_entities(name)} VALUES (?, ?, ?)",
                [(key, *stamp) for key, stamp in zip(keys, stamps, strict=True)],
            )
            db.executemany(f"INSERT INTO {_rows(name)} VALUES (?, ?, ?, ?, ?, ?)", _cells(keys, stamps, rows))
            progress(len(keys))
        db.commit()


def publish(plans: tuple[Plan, ...], project: str, scratch: Path, folder: Path) -> dict[str, Written]:
    """Puts the staged rows in place, in one transaction, and drops the tables of other views."""
    with closing(sqlite3.connect(folder / ONLINE, timeout=WAIT_SECONDS, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute(f"PRAGMA cache_size = -{CACHE_KB}")
        db.execute(f"ATTACH {duck.text(scratch / NEW)} AS staged")
        db.execute("BEGIN IMMEDIATE")
        try:
            written = {plan.view.name: _replace(db, plan, project) for plan in plans}
            _drop_others(db, project, tuple(written))
            db.execute("COMMIT")
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return written


def holds(folder: Path, project: str, view: str, rows: int) -> bool:
    """Whether the store has at least `rows` entities of the view: its file may be gone, or an older one put back."""
    if not (folder / ONLINE).is_file():
        return False
    with closing(sqlite3.connect(folder / ONLINE, timeout=WAIT_SECONDS)) as db:
        if f"{project}_{view}" not in _tables(db):
            return False
        return _one(db, f"SELECT count(DISTINCT entity_key) FROM {sqlite_table(project, view)}") >= rows


def _replace(db: sqlite3.Connection, plan: Plan, project: str) -> Written:
    """The staged entities take the place of those in the live table, but for those that were pushed since."""
    started, name = time.monotonic(), plan.view.name
    live, fresh, rows = f"main.{sqlite_table(project, name)}", f"staged.{_entities(name)}", f"staged.{_rows(name)}"
    _create(db, project, name)
    if plan.mode == "unchanged":
        return Written(0, 0, 0.0)
    # Whole seconds are all that is stored, so what is stamped in the boundary's own second counts as before it.
    before = math.ceil(plan.boundary.timestamp()) if plan.mode == "full" else -(2**62)
    db.execute("DROP TABLE IF EXISTS temp.kept")
    db.execute(
        f"CREATE TEMP TABLE kept AS SELECT DISTINCT old.entity_key FROM {live} AS old "
        f"JOIN {fresh} AS fresh ON fresh.entity_key = old.entity_key WHERE old.event_ts >= {before} "
        "AND (old.event_ts, coalesce(old.created_ts, 0)) > (fresh.event_ts, fresh.created_ts)"
    )
    gone = f"event_ts < {before} AND entity_key NOT IN (SELECT entity_key FROM {fresh})"
    removed = _one(db, f"SELECT count(DISTINCT entity_key) FROM {live} WHERE {gone}")
    replaced = f"SELECT entity_key FROM {fresh} WHERE entity_key NOT IN (SELECT entity_key FROM kept)"
    db.execute(f"DELETE FROM {live} WHERE {gone} OR entity_key IN ({replaced})")
    columns = "entity_key, feature_name, value, value_text, event_ts, created_ts"
    db.execute(
        f"INSERT INTO {live} ({columns}) SELECT {columns} FROM {rows} "
        # In the order of the index: half the time of inserting them as they come.
        "WHERE entity_key NOT IN (SELECT entity_key FROM kept) ORDER BY entity_key, feature_name"
    )
    kept = _one(db, "SELECT count(*) FROM kept")
    return Written(plan.entities - kept, removed, time.monotonic() - started)


def _create(db: sqlite3.Connection, project: str, view: str) -> None:
    """The table as Feast makes it."""
    table, index = sqlite_table(project, view), sqlite_table(project, f"{view}_ek")
    db.execute(
        f"CREATE TABLE IF NOT EXISTS {table} (entity_key BLOB, feature_name TEXT, value BLOB, value_text TEXT, "
        "vector_value BLOB, event_ts timestamp, created_ts timestamp, PRIMARY KEY(entity_key, feature_name))"
    )
    db.execute(f"CREATE INDEX IF NOT EXISTS {index} ON {table} (entity_key)")


def _drop_others(db: sqlite3.Connection, project: str, present: tuple[str, ...]) -> None:
    for table in _tables(db):
        if table.startswith(f"{project}_") and table.removeprefix(f"{project}_") not in present:
            db.execute(f"DROP TABLE main.{duck.name(table)}")


def _cells(
    keys: list[bytes], stamps: list[tuple[int, int]], rows: Rows
) -> Iterator[tuple[bytes, str, bytes, str | None, int, int]]:
    for name, values in rows.values.items():
        for key, value, text, stamp in zip(keys, values, texts(values), stamps, strict=True):
            yield key, name, value, text, *stamp


def _tables(db: sqlite3.Connection) -> list[str]:
    return [row[0] for row in db.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")]


def _one(db: sqlite3.Connection, query: str) -> int:
    return int(db.execute(query).fetchone()[0])


def _rows(view: str) -> str:
    return duck.name(view)


def _entities(view: str) -> str:
    return duck.name(f"{view} entities")
