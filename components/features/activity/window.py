"""The events of the last seven days in memory, by user and by item, so that a row can be counted in microseconds.

What was loaded lies in sorted arrays; what came since in dictionaries, which are merged in now and then. An event takes
about 50 bytes, an id that is new about 200.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from components.contracts import activity
from components.contracts import columns as c
from components.contracts.activity import Floats, Ints
from components.features.activity.events import KIND, TIME, Event

MERGE_EVENTS = 200_000
"""So many new events of a kind are merged into the arrays, and outdated ones dropped."""
USER, ITEM = "user", "item"


class Ids:
    """Strings and their numbers, from 0."""

    def __init__(self) -> None:
        self._number: dict[str, int] = {}

    def number(self, name: str) -> int:
        return self._number.setdefault(name, len(self._number))

    def numbers(self, names: pa.ChunkedArray) -> Ints:
        coded = names.combine_chunks().dictionary_encode()
        new = np.array([self.number(name) for name in coded.dictionary.to_pylist()], np.int64)
        return new[coded.indices.to_numpy()] if len(coded) else np.zeros(0, np.int64)


class Events:
    """The events of one kind."""

    def __init__(self, user: Ints, item: Ints, time: Ints) -> None:
        self._sort(user, item, time)

    def __len__(self) -> int:
        return len(self._time) + len(self._new)

    def add(self, user: int, item: int, time: int) -> bool:
        """False if it is there already."""
        if (user, item, time) in self._new or self._loaded(user, item, time):
            return False
        self._new.add((user, item, time))
        self._recent[USER][user].append(time)
        self._recent[ITEM][item].append(time)
        return True

    def of(self, side: str, entity: Ints) -> tuple[Ints, Ints]:
        """(row, time) of each event of the given users or items."""
        entities, times = self._by[side]
        first, end = np.searchsorted(entities, entity), np.searchsorted(entities, entity, "right")
        length = end - first
        row = np.repeat(np.arange(len(entity)), length)
        place = np.arange(len(row)) + np.repeat(first - (length.cumsum() - length), length)
        recent = self._recent[side]
        late = [(n, time) for n, entity in enumerate(entity.tolist()) for time in recent.get(entity, ())]
        more = np.array(late, np.int64).reshape(-1, 2)
        return np.concatenate([row, more[:, 0]]), np.concatenate([times[place], more[:, 1]])

    def merge(self, since: int) -> None:
        """Drops what happened before `since`, once enough is new."""
        if len(self._new) < MERGE_EVENTS:
            return
        new = np.array(list(self._new), np.int64).reshape(-1, 3)
        found = [np.concatenate([old, new[:, n]]) for n, old in enumerate((self._user, self._item, self._time))]
        keep = found[2] >= since
        self._sort(*(values[keep] for values in found))

    def _sort(self, user: Ints, item: Ints, time: Ints) -> None:
        order = np.lexsort((time, user))
        self._user, self._item, self._time = user[order], item[order], time[order]
        by_item = np.lexsort((time, item))
        self._by: dict[str, tuple[Ints, Ints]] = {
            USER: (self._user, self._time),
            ITEM: (item[by_item], time[by_item]),
        }
        self._new: set[tuple[int, int, int]] = set()
        self._recent: dict[str, defaultdict[int, list[int]]] = {USER: defaultdict(list), ITEM: defaultdict(list)}

    def _loaded(self, user: int, item: int, time: int) -> bool:
        first, end = np.searchsorted(self._user, [user, user + 1])
        low, high = first + np.searchsorted(self._time[first:end], [time, time + 1])
        return bool((self._item[low:high] == item).any())


class Window:
    def __init__(self, events: pa.Table) -> None:
        """`events`: of events.SCHEMA, each once."""
        self.ids = {USER: Ids(), ITEM: Ids()}
        users, items = self.ids[USER].numbers(events[c.USER_ID]), self.ids[ITEM].numbers(events[c.ITEM_ID])
        times = events[TIME].cast(pa.int64()).to_numpy()
        kinds = np.array(events[KIND].to_pylist(), dtype=object)
        self._kinds: dict[str, Events] = {}
        for kind in activity.KINDS:
            mine: NDArray[np.bool_] = kinds == kind
            self._kinds[kind] = Events(users[mine], items[mine], times[mine])

    def __len__(self) -> int:
        return sum(map(len, self._kinds.values()))

    def add(self, event: Event) -> bool:
        """False if it is there already."""
        user, item = self.ids[USER].number(event.user), self.ids[ITEM].number(event.item)
        return self._kinds[event.kind].add(user, item, event.time)

    def count(self, side: str, names: Sequence[str], stamp: int) -> dict[str, Ints | Floats]:
        """Columns of `<side>_activity` for the users or items `names`, at `stamp`."""
        entity = np.array([self.ids[side].number(name) for name in names], np.int64)
        found = {kind: events.of(side, entity) for kind, events in self._kinds.items()}
        return activity.features(side, found, np.arange(len(names)), np.full(len(names), stamp))

    def forget(self, stamp: int) -> None:
        """Lets go of what counts at no stamp from this one on."""
        for events in self._kinds.values():
            events.merge(stamp - activity.WINDOW_US)
