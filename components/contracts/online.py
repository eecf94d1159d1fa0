"""A dataset's live feature store: where it is, and what materialization and serving both have to know of it.

In every profile `Home.feast` holds

    offline/<tag>/      the tables the store was filled from: <view>/part-0.parquet and a manifest
    materialized.json   `Materialized`, written last; with Redis it is a key there (`layout.materialized_key`)

and in the embedded one also

    registry.db         Feast's SQL registry on SQLite
    online.db           Feast's SQLite online store
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, cast, get_args

from pydantic import field_validator

from components.contracts.config import Config
from components.contracts.errors import UsageError
from components.contracts.files import read_json, write_json

REGISTRY = "registry.db"
ONLINE = "online.db"
OFFLINE = "offline"
MATERIALIZED = "materialized.json"
ENTITY_KEY_VERSION = 3
"""How Feast writes entity keys; a reader that assumes another finds nothing."""

Profile = Literal["embedded", "production", "spark"]
PROFILE_VARIABLE = "ESMM_PROFILE"
REDIS_VARIABLE = "ESMM_REDIS"
"""host:port, then options as in Feast: `redis:6379,password=...,ssl=true`; of a cluster several host:port."""
REDIS_TYPE_VARIABLE = "ESMM_REDIS_TYPE"
REDIS_TYPES = ("redis", "redis_cluster")
REGISTRY_VARIABLE = "ESMM_REGISTRY"
"""An SQLAlchemy URL: `postgresql+psycopg://user:password@host/database`."""


@dataclass(frozen=True)
class Place:
    """Where the features of dataset (and Feast project) `project` are served from.

    `registry`: SQLAlchemy URL of Feast's SQL registry. `redis`: connection string, None where SQLite serves.
    """

    folder: Path
    project: str
    profile: Profile
    registry: str
    redis: str | None = None
    redis_type: str = "redis"

    @staticmethod
    def of(folder: Path, project: str, environment: Mapping[str, str] = os.environ) -> Place:
        """The place that the environment's profile names; embedded without one.

        Raises:
            UsageError: an unknown profile or kind of Redis, or a variable that the profile needs and is not set.
        """
        profile = environment.get(PROFILE_VARIABLE) or "embedded"
        if profile not in get_args(Profile):
            raise UsageError(f"{PROFILE_VARIABLE}={profile!r}: choose one of {', '.join(get_args(Profile))}")
        if profile != "production":
            return Place(folder, project, cast(Profile, profile), f"sqlite:///{folder / REGISTRY}")
        absent = [name for name in (REDIS_VARIABLE, REGISTRY_VARIABLE) if not environment.get(name)]
        if absent:
            raise UsageError(
                f"{PROFILE_VARIABLE}=production needs {absent[0]}, which is not set: export it (docs/profiles.md)"
            )
        kind = environment.get(REDIS_TYPE_VARIABLE) or "redis"
        if kind not in REDIS_TYPES:
            raise UsageError(f"{REDIS_TYPE_VARIABLE}={kind!r}: choose one of {', '.join(REDIS_TYPES)}")
        return Place(folder, project, "production", environment[REGISTRY_VARIABLE], environment[REDIS_VARIABLE], kind)

    @property
    def online_store(self) -> dict[str, Any]:
        """Feast's setting of that name."""
        if self.redis is None:
            return {"type": "sqlite", "path": str(self.folder / ONLINE)}
        return {"type": "redis", "redis_type": self.redis_type, "connection_string": self.redis}


class ViewState(Config):
    """What is served of one view.

    `rows`: entities with a row. `as_of`: its watermark; rows whose event or created time is not earlier are not in.
    `newest_event`: the latest event time among its rows, None without rows. `known`: a hash of the part of the table
    that was known at the watermark; while it is the same, a later run need only bring what is new.
    """

    rows: int
    as_of: str = ""
    newest_event: str | None = None
    known: str = ""


class Materialized(Config):
    """`materialized.json`: rows whose event or created time is not before `as_of` are not in the store."""

    as_of: str
    views: dict[str, ViewState] = {}

    @field_validator("views", mode="before")
    @classmethod
    def _rows_alone(cls, value: Any) -> Any:
        """Before watermarks by view, a view's entry was its number of rows."""
        if not isinstance(value, dict):
            return value
        return {view: {"rows": state} if isinstance(state, int) else state for view, state in value.items()}


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
