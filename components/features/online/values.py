"""Feature values as bytes: what Feast would write for them, `feast.types.Value`, and no bytes for a null."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from feast import Field
from feast.protos.feast.types.Value_pb2 import DoubleList, StringList, Value

from components.contracts import columns as c
from feature_repo.declare import Declared

NULL = b""
DOUBLE_TAG = 0x29
"""Field 5 of Value, `double_val`, eight bytes: what a double begins with."""

SERIALIZE: dict[str, Callable[[Any], bytes]] = {
    "STRING": lambda value: Value(string_val=value).SerializeToString(),
    "INT32": lambda value: Value(int32_val=value).SerializeToString(),
    "INT64": lambda value: Value(int64_val=value).SerializeToString(),
    "FLOAT": lambda value: Value(float_val=value).SerializeToString(),
    "BOOL": lambda value: Value(bool_val=value).SerializeToString(),
    "STRING_LIST": lambda value: Value(string_list_val=StringList(val=value)).SerializeToString(),
    "DOUBLE_LIST": lambda value: Value(double_list_val=DoubleList(val=value)).SerializeToString(),
}


@dataclass(frozen=True)
class Rows:
    """A batch of entities. `events` and `created`: microseconds since 1970, UTC. `values`: [entities] a field."""

    keys: list[str]
    events: list[int]
    created: list[int]
    values: dict[str, list[bytes]]


def encode(batch: pa.RecordBatch, view: Declared) -> Rows:
    return Rows(
        keys=batch[view.entity.join_key].to_pylist(),
        events=batch[c.EVENT_TIMESTAMP].cast(pa.int64()).to_pylist(),
        created=batch[c.CREATED_TIMESTAMP].cast(pa.int64()).to_pylist(),
        values={field.name: serialized(batch[field.name], field) for field in view.fields},
    )


def serialized(column: pa.Array, field: Field) -> list[bytes]:
    """[rows] the bytes of each value. NaN is a null to Feast, so it is one here."""
    kind = field.dtype.to_value_type().name
    if kind == "DOUBLE":
        return _doubles(column)
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), None, column)
    make = SERIALIZE[kind]
    if pa.types.is_list(column.type):
        return [NULL if value is None else make(value) for value in column.to_pylist()]
    # Most columns repeat their values, so each is serialized once.
    coded = column.dictionary_encode()
    made = [make(value) for value in coded.dictionary.to_pylist()]
    return [NULL if code is None else made[code] for code in coded.indices.to_pylist()]


def texts(values: list[bytes]) -> list[str | None]:
    """[rows] what Feast keeps beside a value in SQLite: scalars as text, nothing for lists and nulls."""
    return [_text(value) if value else None for value in values]


def _text(value: bytes) -> str | None:
    parsed = Value.FromString(value)
    kind = parsed.WhichOneof("val")
    return None if kind.endswith("list_val") else str(getattr(parsed, kind))


def _doubles(column: pa.Array) -> list[bytes]:
    """All at once: a tag and eight bytes each, cut out of one buffer."""
    numbers = column.to_numpy(zero_copy_only=False).astype("<f8")
    framed = np.empty((len(numbers), 9), np.uint8)
    framed[:, 0] = DOUBLE_TAG
    framed[:, 1:] = numbers.view(np.uint8).reshape(-1, 8)
    joined = framed.tobytes()
    null = np.isnan(numbers).tolist()
    return [NULL if null[row] else joined[9 * row : 9 * row + 9] for row in range(len(numbers))]
