"""Rows of items that were read before, decoded: a warm request gathers them from arrays.

Bounded by a number of items, of which those asked for longest ago go first, and in time by `seconds` (monotonic).
The rows are those of one state of the store, its token: as soon as a reader sees another they are dropped. A row is
kept only if the token was known before its trip began and the trip saw the same, so that a row read before a
materialization is never kept as one read after it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.online.fields import Fields
from serving.online.rows import Block

EVICTED = 16
"""One part in so many goes at once when it is full: to find the oldest takes a look at all."""


@dataclass(frozen=True)
class Hits:
    """Of n ids asked for at `asked`: `places` [n] says which were there, `block` holds those, `token` the state they
    are of."""

    places: NDArray[np.bool_]
    block: Block
    token: Hashable
    asked: float


class ItemCache:
    """Safe to share between threads. `size` 0 keeps nothing."""

    def __init__(self, fields: Fields, size: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.fields = fields
        self.size = size
        self.seconds = seconds
        self.clock = clock
        # [size, columns], so that what is known of an item lies together.
        self._rows: list[NDArray[Any]] = [
            np.zeros((size, len(array)), array.dtype) for array in Block.empty(fields, 0).arrays
        ]
        self._read = np.zeros(size)
        self._used = np.zeros(size, np.int64)
        self._tick = 0
        self._ids: list[str] = [""] * size
        self._slots: dict[str, int] = {}
        self._free: list[int] = []
        self._token: Hashable = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._slots)

    def get(self, ids: list[str]) -> Hits:
        with self._lock:
            now = self.clock()
            slots = np.fromiter(map(self._slots.get, ids, repeat(-1)), np.int64, len(ids))
            there = slots >= 0
            if there.any():
                there &= self._read[slots] >= now - self.seconds
            if not there.all():
                slots = slots[there]
            self._tick += 1
            self._used[slots] = self._tick
            rows = Block(self.fields, *(array.take(slots, axis=0).T for array in self._rows))
            return Hits(there, rows, self._token, now)

    def put(self, ids: list[str], block: Block, before: Hashable, token: Hashable, began: float) -> None:
        """Keeps the rows of a trip that began at `began` (of the clock), when the cache's token was `before`."""
        with self._lock:
            if not self.size or before != self._token:
                return
            if token != before:
                self._clear(token)
                return
            if not ids:
                return
            wanted = ids[: self.size]
            self._tick += 1
            known = [slot for slot in map(self._slots.get, wanted) if slot is not None]
            self._used[known] = self._tick
            self._make_room(len(wanted) - len(known))
            slots = np.fromiter(map(self._slot, wanted), np.int64, len(wanted))
            self._used[slots] = self._tick
            # Of two requests that read an item at once, the one that began earlier does not replace the other.
            newer = np.flatnonzero(self._read[slots] <= began)
            for mine, theirs in zip(self._rows, block.arrays, strict=True):
                mine[slots[newer]] = theirs[:, newer].T
            self._read[slots[newer]] = began

    def _clear(self, token: Hashable) -> None:
        self._token = token
        self._slots.clear()
        self._free.clear()

    def _slot(self, id_: str) -> int:
        slot = self._slots.get(id_)
        if slot is None:
            # Places are taken in order, and from the free ones once all have been taken.
            slot = self._free.pop() if self._free else len(self._slots)
            self._slots[id_] = slot
            self._ids[slot] = id_
            self._read[slot] = -np.inf
        return slot

    def _make_room(self, needed: int) -> None:
        room = self.size - len(self._slots)
        if needed <= room:
            return
        taken = np.fromiter(self._slots.values(), np.int64, len(self._slots))
        count = min(len(taken), max(needed - room, self.size // EVICTED))
        oldest = taken[np.argpartition(self._used[taken], count - 1)[:count]]
        for slot in oldest.tolist():
            del self._slots[self._ids[slot]]
            self._free.append(slot)
