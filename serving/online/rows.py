"""Rows of one entity as they were stored, and what a model may see of them now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.contracts.errors import ServiceError
from components.scoring.raw import Column, Ragged
from serving.online import wire
from serving.online.fields import Fields

AHEAD_SECONDS = 600
"""How far an event may lie in the future of the wall clock: machines' clocks differ, but not by a time zone."""


@dataclass(frozen=True)
class Block:
    """n rows of `fields`, whatever their age.

    `stamps` [V, n]: event time by view in nanoseconds since 1970, 0 where there is no row. `present` [C, n]: where a
    value is. `floats` (NaN where none is), `ints` and `objects` (None where none is; a bag is an array): the columns
    by kind, in the order of `fields`.
    """

    fields: Fields
    stamps: NDArray[np.int64]
    present: NDArray[np.bool_]
    floats: NDArray[np.float64]
    ints: NDArray[np.int64]
    objects: NDArray[Any]

    @staticmethod
    def empty(fields: Fields, count: int) -> Block:
        """Rows that nothing is stored about."""
        return Block(
            fields,
            np.zeros((len(fields.views), count), np.int64),
            np.zeros((len(fields.names), count), np.bool_),
            np.full((fields.floats.stop, count), np.nan),
            np.zeros((fields.ints.stop - fields.ints.start, count), np.int64),
            np.full((len(fields.names) - fields.objects.start, count), None, object),
        )

    @staticmethod
    def decoded(fields: Fields, stamps: NDArray[np.int64], blobs: Sequence[Sequence[wire.Blob]]) -> Block:
        """From Feast's bytes: `blobs` [C][n], None or no bytes for a null.

        A value without an event time cannot be aged, so it counts as not stored.

        Raises:
            ServiceError: a value of another kind than the model reads.
        """
        part = fields.floats
        try:
            floats, present_floats = wire.floats(blobs[part])
            part = fields.ints
            ints, present_ints = wire.ints(blobs[part])
            part = fields.objects
            objects, present_objects = wire.objects(blobs[part], fields.dtypes[part])
        except wire.Unreadable as error:
            view, name = fields.stored_as(part.start + error.number)
            raise ServiceError(
                f"the online store holds {error} as {view}:{name}, which the model reads as "
                f"{fields.dtypes[part.start + error.number]}: materialize with the code the model was trained with "
                "(`esmm materialize`), or train it again"
            ) from None
        count = stamps.shape[1]
        parts = [each for each in (present_floats, present_ints, present_objects) if len(each)]
        present = np.concatenate(parts) & (stamps > 0)[fields.view_of]
        shape = (0, count)
        return Block(
            fields,
            stamps,
            present,
            floats if len(floats) else floats.reshape(shape),
            ints if len(ints) else ints.reshape(shape),
            objects if len(objects) else objects.reshape(shape),
        )

    @property
    def arrays(self) -> tuple[NDArray[Any], ...]:
        return self.stamps, self.present, self.floats, self.ints, self.objects

    def value(self, number: int, row: int) -> Any:
        """A stored value as Python has it, of whatever age; None if there is none."""
        if not self.present[number, row]:
            return None
        if number < self.fields.ints.start:
            return float(self.floats[number, row])
        if number < self.fields.objects.start:
            return int(self.ints[number - self.fields.ints.start, row])
        value = self.objects[number - self.fields.objects.start, row]
        return value.tolist() if isinstance(value, np.ndarray) else value

    def without(self, lost: NDArray[np.bool_]) -> Block:
        """The same, but for values [C, n] that are taken as missing."""
        floats, objects = self.floats.copy(), self.objects.copy()
        floats[lost[self.fields.floats]] = np.nan
        objects[lost[self.fields.objects]] = None
        return Block(self.fields, self.stamps, self.present & ~lost, floats, self.ints, objects)

    def take(self, rows: NDArray[np.int64]) -> Block:
        return Block(self.fields, *(array[:, rows] for array in self.arrays))

    def put(self, rows: NDArray[np.int64], other: Block) -> None:
        """Overwrites `rows` with those of `other`, in its order."""
        for mine, theirs in zip(self.arrays, other.arrays, strict=True):
            mine[:, rows] = theirs


@dataclass(frozen=True)
class Seen:
    """What a model sees of a block. `expired`: values by view that are too old, or too far ahead, and so missing.

    `ahead`: those of them whose event lies too far in the future. `known` [n]: whether there is a row in any view.
    """

    columns: dict[str, Column]
    expired: dict[str, int]
    ahead: dict[str, int]
    known: NDArray[np.bool_]


def untimely(block: Block, now: int, wall: bool) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """[V, n] each: rows older than their view's time to live, and rows too far in the future of a wall clock.

    A row exactly as old as its time to live is fresh. `now`: nanoseconds since 1970.
    """
    stored = block.stamps > 0
    age = now - block.stamps
    ahead = age < -AHEAD_SECONDS * 1_000_000_000 if wall else np.zeros_like(stored)
    return stored & (age > block.fields.ttl), stored & ahead


def seen(block: Block, now: int, wall: bool, times: int = 1) -> Seen:
    """`times`: a block of one row is seen as so many equal rows."""
    fields = block.fields
    old, ahead = untimely(block, now, wall)
    known: NDArray[np.bool_] = np.any(block.stamps > 0, axis=0)
    if not (old.any() or ahead.any()):
        return Seen(_columns(block, times), {}, {}, known)
    lost = block.present & (old | ahead)[fields.view_of]
    expired, of_the_future = _counts(fields, lost), _counts(fields, block.present & ahead[fields.view_of])
    return Seen(_columns(block.without(lost), times), expired, of_the_future, known)


def _counts(fields: Fields, lost: NDArray[np.bool_]) -> dict[str, int]:
    by_column = lost.sum(axis=1) * fields.counted
    by_view = np.bincount(fields.view_of, by_column, len(fields.views)).astype(np.int64).tolist()
    return {view.name: count for view, count in zip(fields.views, by_view, strict=True) if count}


def _columns(block: Block, times: int) -> dict[str, Column]:
    """Raw columns as in serving/columns.py: integers with a missing value are floats, a missing bag is empty."""
    fields = block.fields
    ints, floats, objects = block.ints, block.floats, block.objects
    present = block.present[fields.ints]
    complete: list[bool] = np.all(present, axis=1).tolist()
    with_gaps: NDArray[Any] = ints if all(complete) else np.where(present, ints, np.nan)
    if times > 1:
        ints, floats, with_gaps = (
            ints.repeat(times, axis=1),
            floats.repeat(times, axis=1),
            with_gaps.repeat(times, axis=1),
        )
    columns: dict[str, Column] = dict(zip(fields.names, floats, strict=False))
    for name, is_complete, whole, other in zip(fields.names[fields.ints], complete, ints, with_gaps, strict=True):
        columns[name] = whole if is_complete else other
    for name, dtype, values in zip(fields.names[fields.objects], fields.dtypes[fields.objects], objects, strict=True):
        if dtype in ("strings", "floats"):
            bags = _ragged(values, object if dtype == "strings" else np.float64)
            columns[name] = bags if times == 1 else bags[np.zeros(times, np.int64)]
        else:
            columns[name] = values if times == 1 else values.repeat(times)
    return columns


def _ragged(bags: NDArray[Any], kind: Any) -> Ragged:
    some = [bag for bag in bags if bag is not None]
    lengths = [0 if bag is None else len(bag) for bag in bags]
    values = np.concatenate(some) if some else np.zeros(0, kind)
    return Ragged(values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
