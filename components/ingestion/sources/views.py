"""A user's feature tables: snapshots keyed by user_id, item_id or group_id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.contracts import columns as c
from components.contracts import duck
from components.contracts.dataset import FEATURES
from components.contracts.errors import DataError, UsageError
from components.contracts.spec import Dtype, check_name
from components.ingestion.sources import convert
from components.ingestion.sources.convert import Clock
from components.ingestion.sources.reading import open_source

ENTITIES = (c.USER_ID, c.ITEM_ID, c.GROUP_ID)


@dataclass(frozen=True)
class ViewTable:
    """SQL of the table (entity first, rows without entity or time still in it) and its fields' types."""

    entity: str
    sql: str
    fields: dict[str, Dtype]


def read_view(db: Any, view: str, path: Path, clock: Clock, mapping: Mapping[str, str] | None = None) -> ViewTable:
    """Looks at a view's Parquet files; `mapping` gives other names of the entity and of event_timestamp.

    Raises:
        DataError: if it lacks its entity, its time or any field, has two entities, or a type that cannot serve.
    """
    mapping = mapping or {}
    source = open_source(db, path, f"feature view {view}:")
    if source.is_csv:
        raise DataError(f"feature view {view}: {path} is CSV; feature tables are read as Parquet only: write it so")
    have, files = source.types, duck.parquet(source.files)

    def theirs(column: str) -> str | None:
        return next((name for name in (column, mapping.get(column)) if name in have), None)

    def ask(select: str) -> tuple[Any, ...]:
        return tuple(db.execute(f"SELECT {select} FROM {files}").fetchone())

    entities = [column for column in ENTITIES if theirs(column)]
    if len(entities) != 1:
        raise DataError(
            f"feature view {view}: {path} has {' and '.join(entities) or 'neither user_id nor item_id nor group_id'}; "
            "a view needs exactly one of them as its entity"
        )
    entity, stamp = theirs(entities[0]), theirs(c.EVENT_TIMESTAMP)
    if entity is None or stamp is None:
        raise DataError(
            f"feature view {view}: {path} has no event_timestamp, the time since when a row is true "
            f"(it has {', '.join(have)}): add one"
        )
    where = f"feature view {view}: {path}: column"

    def stamped(column: str) -> str:
        return convert.time(duck.name(column), have[column], f"{where} {column!r}", clock, ask).sql

    columns = {
        entities[0]: convert.identity(duck.name(entity), have[entity], f"{where} {entity!r}", ask).sql,
        c.EVENT_TIMESTAMP: stamped(stamp),
    }
    created = c.CREATED_TIMESTAMP
    columns[created] = columns[c.EVENT_TIMESTAMP]
    if created in have:
        columns[created] = f"coalesce({stamped(created)}, {columns[created]})"
    fields: dict[str, Dtype] = {}
    for column, kind in have.items():
        if column not in (entity, stamp, created):
            check_name(column)
            found, fields[column] = convert.context(duck.name(column), column, kind, f"{where} {column!r}", None, ask)
            if ask(f"count(*) FILTER ({found.fails})")[0]:
                raise DataError(f"{where} {column!r} has a value that does not fit 64 bits: write it as a string")
            columns[column] = found.sql
    if not fields:
        raise DataError(f"feature view {view}: {path} has no field beside entity and times")
    convert.check_bags(fields, f"feature view {view}: {path}")
    selected = ", ".join(f"{sql} AS {duck.name(column)}" for column, sql in columns.items())
    return ViewTable(entities[0], f"SELECT {selected} FROM {files}", fields)


def check_unique(context: Mapping[str, Dtype], views: Mapping[str, Mapping[str, Dtype]]) -> None:
    """Raises UsageError if two of context and views have a feature of the same name."""
    owner = dict.fromkeys(context, "the context")
    for view, fields in views.items():
        for column in fields:
            if column in owner:
                raise UsageError(
                    f"feature {column!r} is both in {owner[column]} and in view {view}: rename one of the two"
                )
            owner[column] = f"view {view}"


def write_view(db: Any, view: str, table: ViewTable, folder: Path, notes: list[str]) -> int:
    """Writes the rows that have an entity and a time; returns how many. The others are counted in a note."""
    path = folder / FEATURES / view / "part-0.parquet"
    path.parent.mkdir(parents=True)
    usable = f"{table.entity} IS NOT NULL AND {c.EVENT_TIMESTAMP} IS NOT NULL"
    (total,) = db.execute(f"SELECT count(*) FROM ({table.sql})").fetchone()
    (kept,) = db.execute(
        f"COPY (SELECT * FROM ({table.sql}) WHERE {usable}) TO {duck.text(path)} (FORMAT parquet, COMPRESSION snappy)"
    ).fetchone()
    if kept < total:
        notes.append(f"View {view}: {total - kept} rows without {table.entity} or event_timestamp were left out.")
    return int(kept)
