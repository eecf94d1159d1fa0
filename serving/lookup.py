"""Online features of one user, of one group of their features and of the items to rank.

Read in one round trip in Feast's own layout (serving/online), the user and the group afresh for every request, items
from a bounded cache where they were read before. What Feast leaves to its caller happens here: a value older than its
view's time to live is taken as missing, and an entity nothing is stored about is told from one whose values are null.
Imports neither DuckDB nor anything of training.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from components.contracts import columns as c
from components.contracts import layout
from components.contracts.errors import ServiceError
from components.contracts.online import MATERIALIZED, ONLINE, REGISTRY, Place
from components.contracts.spec import FeatureSpec
from components.contracts.times import parse_utc
from components.scoring.raw import Column
from serving.columns import objects
from serving.online.cache import Hits, ItemCache
from serving.online.cells import EPOCH, Cell, cells_of
from serving.online.fields import Fields, fields
from serving.online.reader import Ask, Reader, State
from serving.online.registry import RegistryWatch
from serving.online.rows import AHEAD_SECONDS, Block, seen
from serving.settings import CACHED_ITEMS

Clock = Literal["wall", "frozen"] | Callable[[], float]

ITEM_SECONDS = 60.0
"""How long a kept row may be served although the store has another, written by something that left no note."""
PUSHED_SECONDS = 0.5
"""The same for views that are pushed, whose rows change at any time."""
WARN_SECONDS = 60.0

log = logging.getLogger("bentoml.esmm")


@dataclass(frozen=True)
class Lookup:
    """`columns`: raw columns for the scorer, [items] each. `expired`: stored values taken as missing for their time,
    each counted once; `expired_by_view` the same by view, without views that have none.

    `unknown_group` is None for a model that reads no view of groups.
    """

    columns: dict[str, Column]
    unknown_user: bool = False
    unknown_group: bool | None = None
    unknown_items: list[str] = field(default_factory=list)
    expired_by_view: dict[str, int] = field(default_factory=dict)

    @property
    def expired(self) -> int:
        return sum(self.expired_by_view.values())


class NullLookup:
    """The lookup of a model that reads no feature views: ids and context are all there is."""

    def rows(
        self, user_id: str, item_ids: list[str], context: Mapping[str, Column], group_id: str | None = None
    ) -> Lookup:
        return Lookup(_given(user_id, item_ids, context))

    def materialized_as_of(self) -> str | None:
        return None

    def freshness(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        """There is nothing to close."""


@dataclass(frozen=True)
class _Plan:
    """What is read of whom. `items`: a cache for views that are materialized, and one for views that are pushed."""

    pushed: frozenset[str]
    user: Fields | None
    group: Fields | None
    items: tuple[ItemCache, ...]


@dataclass(frozen=True)
class _Found:
    """Blocks of one request: `user`, `group` of one row, `items` of a row an item; None: nothing to read.

    `cached`: for each block of items, which rows were kept from before.
    """

    state: State
    user: Block | None
    group: Block | None
    items: list[Block]
    cached: list[NDArray[np.bool_]]


class OnlineLookup:
    """Reads a dataset's live feature store. Safe to share between threads.

    Args:
        clock: what a value's age is measured from: "wall" the present, "frozen" the as-of of the materialization, a
            function the time it gives (epoch seconds).
        cache_items: items kept in memory; 0 reads every item from the store.

    Raises:
        ServiceError: if nothing is materialized there, the store or its registry does not answer, or a view or feature
            of the spec is not in it.
    """

    def __init__(self, place: Place, spec: FeatureSpec, clock: Clock, cache_items: int = CACHED_ITEMS) -> None:
        self.place = place
        self.spec = spec
        self.clock = clock
        self._cache_items = cache_items
        self._as_of: tuple[str, int] = ("", 0)
        self._asked = self._kept = 0
        self._expired: Counter[str] = Counter()
        self._warned = -np.inf
        _check_files(place)
        self._registry = RegistryWatch(place, spec)
        try:
            self._reader = _reader(place, self._registry)
            if self._reader.state().materialized is None:
                raise ServiceError(_nothing(place, self._reader.where))
        except ServiceError:
            self._registry.close()
            raise
        self._plan = self._planned(self._registry.views().pushed)

    def rows(
        self, user_id: str, item_ids: list[str], context: Mapping[str, Column], group_id: str | None = None
    ) -> Lookup:
        """Raw columns for each of `item_ids`, in their order: ids, context, and every stored feature of the spec.

        Args:
            context: raw columns of the context, [items] each.
            group_id: None if the request says none; then what is stored by group is missing.

        Raises:
            ServiceError: if the store does not answer, lost a view or feature of the spec, or holds a value of another
                kind than the model reads.
        """
        found = self._find(user_id, item_ids, group_id)
        now, wall = self._now(found.state), self.clock == "wall"
        columns = _given(user_id, item_ids, context)
        expired: Counter[str] = Counter()
        ahead: Counter[str] = Counter()
        known: dict[str, NDArray[np.bool_]] = {}
        for block in (found.user, found.group, *found.items):
            if block is None:
                continue
            entity = block.fields.entity
            view = seen(block, now, wall, 1 if entity == c.ITEM_ID else len(item_ids))
            expired.update(view.expired)
            ahead.update(view.ahead)
            known[entity] = known.get(entity, False) | view.known
            columns |= view.columns
        self._count(found, expired, ahead)
        there = known.get(c.ITEM_ID)
        return Lookup(
            columns=columns,
            unknown_user=c.USER_ID in known and not known[c.USER_ID][0],
            unknown_group=not known[c.GROUP_ID][0] if c.GROUP_ID in known else None,
            unknown_items=[] if there is None else [item_ids[number] for number in np.flatnonzero(~there)],
            expired_by_view=dict(expired),
        )

    def inspect(self, user_id: str, item_ids: list[str], group_id: str | None = None) -> list[Cell]:
        """Every stored value that `rows` would meet, with its time: the user's, the group's, then item by item.

        Raises:
            ServiceError: as `rows`.
        """
        found = self._find(user_id, item_ids, group_id)
        now, wall = self._now(found.state), self.clock == "wall"
        store = np.zeros(1, np.bool_)
        cells: list[Cell] = []
        if found.user is not None:
            cells += cells_of(found.user, [user_id], store, now, wall)
        if found.group is not None and group_id is not None:
            cells += cells_of(found.group, [group_id], store, now, wall)
        of_items = [
            cell
            for block, cached in zip(found.items, found.cached, strict=True)
            for cell in cells_of(block, item_ids, cached, now, wall)
        ]
        order = {item: number for number, item in enumerate(item_ids)}
        return cells + sorted(of_items, key=lambda cell: order[cell.key])

    def materialized_as_of(self) -> str | None:
        """As-of of the values in the store, or None if that cannot be read any more."""
        try:
            done = self._reader.state().materialized
        except ServiceError:
            return None
        return done.as_of if done is not None else None

    def freshness(self) -> dict[str, Any]:
        """For /info: watermarks by view, values taken as missing so far by view, the cache, and the registry's state.

        What cannot be read any more is left out.
        """
        try:
            done = self._reader.state().materialized
        except ServiceError:
            done = None
        views = {
            view.name: {
                **({"as_of": state.as_of or done.as_of, "newest_event": state.newest_event} if state and done else {}),
                "pushed": view.name in self._plan.pushed,
                "expired": self._expired[view.name],
            }
            for view in self.spec.views
            for state in [done.views.get(view.name) if done is not None else None]
        }
        cache = {"items": sum(map(len, self._plan.items)), "asked": self._asked, "hits": self._kept}
        return {"views": views, "cache": cache, "registry": self._registry.unreachable or "read"}

    def close(self) -> None:
        """Stops the registry's refresh and closes all connections."""
        self._reader.close()
        self._registry.close()

    def _find(self, user_id: str, item_ids: list[str], group_id: str | None) -> _Found:
        plan = self._current()
        hits = [cache.get(item_ids) for cache in plan.items]
        asks = [] if plan.user is None else [Ask(plan.user, [user_id])]
        if plan.group is not None and group_id is not None:
            asks.append(Ask(plan.group, [group_id]))
        asks += [
            Ask(cache.fields, [id_ for id_, there in zip(item_ids, hit.places.tolist(), strict=True) if not there])
            for cache, hit in zip(plan.items, hits, strict=True)
        ]
        trip = self._reader.read(asks)
        blocks = iter(trip.blocks)
        user = next(blocks) if plan.user is not None else None
        group = None if plan.group is None else Block.empty(plan.group, 1) if group_id is None else next(blocks)
        items: list[Block] = []
        cached: list[NDArray[np.bool_]] = []
        for cache, hit, ask, read in zip(plan.items, hits, asks[len(asks) - len(hits) :], blocks, strict=True):
            cache.put(list(ask.keys), read, hit.token, trip.state.token, hit.asked)
            if hit.places.any() and hit.token != trip.state.token:
                # Materialized since these rows were kept: all of the items afresh, once.
                read = self._reader.read([Ask(cache.fields, item_ids)]).blocks[0]
                hit = Hits(np.zeros(len(item_ids), np.bool_), hit.block, trip.state.token, hit.asked)
            items.append(_together(hit, read))
            cached.append(hit.places)
        return _Found(trip.state, user, group, items, cached)

    def _current(self) -> _Plan:
        """The plan, made anew if views began or ceased to be pushed. Raises ServiceError if a view is gone."""
        pushed = self._registry.views().pushed
        if pushed != self._plan.pushed:
            self._plan = self._planned(pushed)
        return self._plan

    def _planned(self, pushed: frozenset[str]) -> _Plan:
        every = frozenset(view.name for view in self.spec.views)
        caches = [
            ItemCache(found, self._cache_items, seconds)
            for names, seconds in ((every - pushed, ITEM_SECONDS), (every & pushed, PUSHED_SECONDS))
            for found in [fields(self.spec, c.ITEM_ID, names)]
            if found is not None
        ]
        user, group = (fields(self.spec, entity, every) for entity in (c.USER_ID, c.GROUP_ID))
        return _Plan(pushed, user, group, tuple(caches))

    def _now(self, state: State) -> int:
        """Nanoseconds since 1970 that ages are measured from, whole microseconds."""
        if self.clock == "wall":
            return time.time_ns() // 1000 * 1000
        if self.clock != "frozen":
            return round(self.clock() * 1e6) * 1000
        if state.materialized is None:
            raise ServiceError(_nothing(self.place, self._reader.where))
        text, known = self._as_of
        if text != state.materialized.as_of:
            text = state.materialized.as_of
            known = _nanoseconds(parse_utc(text))
            self._as_of = text, known
        return known

    def _count(self, found: _Found, expired: Counter[str], ahead: Counter[str]) -> None:
        # Not exact under threads, which is enough for what /info shows.
        self._asked += sum(len(places) for places in found.cached)
        self._kept += sum(int(places.sum()) for places in found.cached)
        if expired:
            self._expired.update(expired)
        if ahead and time.monotonic() - self._warned > WARN_SECONDS:
            self._warned = time.monotonic()
            log.warning(
                "values of %s lie more than %d s in the future and are taken as missing: compare the clocks and time "
                "zones of what writes them",
                ", ".join(sorted(ahead)),
                AHEAD_SECONDS,
            )


def _reader(place: Place, registry: RegistryWatch) -> Reader:
    """The way to read this kind of store. Each is imported only where it is used."""
    settings = place.online_store
    if settings["type"] == "sqlite":
        from serving.online.sqlite_reader import SqliteReader

        return SqliteReader(place)
    if settings["type"] == "redis" and settings["redis_type"] in ("redis", "redis_cluster"):
        from serving.online.redis_reader import RedisReader

        return RedisReader(place)
    from serving.online.feast_reader import FeastReader

    return FeastReader(place, registry.store)


def _check_files(place: Place) -> None:
    if place.redis is not None:
        return
    needed = [REGISTRY, *([ONLINE] if place.online_store["type"] == "sqlite" else []), MATERIALIZED]
    absent = [name for name in needed if not (place.folder / name).is_file()]
    if absent:
        raise ServiceError(
            f"{place.folder} holds no {absent[0]}, so no features are materialized for {place.project!r}: run "
            "`esmm materialize`, or check --home"
        )


def _nothing(place: Place, where: str) -> str:
    note = MATERIALIZED if place.redis is None else f"key {layout.materialized_key(place.project)!r}"
    return f"{where} has no {note}, so no features are materialized for {place.project!r}: run `esmm materialize`"


def _given(user_id: str, item_ids: list[str], context: Mapping[str, Column]) -> dict[str, Column]:
    return {c.USER_ID: objects([user_id] * len(item_ids)), c.ITEM_ID: objects(item_ids), **context}


def _together(hit: Hits, read: Block) -> Block:
    """Kept rows and rows just read, in the order of the ids."""
    if not hit.places.any():
        return read
    if hit.places.all():
        return hit.block
    whole = Block.empty(read.fields, len(hit.places))
    whole.put(np.flatnonzero(hit.places), hit.block)
    whole.put(np.flatnonzero(~hit.places), read)
    return whole


def _nanoseconds(value: datetime) -> int:
    return (value - EPOCH) // timedelta(microseconds=1) * 1000
