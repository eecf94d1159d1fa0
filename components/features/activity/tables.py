"""The offline side of a push: appended to the view's table, and small files put together now and then."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from components.contracts import columns as c
from components.contracts import duck, pushed
from feature_repo.asof.append import append, table_schema

COMPACT_FILES = 64
"""So many small files of a table are put together into one."""
LARGE_BYTES = 16 * 1024 * 1024
"""A file of this size is small no more, and never written again."""


def append_rows(folder: Path, rows: pa.Table) -> None:
    """Appends rows to a view's table; columns of it that are no features, as a shop may have, stay null."""
    for field in table_schema(folder):
        if field.name not in rows.column_names:
            rows = rows.append_column(field.name, pa.nulls(len(rows), field.type))
    append(folder, rows)


def compact(folder: Path, files: int = COMPACT_FILES, since: datetime | None = None) -> int:
    """Puts the small files of pushed rows together, if there are at least `files` of them.

    First the whole file appears, then the parts go: who reads in between meets rows twice, never too few. What a crash
    left twice is gone the next time.

    Args:
        since: rows with an earlier event time are dropped.

    Returns:
        Files put together.
    """
    small = [file for file in sorted(folder.glob(pushed.PATTERN)) if file.stat().st_size < LARGE_BYTES]
    if len(small) < max(files, 2):
        return 0
    kept = f"{c.EVENT_TIMESTAMP} >= {duck.instant(since)}" if since is not None else "true"
    with duck.connect() as db:
        rows = db.sql(f"SELECT DISTINCT * FROM {duck.parquet(small)} WHERE {kept} ORDER BY ALL").to_arrow_table()
    whole = append(folder, rows) if len(rows) else None
    for file in small:
        if file != whole:
            file.unlink()
    return len(small)


def drop_outdated(folder: Path, since: datetime) -> None:
    """Removes files whose rows all have an earlier event time."""
    for file in folder.glob(pushed.PATTERN):
        with duck.connect() as db:
            newest = db.execute(f"SELECT max({c.EVENT_TIMESTAMP}) FROM {duck.parquet([file])}").fetchone()[0]
        if newest is None or newest < since:
            file.unlink()


def newest_stamp(folder: Path) -> datetime | None:
    """Of the rows that were pushed; None without any."""
    files = sorted(folder.glob(pushed.PATTERN))
    if not files:
        return None
    with duck.connect() as db:
        found: datetime = db.execute(f"SELECT max({c.EVENT_TIMESTAMP}) FROM {duck.parquet(files)}").fetchone()[0]
    return found.astimezone(UTC)


def newest_rows(folder: Path, key: str, since: datetime) -> pa.Table:
    """Each entity's newest pushed row, of those stamped at `since` or later."""
    files = sorted(folder.glob(pushed.PATTERN))
    if not files:
        return table_schema(folder).empty_table()
    with duck.connect() as db:
        return db.sql(
            f"SELECT * FROM {duck.parquet(files)} WHERE {c.EVENT_TIMESTAMP} >= {duck.instant(since)} "
            f"QUALIFY row_number() OVER (PARTITION BY {duck.name(key)} "
            f"ORDER BY {c.EVENT_TIMESTAMP} DESC, {c.CREATED_TIMESTAMP} DESC) = 1"
        ).to_arrow_table()
