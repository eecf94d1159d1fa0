"""Feast stores over tables of a test's own: this repository's offline store, or Feast's, on the same views."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Array, Float64, Int64, String

START = datetime(2026, 3, 1, tzinfo=UTC)
US = pa.timestamp("us", tz="UTC")
ASOF = "feature_repo.asof.AsofOfflineStore"
FIELDS = {"count": Int64, "label": String, "bag": Array(String), "weights": Array(Float64)}
TYPES = {"count": pa.int64(), "label": pa.string(), "bag": pa.list_(pa.string()), "weights": pa.list_(pa.float64())}
TTL = {"user": timedelta(days=7), "item": timedelta(days=2), "group": None}
"""Of the view of each entity; groups never expire."""
ENTITIES = {name: Entity(name=name, join_keys=[f"{name}_id"], value_type=ValueType.STRING) for name in TTL}
BIG = 2**53 + 1
"""The first integer that a float cannot hold."""


def at(days: float) -> datetime:
    return START + timedelta(days=days)


def source(folder, name: str, **more: Any) -> FileSource:
    settings = {"path": str(folder / f"{name}.parquet"), "timestamp_field": "event_timestamp"}
    return FileSource(name=f"{name}_rows", **{**settings, "created_timestamp_column": "created", **more})


def view(folder, name: str, **more: Any) -> FeatureView:
    fields = [Field(name=f"{name}_{field}", dtype=kind) for field, kind in FIELDS.items()]
    settings = {"source": source(folder, name), "ttl": TTL[name], "entities": [ENTITIES[name]], **more}
    return FeatureView(name=name, schema=[Field(name=f"{name}_id", dtype=String), *fields], **settings)


def open_store(folder, views=None, offline: dict[str, Any] | str = ASOF) -> FeatureStore:
    """A store whose views lie in `folder`/<name>.parquet; the files must be there."""
    folder.mkdir(exist_ok=True)
    settings = {"type": offline} if isinstance(offline, str) else {"type": ASOF, **offline}
    state = folder / f"state-{settings['type']}-{len(list(folder.iterdir()))}"
    state.mkdir()
    store = FeatureStore(
        config=RepoConfig(
            project="made", provider="local", registry=str(state / "registry.db"), offline_store=settings,
            online_store={"type": "sqlite", "path": str(state / "online.db")}, entity_key_serialization_version=3,
        )
    )  # fmt: skip
    store.apply([*ENTITIES.values(), *(views or [view(folder, name) for name in TTL])])
    return store


def write(folder, name: str, versions: list[dict[str, Any]], stamp: pa.DataType = US) -> None:
    """Versions: key, event, created (times or None) and values by field; those left out are null."""
    schema = pa.schema(
        {f"{name}_id": pa.string(), "event_timestamp": stamp, "created": stamp}
        | {f"{name}_{field}": kind for field, kind in TYPES.items()}
    )
    rows = [
        {f"{name}_id": v["key"], "event_timestamp": v["event"], "created": v.get("created", v["event"])}
        | {f"{name}_{field}": v.get(field) for field in TYPES}
        for v in versions
    ]
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / f"{name}.parquet")


def entities(rows: list[dict[str, Any]]) -> pa.Table:
    """Rows of user, item, group and time, with a number of their own."""
    schema = pa.schema({"n": pa.int64(), **{f"{name}_id": pa.string() for name in TTL}, "event_timestamp": US})
    full = [{f"{name}_id": row.get(name) for name in TTL} | {"event_timestamp": row["time"]} for row in rows]
    return pa.Table.from_pylist([{"n": n, **row} for n, row in enumerate(full)], schema=schema)


def references(*names: str, fields=("count",)) -> list[str]:
    return [f"{name}:{name}_{field}" for name in names for field in fields]


ROWS = [
    {"user": "b", "item": "a", "group": "a", "time": at(1)},
    {"user": "a", "item": "no", "group": "a", "time": at(1)},
    {"user": "no", "item": "a", "group": None, "time": at(1)},
    {"user": "b", "item": "a", "group": "a", "time": at(1)},
    {"user": "a", "item": "a", "group": "a", "time": at(9)},
]


def retrieve(folder, rows, *names, fields=("count",), store=None, **more):
    store = store or open_store(folder)
    return store.get_historical_features(entity_df=rows, features=references(*names, fields=fields), **more)
