"""Online stores filled twice, by this project and by Feast, and what is then in them."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing, redirect_stdout
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from feast.types import Array, Bool, Float32, Float64, Int32, Int64, String
from features.made import UTC_US, at

from components.contracts.layout import sqlite_table
from components.contracts.online import Place, keep_utc_in_sqlite
from components.features.online import registry
from feature_repo import declare
from feature_repo import store as repo
from feature_repo.entities import ITEM, USER

PROJECT = "tiny"
EVERY = declare.view(
    *("every_type", ITEM, timedelta(days=365)),
    declare.field("text", String), declare.field("count", Int64), declare.field("small", Int32),
    declare.field("share", Float64), declare.field("single", Float32), declare.field("flag", Bool),
    declare.field("bag", Array(String)), declare.field("bag_weights", Array(Float64)),
)  # fmt: skip
"""A view with a field of each type that a feature can have."""
PLAIN = declare.view(*("plain", USER, timedelta(days=365)), declare.field("a", Int64), declare.field("b", Int64))
VIEWS = (EVERY, PLAIN)
NAMES = tuple(view.name for view in VIEWS)
TYPES = {
    "every_type": {
        "item_id": pa.string(), "text": pa.string(), "count": pa.int64(), "small": pa.int32(), "share": pa.float64(),
        "single": pa.float32(), "flag": pa.bool_(), "bag": pa.list_(pa.string()),
        "bag_weights": pa.list_(pa.float64()),
    },
    "plain": {"user_id": pa.string(), "a": pa.int64(), "b": pa.int64()},
}  # fmt: skip
ITEMS = [
    {"text": "x", "count": 1, "small": -1, "share": 0.5, "single": 0.5, "flag": True, "bag": ["a"], "bag_weights": [1]},
    {"text": "", "count": 0, "small": 0, "share": 0.0, "single": 0.0, "flag": False, "bag": [], "bag_weights": []},
    {},
    {"text": "é😀\x00", "count": -(2**62), "small": 2**31 - 1, "share": -1e-308, "single": 1e38},
    {"text": "long " * 100, "count": 2**53, "share": 1 / 3, "single": 1 / 3, "flag": True},
    {"share": float("nan"), "single": float("nan"), "bag": ["", "é😀"] * 200, "bag_weights": [0.0, 1e-300] * 200},
    {"share": float("inf"), "single": float("-inf"), "small": -(2**31)},
]  # fmt: skip


def every_type(days: Iterable[int] = (1, 2)) -> list[dict[str, Any]]:
    """Two rows of each of seven items, the newer one another item's values."""
    return [
        {
            "item_id": f"i{number}",
            "event": day + number / 7,
            "created": day + number / 7 + 0.01,
            **ITEMS[(number + day) % 7],
        }
        for day in days
        for number in range(7)
    ]


def plain(rows: Iterable[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """(user, event[, created], value): both fields hold the value."""
    return [
        {
            "user_id": row[0],
            "event": row[1],
            "created": row[-2] if len(row) == 4 else row[1],
            "a": row[-1],
            "b": row[-1],
        }
        for row in rows
    ]


def write_tables(folder: Path, views: Mapping[str, Iterable[Mapping[str, Any]]]) -> Path:
    for view, rows in views.items():
        full = [{**row, "event_timestamp": at(row["event"]), "created": at(row["created"])} for row in rows]
        schema = pa.schema({**TYPES[view], "event_timestamp": UTC_US, "created": UTC_US})
        (folder / view).mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(full, schema=schema), folder / view / "part-0.parquet")
    return folder


def on_redis(folder: Path, address: str, project: str = PROJECT) -> Place:
    """Redis with a registry on SQLite, which starts faster than a server."""
    folder.mkdir(parents=True, exist_ok=True)
    return Place(folder, project, "production", f"sqlite:///{folder / 'registry.db'}", address)


def feast_filled(place: Place, tables: Path, present: tuple[str, ...], as_of: datetime) -> None:
    """What Feast's own materialization makes of the tables."""
    place.folder.mkdir(parents=True, exist_ok=True)
    keep_utc_in_sqlite()
    with registry.opened(place) as store, redirect_stdout(io.StringIO()):
        repo.apply(store, tables, present)
        store.materialize(registry.EPOCH, as_of - registry.TICK, feature_views=list(present))


def sqlite_rows(folder: Path, view: str, project: str = PROJECT) -> list[tuple[Any, ...]]:
    """All cells of Feast's table, in order."""
    with closing(sqlite3.connect(folder / "online.db")) as db:
        return db.execute(f"SELECT * FROM {sqlite_table(project, view)} ORDER BY 1, 2").fetchall()


def redis_rows(client: Any) -> dict[bytes, dict[bytes, bytes]]:
    """Every entity's hash; what materialization itself keeps in Redis is left out."""
    return {key: client.hgetall(key) for key in client.scan_iter() if not key.startswith(b"esmm:")}
