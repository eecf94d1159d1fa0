"""A dataset's live feature store (`Home.feast`): what materialization writes and serving reads.

registry.db         Feast's SQL registry on SQLite
online.db           Feast's SQLite online store
offline/<tag>/      the tables it was filled from: <view>/part-0.parquet and a manifest
materialized.json   `Materialized`, written last
"""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from components.contracts.config import Config
from components.contracts.files import read_json, write_json

REGISTRY = "registry.db"
ONLINE = "online.db"
OFFLINE = "offline"
MATERIALIZED = "materialized.json"
ENTITY_KEY_VERSION = 3
"""How Feast writes entity keys; a reader that assumes another finds nothing."""


class Materialized(Config):
    """`materialized.json`: rows whose event or created time is not before `as_of` are not in the store."""

    as_of: str
    views: dict[str, int] = {}
    """Entities with a row in the online store, by view."""


def read_materialized(folder: Path) -> Materialized | None:
    """None if nothing was materialized yet. Raises DataError or UsageError for a file that is not ours."""
    path = folder / MATERIALIZED
    return Materialized.parse(read_json(path), where=str(path)) if path.exists() else None


def write_materialized(folder: Path, value: Materialized) -> None:
    write_json(folder / MATERIALIZED, value.model_dump(mode="json"))


def keep_utc_in_sqlite() -> None:
    """Makes Feast's SQLite store keep event times in UTC. To be called after that store was imported.

    Feast hands SQLite naive UTC times, and its adapter takes them for local ones: a store filled in one time zone is
    hours off when read in another, and an hour is lost where clocks change. Adapters are the process's own, so writer
    and reader both call this. What is stored is still a whole second, which Feast's own converter expects.
    """
    sqlite3.register_adapter(datetime, _to_epoch)
    sqlite3.register_converter("timestamp", _from_epoch)


def _to_epoch(value: datetime) -> int:
    return int((value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp())


def _from_epoch(value: bytes) -> datetime:
    return datetime.fromtimestamp(int(value), UTC).replace(tzinfo=None)
