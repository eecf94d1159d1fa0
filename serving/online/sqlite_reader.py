"""Feast's SQLite store: one query a view, all of a request in one read transaction, on a connection a thread.

A request therefore sees one state of the store, also while a materialization commits. Any commit of another connection
changes SQLite's `data_version`, so rows kept from before it are told apart exactly: nothing stale is served.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from components.contracts import layout
from components.contracts.errors import ServiceError
from components.contracts.online import ONLINE, Place
from serving.online.materialized import FileNote
from serving.online.reader import Ask, State, Trip, broken
from serving.online.rows import Block

DO = "run `esmm materialize` and restart the service"
SECONDS = 5.0
"""How long a reader waits for a lock; with a write-ahead log it waits for none."""
LATEST = 9_000_000_000
"""Seconds since 1970 that fit into 64 bits of nanoseconds."""


class SqliteReader:
    def __init__(self, place: Place) -> None:
        self.where = str(place.folder)
        self._path = place.folder / ONLINE
        self._project = place.project
        self._note = FileNote(place.folder)
        self._local = threading.local()
        self._opened: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        self._generation = 0

    def read(self, asks: Sequence[Ask]) -> Trip:
        try:
            connection = self._connection()
            connection.execute("BEGIN")
            try:
                generation = self._seen(connection)
                blocks = [self._block(connection, ask) for ask in asks]
            finally:
                connection.execute("COMMIT")
        except (sqlite3.Error, OSError) as error:
            raise broken(self.where, error, DO) from error
        return Trip(blocks, State(generation, self._note.read()[1]))

    def state(self) -> State:
        return State(self._generation, self._note.read()[1])

    def close(self) -> None:
        with self._lock:
            for connection in self._opened:
                with suppress(sqlite3.Error):
                    connection.close()
            self._opened.clear()

    def _connection(self) -> sqlite3.Connection:
        """This thread's own; another one if the file was replaced."""
        inode = self._path.stat().st_ino
        if getattr(self._local, "inode", None) != inode:
            connection = sqlite3.connect(
                f"{self._path.resolve().as_uri()}?mode=rw",
                uri=True,
                timeout=SECONDS,
                isolation_level=None,
                check_same_thread=False,
            )
            connection.execute("PRAGMA query_only = 1")
            self._local.connection, self._local.inode, self._local.version = connection, inode, None
            with self._lock:
                self._opened.append(connection)
        opened: sqlite3.Connection = self._local.connection
        return opened

    def _seen(self, connection: sqlite3.Connection) -> int:
        """A number that differs once anything was committed; another thread may notice it first."""
        version = connection.execute("PRAGMA data_version").fetchone()[0]
        with self._lock:
            if version != self._local.version:
                self._local.version = version
                self._generation += 1
            return self._generation

    def _block(self, connection: sqlite3.Connection, ask: Ask) -> Block:
        fields, count = ask.fields, len(ask.keys)
        if not count:
            return Block.empty(fields, 0)
        keys = [layout.entity_key(fields.entity, key) for key in ask.keys]
        stamps = np.zeros((len(fields.views), count), np.int64)
        blobs: list[list[bytes | None]] = [[None] * count for _ in fields.names]
        places = {key: place for place, key in enumerate(keys)}
        again = [places[key] for key in keys] if len(places) < count else None
        for number, view in enumerate(fields.views):
            columns = {name: blobs[place] for place, name in enumerate(fields.names) if fields.view_of[place] == number}
            self._view(connection, view.name, places, columns, stamps[number])
        block = Block.decoded(fields, stamps, blobs)
        # An id that was asked for twice has its row at the last of its places.
        return block if again is None else block.take(np.array(again, np.int64))

    def _view(
        self,
        connection: sqlite3.Connection,
        view: str,
        places: dict[bytes, int],
        columns: dict[str, list[bytes | None]],
        stamps: NDArray[np.int64],
    ) -> None:
        """Fills in a view's values by feature, and the event times."""
        rows = connection.execute(
            f"SELECT entity_key, feature_name, value, event_ts FROM {layout.sqlite_table(self._project, view)} "
            f"WHERE entity_key IN ({','.join('?' * len(places))})",
            list(places),
        ).fetchall()
        latest: dict[bytes, int] = {}
        for key, name, value, event in rows:
            column = columns.get(name)
            if column is None:
                continue
            if type(event) is not int:
                raise ServiceError(
                    f"the online store in {self.where} holds the event time {event!r} in view {view!r}, which is no "
                    "whole number of seconds: it was written by another version, run `esmm materialize`"
                )
            column[places[key]] = value
            if event > latest.get(key, 0):
                latest[key] = event
        for key, event in latest.items():
            stamps[places[key]] = min(event, LATEST) * 1_000_000_000
