"""What a retrieval reads and returns, worked out and checked before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import duckdb
from feast.data_format import ParquetFormat
from feast.feature_view import DUMMY_ENTITY_ID
from feast.infra.offline_stores.file_source import FileSource

from components.contracts import duck
from components.contracts.errors import DataError, UsageError
from feature_repo.asof.entities import NANOSECONDS, TIMES, VIRTUAL, Entities, describe, parquet


@dataclass(frozen=True)
class Versions:
    """The table of one feature view: for each key the values that it had, one row a version.

    `keys`: (column of the table, column of the entity rows); none for a view without entity. `features`: (column of the
    table, name in the result). `created` None: the source has no such column. `ttl` None: a value never expires.
    """

    view: str
    table: str
    keys: tuple[tuple[str, str], ...]
    event: str
    created: str | None
    ttl: timedelta | None
    features: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Plan:
    """`known_only`: leave out what was created after the entity row's time. `unit`: of times as integers, ns or us."""

    entities: Entities
    views: tuple[Versions, ...]
    known_only: bool
    unit: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Names in the result: those of the entity rows, then the features, view by view."""
        return (*self.entities.types, *(name for view in self.views for _, name in view.features))


def make(
    db: duckdb.DuckDBPyConnection,
    given: object,
    views: list[Any],
    references: list[str],
    repo_path: object,
    full_names: bool,
    known_only: bool,
) -> Plan:
    """Reads the schemas of the entity rows and of each view's table.

    Args:
        views: Feast's feature views; references: "view:feature"; repo_path: what relative paths start from.

    Raises:
        UsageError: entity rows or a source this store does not read, a feature named like a column of the entity rows.
        DataError: a file or column that is missing, a time that is none, keys of different types.
    """
    entities = describe(db, given)
    units = {entities.types[entities.time]}
    made = []
    for view in views:
        versions = _versions(view, references, str(repo_path), full_names)
        types = duck.types(db, versions.table)
        _check(versions, types, entities)
        made.append(versions)
        units |= {types[column] for column in (versions.event, versions.created) if column is not None}
    plan = Plan(entities, tuple(made), known_only, "ns" if units & NANOSECONDS else "us")
    names = [name.lower() for name in plan.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UsageError(
            f"{', '.join(twice)} would be in the result twice: drop the column from the entity rows, or ask for "
            "full_feature_names"
        )
    return plan


def _versions(view: Any, references: list[str], repo_path: str, full_names: bool) -> Versions:
    source = view.batch_source
    is_parquet = isinstance(source, FileSource) and (
        isinstance(source.file_format, ParquetFormat)
        or (source.file_format is None and source.path.endswith(".parquet"))
    )
    if not is_parquet or source.s3_endpoint_override:
        raise UsageError(
            f"feature view {view.name!r} reads a {type(source).__name__} that is no local Parquet, which this offline "
            "store does not read: set offline_store to duckdb or spark"
        )
    before = {new: old for old, new in source.field_mapping.items()}
    asked = [ref.split(":", 1)[1] for ref in references if ref.split(":", 1)[0] == view.projection.name_to_use()]
    prefix = f"{view.projection.name_alias or view.name}__" if full_names else ""
    keys = {entity.name: entity.name for entity in view.entity_columns if entity.name != DUMMY_ENTITY_ID}
    created = source.created_timestamp_column or None
    path = FileSource.get_uri_for_file_path(repo_path, source.path)
    return Versions(
        view=view.name,
        table=parquet(path.removeprefix("file://"), f"the rows of feature view {view.name!r}"),
        keys=tuple(
            (before.get(key, key), asked_by) for key, asked_by in (view.projection.join_key_map or keys).items()
        ),
        event=before.get(source.timestamp_field, source.timestamp_field),
        created=created and before.get(created, created),
        # To Feast a time to live of zero is none.
        ttl=view.ttl or None,
        features=tuple((before.get(name, name), prefix + name) for name in asked),
    )


def _check(versions: Versions, types: dict[str, str], entities: Entities) -> None:
    where = f"the rows of feature view {versions.view!r}"
    needed = [key for key, _ in versions.keys] + [name for name, _ in versions.features] + [versions.event]
    for column in [*needed, *([versions.created] if versions.created else [])]:
        if column not in types:
            raise DataError(f"{where} have no column {column!r}: have {', '.join(types)}; bring them again with it")
    for time in (versions.event, versions.created):
        if time is not None and types[time] not in TIMES:
            raise DataError(f"{where} have {time!r} as {types[time]}, which is no time: write it as a timestamp")
    for name in VIRTUAL:
        if name in types:
            raise DataError(f"{where} have a column {name!r}, a name that DuckDB keeps for itself: rename it")
    for key, column in versions.keys:
        if column not in entities.types:
            raise UsageError(f"the entity rows have no column {column!r}, which feature view {versions.view!r} needs")
        kinds = {_kind(types[key]), _kind(entities.types[column])}
        if len(kinds) > 1:
            raise DataError(
                f"{where} have the key {key!r} as {types[key]}, the entity rows have {column!r} as "
                f"{entities.types[column]}, and to Feast '12' and 12 are two keys: cast one of the two"
            )


def _kind(sql_type: str) -> str:
    return "integer" if sql_type in duck.INTEGERS | duck.WIDE_INTEGERS else sql_type
