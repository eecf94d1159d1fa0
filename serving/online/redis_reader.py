"""Redis, one server or a cluster: everything a request needs in one pipelined round trip.

An entity's hash holds all its views, so one HMGET an entity fetches all that is read of it. To one server the commands
are written by hand: their fields are the same for every key, and redis-py would encode each of them again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import redis
from feast.infra.online_stores.redis import RedisOnlineStore
from google.protobuf.message import DecodeError
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.retry import Retry

from components.contracts import layout
from components.contracts.online import Place
from serving.online import wire
from serving.online.fields import Fields
from serving.online.materialized import TextNote
from serving.online.reader import Ask, State, Trip, broken
from serving.online.rows import Block

SECONDS = 2.0
"""Without a timeout in the connection string: a server that hangs must not hold a request for longer."""
DO = "check that Redis is up and reachable"


class RedisReader:
    """Reads Feast's Redis layout of `place`; values of another project in the same Redis are never seen."""

    def __init__(self, place: Place) -> None:
        nodes, options = RedisOnlineStore._parse_connection_string(place.redis or "")
        hosts = [(str(node["host"]), int(node["port"])) for node in nodes]
        self.where = "Redis at " + ", ".join(f"{host}:{port}" for host, port in hosts)
        self._project = place.project
        self._note = TextNote(layout.materialized_key(place.project))
        self._get = _packed([b"GET", self._note.key.encode()])
        self._cluster = place.redis_type == "redis_cluster"
        options = {"socket_timeout": SECONDS, "socket_connect_timeout": SECONDS, **options}
        try:
            self._client: Any = (
                RedisCluster(
                    startup_nodes=[ClusterNode(*host) for host in hosts],  # type: ignore[no-untyped-call]
                    **{"retry": Retry(ExponentialBackoff(0.1, 0.01), 3), **options},
                )
                if self._cluster
                # Tried again here, once, and for a dead server nobody waits.
                else redis.Redis(host=hosts[0][0], port=hosts[0][1], **{"retry": Retry(NoBackoff(), 0), **options})
            )
        except (redis.RedisError, OSError) as error:
            raise broken(self.where, error, DO) from error
        self._commands: dict[Fields, tuple[bytes, bytes]] = {}

    def read(self, asks: Sequence[Ask]) -> Trip:
        try:
            note, replies = self._many(asks) if self._cluster else self._one(asks)
            state = State(note, self._note.read(note))
            blocks, start = [], 0
            for ask in asks:
                blocks.append(_block(ask.fields, replies[start : start + len(ask.keys)]))
                start += len(ask.keys)
        except (redis.RedisError, OSError, DecodeError) as error:
            raise broken(self.where, error, DO) from error
        return Trip(blocks, state)

    def state(self) -> State:
        try:
            note = self._client.get(self._note.key)
        except (redis.RedisError, OSError) as error:
            raise broken(self.where, error, DO) from error
        return State(note, self._note.read(note))

    def close(self) -> None:
        self._client.close()

    def _many(self, asks: Sequence[Ask]) -> tuple[bytes | None, list[Any]]:
        """A cluster: redis-py sends each command to the node of its key."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.get(self._note.key)
            for ask in asks:
                names = _hash_fields(ask.fields)
                for key in ask.keys:
                    pipe.hmget(layout.redis_key(self._project, ask.fields.entity, key), names)
            note, *replies = pipe.execute()
        return note, replies

    def _one(self, asks: Sequence[Ask]) -> tuple[bytes | None, list[Any]]:
        parts = [self._get]
        for ask in asks:
            head, tail = self._command(ask.fields)
            for key in ask.keys:
                encoded = layout.redis_key(self._project, ask.fields.entity, key)
                parts.append(b"%b%d\r\n%b%b" % (head, len(encoded), encoded, tail))
        text = b"".join(parts)
        try:
            note, *replies = self._exchange(text, len(parts))
        except redis.ConnectionError:
            # A connection of the pool whose server has been restarted since; reading twice does no harm.
            note, *replies = self._exchange(text, len(parts))
        return note, replies

    def _exchange(self, text: bytes, count: int) -> list[Any]:
        pool = self._client.connection_pool
        connection = pool.get_connection()
        done = False
        try:
            connection.send_packed_command([text])
            read = connection.read_response
            replies = [read() for _ in range(count)]
            done = True
            return replies
        finally:
            if not done:
                # Replies that were not read would be taken for those of the next request.
                with contextlib.suppress(redis.RedisError, OSError):
                    connection.disconnect()
            pool.release(connection)

    def _command(self, fields: Fields) -> tuple[bytes, bytes]:
        """Bytes of an HMGET of `fields` before the key's length and after the key."""
        known = self._commands.get(fields)
        if known is None:
            names = _hash_fields(fields)
            head = b"*%d\r\n$5\r\nHMGET\r\n$" % (len(names) + 2)
            known = head, b"\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(name), name) for name in names)
            self._commands[fields] = known
        return known


def _hash_fields(fields: Fields) -> list[bytes]:
    """A field for each column, then each view's event time."""
    columns = [layout.redis_field(*fields.stored_as(number)) for number in range(len(fields.names))]
    return columns + [layout.redis_time_field(view.name) for view in fields.views]


def _block(fields: Fields, replies: list[Any]) -> Block:
    columns = list(zip(*replies, strict=True))
    count = len(fields.names)
    if not columns:
        return Block.empty(fields, 0)
    stamps = np.stack([wire.times(column) for column in columns[count:]])
    return Block.decoded(fields, stamps, columns[:count])


def _packed(arguments: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(arguments) + b"".join(b"$%d\r\n%b\r\n" % (len(a), a) for a in arguments)
