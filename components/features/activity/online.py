"""Writes pushed rows where the service reads: newer event time wins, a row at a time whole or not at all.

A materialization may be writing at the same time. On SQLite one waits for the other; on Redis looking and writing are
one step of the server's.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import pyarrow as pa
from feast import FeatureStore
from redis.exceptions import NoScriptError, RedisError

from components.contracts import layout
from components.contracts.errors import ServiceError, UsageError
from components.contracts.online import ONLINE, Materialized, Place, read_materialized
from components.features.online import redis_store, registry
from components.features.online.values import Rows, encode, texts
from components.features.tables import declared
from feature_repo.declare import Declared

WAIT_SECONDS = 60.0
"""How long a write waits for a materialization that is publishing, or for Redis to come back."""
AGAIN_SECONDS = 0.2
SECOND = 1_000_000
BATCH_ROWS = 5_000


class Online(Protocol):
    """Where rows are pushed to."""

    def write(self, view: str, rows: pa.Table) -> None:
        """Writes rows of a view (its key, event_timestamp, created, fields), at most one an entity; of an entity with a
        later row that one stays. Raises ServiceError if the store does not take them."""

    def materialized(self) -> Materialized | None:
        """Of the last materialization that came to its end."""


@contextmanager
def opened(place: Place) -> Iterator[Online]:
    """Raises ServiceError if the registry or the store does not answer, UsageError if nothing was materialized yet."""
    if place.redis is not None:
        with registry.opened(place) as store:
            yield RedisOnline(place, store)
        return
    online = SqliteOnline(place)
    try:
        yield online
    finally:
        online.close()


def require_views(online: Online, place: Place, views: tuple[str, ...]) -> None:
    """Raises UsageError unless all were materialized: the service knows no others."""
    done = online.materialized()
    absent = [view for view in views if done is None or view not in done.views]
    if absent:
        raise UsageError(
            f"view {absent[0]!r} was never materialized into {place.folder}, so nobody reads what would be pushed: run "
            "`esmm materialize --data DIR` first"
        )


class SqliteOnline:
    def __init__(self, place: Place) -> None:
        self._place = place
        path = place.folder / ONLINE
        if not path.is_file():
            raise UsageError(f"{path} does not exist: run `esmm materialize --data DIR` first")
        # Used by one thread at a time, which need not be the one that opened it.
        self._db = sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")

    def write(self, view: str, rows: pa.Table) -> None:
        (found,) = declared((view,))
        table = layout.sqlite_table(self._place.project, view)
        query = (
            f"INSERT INTO {table} (entity_key, feature_name, value, value_text, event_ts, created_ts) "
            "VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (entity_key, feature_name) DO UPDATE SET value = excluded.value, "
            "value_text = excluded.value_text, event_ts = excluded.event_ts, created_ts = excluded.created_ts "
            "WHERE excluded.event_ts >= event_ts"
        )
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for batch in rows.combine_chunks().to_batches(BATCH_ROWS):
                    self._db.executemany(query, _cells(encode(batch, found), found))
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise ServiceError(
                f"the online store {self._place.folder / ONLINE} does not take what was pushed ({error}): see that it "
                "is there and that nothing holds it, and push again"
            ) from error

    def materialized(self) -> Materialized | None:
        return read_materialized(self._place.folder)

    def close(self) -> None:
        self._db.close()


class RedisOnline:
    def __init__(self, place: Place, store: FeatureStore) -> None:
        self._project = place.project
        self._where = ",".join(part for part in (place.redis or "").split(",") if "=" not in part)
        self._client = store._get_provider().online_store._get_client(store.config.online_store)
        self._digest = hashlib.sha1(redis_store.WRITE.encode()).hexdigest()

    def write(self, view: str, rows: pa.Table) -> None:
        (found,) = declared((view,))
        for batch in rows.combine_chunks().to_batches(BATCH_ROWS):
            self._answering(partial(self._run, list(self._calls(found, encode(batch, found)))))

    def materialized(self) -> Materialized | None:
        key = layout.materialized_key(self._project)
        text = self._answering(lambda: self._client.get(key))
        return None if text is None else Materialized.parse(text, where=f"{key} in Redis")

    def _calls(self, view: Declared, rows: Rows) -> Iterator[tuple[Any, ...]]:
        stamped = layout.redis_time_field(view.name)
        fields = [layout.redis_field(view.name, name) for name in rows.values]
        for key, event, values in zip(rows.keys, rows.events, zip(*rows.values.values(), strict=True), strict=True):
            pairs = [part for pair in zip(fields, values, strict=True) for part in pair]
            name = layout.redis_key(self._project, view.entity.join_key, key)
            yield name, stamped, event, redis_store.stamp(event), *pairs

    def _run(self, calls: list[tuple[Any, ...]]) -> None:
        try:
            self._pipelined(calls)
        except NoScriptError:
            self._client.script_load(redis_store.WRITE)
            self._pipelined(calls)

    def _pipelined(self, calls: list[tuple[Any, ...]]) -> None:
        pipe = self._client.pipeline(transaction=False)
        for call in calls:
            pipe.execute_command("EVALSHA", self._digest, 1, *call)
        pipe.execute()

    def _answering(self, do: Callable[[], Any]) -> Any:
        """Tries until Redis answers: writing a row twice does no harm."""
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                return do()
            except RedisError as error:
                if time.monotonic() > deadline:
                    raise ServiceError(
                        f"Redis at {self._where} does not answer ({error}): start it or correct its address, and push "
                        "again; what was taken is in the journal"
                    ) from error
                time.sleep(AGAIN_SECONDS)


def _cells(rows: Rows, view: Declared) -> Iterator[tuple[bytes, str, bytes, str | None, int, int]]:
    keys = [layout.entity_key(view.entity.join_key, key) for key in rows.keys]
    stamps = [(event // SECOND, known // SECOND) for event, known in zip(rows.events, rows.created, strict=True)]
    for name, values in rows.values.items():
        for key, value, text, stamp in zip(keys, values, texts(values), stamps, strict=True):
            yield key, name, value, text, *stamp
