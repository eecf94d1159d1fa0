"""Feast's bytes as numpy columns.

A stored value is a serialized `feast.types.Value`, no bytes where it is null; an event time is a serialized
`Timestamp`. Numbers and times are decoded many at once: each has one way of being written, which is checked byte for
byte. What is written in any other way goes through Feast's own protobuf, and what is then of another kind than the
model reads is an error, never a number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from feast.protos.feast.types.Value_pb2 import Value
from google.protobuf.message import DecodeError
from google.protobuf.timestamp_pb2 import Timestamp
from numpy.typing import NDArray

from components.contracts.spec import Dtype

Blob = bytes | None
DOUBLE, DOUBLE_BYTES = 0x29, 9
INT32, INT64 = 0x18, 0x20
SECONDS, NANOS = 0x08, 0x10
BOOLS = {b"\x38\x00": False, b"\x38\x01": True}
KINDS: dict[Dtype, tuple[str, ...]] = {
    "float": ("double_val", "float_val"),
    "int": ("int64_val", "int32_val"),
    "string": ("string_val",),
    "bool": ("bool_val",),
    "strings": ("string_list_val",),
    "floats": ("double_list_val", "float_list_val"),
}
"""How the model's types are stored. A whole number is no float here: Feast would not have written one for it."""
FEW = 12
"""Fewer values than this, as of one user, are decoded faster one by one."""
MEMORY = 65_536
"""Strings whose bytes are remembered: categories recur, and one object for equal strings saves memory too."""
LARGEST_SECONDS = 9_000_000_000
"""Beyond it a time in nanoseconds does not fit into 64 bits."""


class Unreadable(Exception):
    """`number`: which of the columns holds it; the message says what it holds."""

    def __init__(self, number: int, said: str) -> None:
        super().__init__(said)
        self.number = number


def floats(columns: Sequence[Sequence[Blob]]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """[C, n] each: values (NaN where there is none), and where there is one.

    Raises:
        Unreadable: a value that is no float.
    """
    shape, flat, present, some = _flat(columns)
    values = np.full(len(flat), np.nan)
    if len(some) < FEW:
        _one_by_one(columns, values, present, "float")
        return values.reshape(shape), present.reshape(shape)
    joined = b"".join(some)
    bytes_ = np.frombuffer(joined, np.uint8)
    if len(joined) == DOUBLE_BYTES * len(some) and (bytes_[::DOUBLE_BYTES] == DOUBLE).all():
        # A first blob of another kind would begin where a tag has to be, so all are doubles.
        values[present] = np.ascontiguousarray(bytes_.reshape(-1, DOUBLE_BYTES)[:, 1:]).view("<f8")[:, 0]
    else:
        _one_by_one(columns, values, present, "float")
    return values.reshape(shape), present.reshape(shape)


def ints(columns: Sequence[Sequence[Blob]]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """[C, n] each: values (0 where there is none), and where there is one.

    Raises:
        Unreadable: a value that is no integer.
    """
    shape, flat, present, some = _flat(columns)
    values = np.zeros(len(flat), np.int64)
    read = _varints(b"".join(some)) if len(some) >= FEW else None
    tags = read[0][::2] if read is not None and len(read[0]) == 2 * len(some) else None
    if read is not None and tags is not None and ((tags == INT64) | (tags == INT32)).all():
        values[present] = read[0][1::2].view(np.int64)
    else:
        _one_by_one(columns, values, present, "int")
    return values.reshape(shape), present.reshape(shape)


def objects(columns: Sequence[Sequence[Blob]], dtypes: Sequence[Dtype]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """[C, n] each: values (None where there is none; of a bag an array, None for an empty one), and where there is one.

    Raises:
        Unreadable: a value of another kind than its column's type.
    """
    shape = (len(columns), len(columns[0]) if columns else 0)
    values, present = np.empty(shape, object), np.zeros(shape, np.bool_)
    for number, (column, dtype) in enumerate(zip(columns, dtypes, strict=True)):
        try:
            read = list(map(_READ[dtype], column))
        except _Other as error:
            raise Unreadable(number, str(error)) from None
        present[number] = [value is not None for value in read]
        if dtype in ("string", "bool"):
            values[number] = read
        else:
            # One by one: numpy would make a matrix of bags that happen to be equally long.
            for place, value in enumerate(read):
                values[number, place] = value
    return values, present


def times(blobs: Sequence[Blob]) -> NDArray[np.int64]:
    """Event times [n] in nanoseconds since 1970, 0 where there is none.

    Raises:
        DecodeError: bytes that are no time.
    """
    stamps: list[bytes] = list(filter(None, blobs))
    regular: NDArray[np.int64] | None = None
    if len(stamps) >= FEW:
        read = _varints(b"".join(stamps))
        if read is not None:
            regular = _regular_times(*read, np.fromiter(map(len, stamps), np.int64, len(stamps)))
    if regular is None:
        regular = np.array(list(map(_time, stamps)), np.int64)
    if len(stamps) == len(blobs):
        return regular
    found = np.zeros(len(blobs), np.int64)
    found[np.fromiter(map(bool, blobs), np.bool_, len(blobs))] = regular
    return found


def _flat(
    columns: Sequence[Sequence[Blob]],
) -> tuple[tuple[int, int], list[Blob], NDArray[np.bool_], list[bytes]]:
    flat = list(chain.from_iterable(columns))
    some: list[bytes] = list(filter(None, flat))
    if len(some) == len(flat):
        present = np.ones(len(flat), np.bool_)
    else:
        present = np.fromiter(map(bool, flat), np.bool_, len(flat))
    return (len(columns), len(columns[0]) if columns else 0), flat, present, some


def _varints(joined: bytes) -> tuple[NDArray[np.uint64], NDArray[np.int64]] | None:
    """All varints in it, and where each ends (exclusive); None if the bytes are not just varints."""
    raw = np.frombuffer(joined, np.uint8)
    ends = np.flatnonzero(raw < 128) + 1
    if not len(raw):
        return np.zeros(0, np.uint64), ends
    if not len(ends) or ends[-1] != len(raw):
        return None
    starts = np.empty_like(ends)
    starts[0], starts[1:] = 0, ends[:-1]
    lengths = ends - starts
    if lengths.max() > 10:
        return None
    places = np.arange(len(raw)) - np.repeat(starts, lengths)
    parts = (raw & 127).astype(np.uint64) << (7 * places).astype(np.uint64)
    return np.add.reduceat(parts, starts), ends


def _regular_times(
    values: NDArray[np.uint64], ends: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """Times written as seconds, or as seconds and nanoseconds; None if one is written otherwise."""
    until = np.searchsorted(ends, np.cumsum(lengths)) + 1
    first = np.concatenate([[0], until[:-1]])
    long = until - first == 4
    if not (long | (until - first == 2)).all() or (values[first] != SECONDS).any():
        return None
    seconds = np.clip(values[first + 1].view(np.int64), -LARGEST_SECONDS, LARGEST_SECONDS)
    found: NDArray[np.int64] = seconds * 1_000_000_000
    if (values[first[long] + 2] != NANOS).any():
        return None
    found[long] += values[first[long] + 3].view(np.int64)
    return found


def _time(blob: bytes) -> int:
    stamp = Timestamp.FromString(blob)
    seconds, nanos = int(stamp.seconds), int(stamp.nanos)
    return max(-LARGEST_SECONDS, min(LARGEST_SECONDS, seconds)) * 1_000_000_000 + nanos


class _Other(Exception):
    """A value of another kind than its type's."""


def _proto(blob: bytes, dtype: Dtype) -> Any:
    """Raises _Other."""
    try:
        value = Value.FromString(blob)
    except DecodeError:
        raise _Other("bytes that Feast did not write") from None
    kind = value.WhichOneof("val")
    if kind is None or kind == "null_val":
        return None
    if kind not in KINDS[dtype]:
        raise _Other(f"a {kind}")
    return getattr(value, kind)


def _one_by_one(
    columns: Sequence[Sequence[Blob]], values: NDArray[Any], present: NDArray[np.bool_], dtype: Dtype
) -> None:
    """Fills in `values` and clears `present` of nulls that are written out. Raises Unreadable."""
    for place in np.flatnonzero(present).tolist():
        number, row = divmod(place, len(columns[0]))
        try:
            value = _proto(columns[number][row] or b"", dtype)
        except _Other as error:
            raise Unreadable(number, str(error)) from None
        if value is None:
            present[place] = False
        else:
            values[place] = value


class _Strings(dict[Blob, str | None]):
    """Bytes of a stored string to the string."""

    def __missing__(self, blob: Blob) -> str | None:
        if not blob:
            return None
        value: str | None = _proto(blob, "string")
        if len(self) >= MEMORY:
            self.clear()
        self[blob] = value
        return value


def _bool(blob: Blob) -> bool | None:
    if not blob:
        return None
    known = BOOLS.get(blob)
    return known if known is not None else _proto(blob, "bool")


def _strings(blob: Blob) -> NDArray[Any] | None:
    value = _proto(blob, "strings") if blob else None
    return _array(value.val, object) if value is not None and len(value.val) else None


def _floats(blob: Blob) -> NDArray[Any] | None:
    value = _proto(blob, "floats") if blob else None
    return _array(value.val, np.float64) if value is not None and len(value.val) else None


def _array(values: Iterable[Any], kind: Any) -> NDArray[Any]:
    return np.array(list(values), kind)


_READ: dict[Dtype, Any] = {"string": _Strings().__getitem__, "bool": _bool, "strings": _strings, "floats": _floats}
