"""How Feast lays features out online: keys, hash fields, tables. What is written this way Feast reads, and the reverse.

Redis: one hash an entity. Key: the entity key's bytes, then the project's name. Fields: four bytes of a hash of
`view:feature` with the serialized `feast.types.Value` (no bytes: null), and `_ts:view` with the serialized event time.
SQLite: one table a view, a row an entity and feature.
"""

from __future__ import annotations

import struct
from functools import lru_cache

import mmh3

STRING = 2
"""`ValueType.STRING`: what every entity key of this project is."""


def entity_key(join_key: str, value: str) -> bytes:
    """What Feast's `serialize_entity_key` makes of one string key (version 3)."""
    return _prefix(join_key) + _value(value)


def redis_key(project: str, join_key: str, value: str) -> bytes:
    return _prefix(join_key) + _value(value) + project.encode()


def redis_field(view: str, feature: str) -> bytes:
    return struct.pack("<I", mmh3.hash(f"{view}:{feature}", signed=False))


def redis_time_field(view: str) -> bytes:
    return f"_ts:{view}".encode()


def sqlite_table(project: str, view: str) -> str:
    """Quoted, for SQL."""
    return '"' + f"{project}_{view}".replace('"', '""') + '"'


def materialized_key(project: str) -> str:
    """Of the JSON of `online.Materialized` in Redis; no entity key begins so."""
    return f"esmm:materialized:{project}"


@lru_cache(maxsize=64)
def _prefix(join_key: str) -> bytes:
    encoded = join_key.encode()
    return struct.pack("<III", 1, STRING, len(encoded)) + encoded


def _value(value: str) -> bytes:
    encoded = value.encode()
    return struct.pack("<II", STRING, len(encoded)) + encoded
