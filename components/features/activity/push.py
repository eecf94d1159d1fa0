"""Streams activity: events in, the rows of those they concern out, online at once and offline for training.

    event -> is it new? -> rows of its user and its item at `stamp`, by contracts/activity.py
          -> journal -> online store -> `created` = now -> offline tables (some seconds later, in one file a view)

A row says what was known just before its `stamp`, and is `created` when it could be read: a point-in-time join sees it
from exactly then on. docs/streaming.md says what that means, and what becomes of events that are late, ahead, or twice.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

from components.contracts import activity, duck
from components.contracts import columns as c
from components.contracts.dataset import FEATURES, DatasetInfo, read_info, view_names
from components.contracts.errors import UsageError
from components.contracts.locks import exclusive, is_held
from components.contracts.online import Materialized, Place
from components.contracts.paths import Home
from components.contracts.times import parse_utc
from components.features.activity import events
from components.features.activity import online as push_online
from components.features.activity import tables as push_tables
from components.features.activity.build import UTC_US, VIEWS
from components.features.activity.clock import AHEAD_SECONDS, SECOND, Clock, FrozenClock, WallClock
from components.features.activity.events import BadLine, Event
from components.features.activity.journal import FOLDER, LOCK, REFUSED, Journal, Push, Rows
from components.features.activity.online import Online
from components.features.activity.window import USER, Window
from components.features.online.targets import LOCK as MATERIALIZE_LOCK
from components.features.tables import ARROW_TYPES, declared
from feature_repo.declare import dtype_of

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
GATHER_SECONDS = 0.2
"""How long events are gathered before they go online together."""
SETTLE_SECONDS = 10.0
"""How long rows that are online wait for their offline file: a file a push would be five a second."""
KEEP_EVENTS = timedelta(days=8)
"""The journal's events are kept longer than they count: a clock may be set back."""
REWRITE_SECONDS = 3_600
"""After a materialization, rows pushed in this time before its as-of and later are written online again: it may not
have known them yet."""


@dataclass
class Counts:
    """What became of the lines. `outdated`: older than the window, so that no count changes; `early`: ahead of the
    clock, counted once it is reached; `refused`: by reason."""

    lines: int = 0
    counted: int = 0
    duplicates: int = 0
    outdated: int = 0
    early: int = 0
    rows: int = 0
    pushes: int = 0
    recovered: int = 0
    refused: dict[str, int] = field(default_factory=dict)


class Pusher:
    """Made by `opened`. Not for two threads at once."""

    def __init__(
        self, data: Path, views: tuple[str, ...], journal: Journal, window: Window, online: Online, clock: Clock,
        ahead_seconds: float, may_compact: Callable[[], bool],
    ) -> None:  # fmt: skip
        self.counts = Counts()
        self._data, self._views, self._journal, self._window = data, views, journal, window
        self._online, self._clock, self._may_compact = online, clock, may_compact
        self._ahead = round(ahead_seconds * SECOND)
        self._held: list[tuple[int, Event]] = []
        self._taken: list[Event] = []
        self._taken_at = 0
        self._early: list[Event] = []
        self._pushes: list[Push] = []
        self._settled_at = time.monotonic()
        self._stamp = self._newest_stamp()
        self._materialized = online.materialized()

    def take_line(self, line: str) -> str | None:
        """As `take`; a line that is no event is counted, kept in refused.jsonl, and why is returned."""
        if not line.strip():
            return None
        try:
            self.take(events.parse(line))
            return None
        except BadLine as error:
            self.counts.lines += 1
            reason = str(error)
            self.counts.refused[reason] = self.counts.refused.get(reason, 0) + 1
            self._journal.refuse(line.rstrip("\n"), reason)
            return reason

    def take(self, event: Event) -> None:
        """An event for the next `flush`. Raises BadLine if it is further ahead of the clock than it may be."""
        now = self._clock.now()
        if event.time >= now + self._ahead:
            raise BadLine(f"is more than {self._ahead // SECOND} seconds ahead of the clock")
        self.counts.lines += 1
        if self._taken and self._clock.has_passed(self._taken_at, event.time):
            self.flush()
        self._clock.sees(event.time)
        self._taken_at = self._taken_at if self._taken else self._clock.now()
        (self._early if event.time >= self._clock.now() else self._taken).append(event)

    def flush(self) -> Push | None:
        """Writes the rows of everybody concerned online. None if nothing is new."""
        self._hold()
        now = self._clock.now()
        while self._held and self._held[0][0] < now:
            self._taken.append(heapq.heappop(self._held)[1])
        stamp = max(now, self._stamp + 1)
        new = self._new(stamp)
        push = None
        if new:
            push = Push(stamp, new, self._rows(new, stamp))
            self._journal.begin(push)
            self._write(push)
            self._stamp = stamp
            self.counts.counted += len(new)
            self._window.forget(stamp)
        self._follow_materialization()
        if time.monotonic() - self._settled_at >= SETTLE_SECONDS:
            self.settle()
        return push

    def settle(self) -> None:
        """Appends what is online to the offline tables, and puts small files together."""
        for view in self._views:
            rows = [_table(view, push) for push in self._pushes if view in push.rows]
            if rows:
                push_tables.append_rows(self._data / FEATURES / view, pa.concat_tables(rows))
        happened = [event for push in self._pushes for event in push.events]
        if happened:
            push_tables.append_rows(self._journal.events, events.table(happened))
        if self._pushes:
            self._journal.settled([event for _, event in self._held])
        self._pushes = []
        self._settled_at = time.monotonic()
        if self._may_compact():
            self._compact()

    def recover(self) -> None:
        """Takes up what a killed process left: writes online what may not have got there, then all offline."""
        left = self._journal.pending
        self.counts.recovered = len(left.held) + sum(len(push.events) for push in left.pushes)
        for push in left.pushes:
            self._stamp = max(self._stamp, push.stamp)
            if push.created is None:
                self._write(push)
            else:
                self._pushes.append(push)
        self._held = [(event.time, event) for event in left.held]
        heapq.heapify(self._held)
        self.settle()
        self._write_again()

    @property
    def refused_file(self) -> Path:
        return self._journal.folder / REFUSED

    @property
    def waiting(self) -> int:
        """Events that are ahead of the clock."""
        return len(self._held)

    def _hold(self) -> None:
        if not self._early:
            return
        self._journal.hold(self._early)
        for event in self._early:
            heapq.heappush(self._held, (event.time, event))
        self.counts.early += len(self._early)
        self._early = []

    def _new(self, stamp: int) -> list[Event]:
        """Of what was taken, events that were not counted before and change a count."""
        new = []
        for event in self._taken:
            if event.time < stamp - activity.WINDOW_US:
                self.counts.outdated += 1
            elif self._window.add(event):
                new.append(event)
            else:
                self.counts.duplicates += 1
        self._taken = []
        return new

    def _rows(self, new: list[Event], stamp: int) -> Rows:
        rows: Rows = {}
        for view in self._views:
            side, key = VIEWS[view]
            names = sorted({event.user if side == USER else event.item for event in new})
            counted = self._window.count(side, names, stamp)
            # NaN is no JSON.
            columns: dict[str, list[Any]] = {name: [None if value != value else value for value in found.tolist()]
                       for name, found in counted.items()}  # fmt: skip
            rows[view] = {key: names, **columns}
        return rows

    def _write(self, push: Push) -> None:
        for view in push.rows:
            self._online.write(view, _table(view, push))
        push.created = max(self._clock.now(), push.stamp)
        self._journal.online(push)
        self._pushes.append(push)
        self.counts.pushes += 1
        self.counts.rows += sum(len(next(iter(columns.values()))) for columns in push.rows.values())

    def _follow_materialization(self) -> None:
        done = self._online.materialized()
        if done != self._materialized:
            self._materialized = done
            self._write_again()

    def _write_again(self) -> None:
        """What was pushed around and after the last materialization: it may have put earlier rows in its place."""
        self.settle()
        done: Materialized | None = self._materialized
        since = parse_utc(done.as_of) - timedelta(seconds=REWRITE_SECONDS) if done is not None else EPOCH
        for view in self._views:
            rows = push_tables.newest_rows(self._data / FEATURES / view, VIEWS[view][1], since)
            if len(rows):
                self._online.write(view, rows)

    def _newest_stamp(self) -> int:
        found = [push_tables.newest_stamp(self._data / FEATURES / view) for view in self._views]
        return max((events.microseconds(stamp) for stamp in found if stamp is not None), default=0)

    def _compact(self) -> None:
        since = EPOCH + timedelta(microseconds=max(self._stamp, 0)) - KEEP_EVENTS if self._stamp else EPOCH
        for view in self._views:
            push_tables.compact(self._data / FEATURES / view)
        if push_tables.compact(self._journal.events, since=since):
            push_tables.drop_outdated(self._journal.events, since)


@contextmanager
def opened(
    home: Home,
    data: Path,
    ahead_seconds: float | None = None,
    gather_seconds: float = GATHER_SECONDS,
    clock: Clock | None = None,
) -> Iterator[Pusher]:
    """A pusher for the dataset `data` and the home's online store, after what a killed one left was taken up.

    Args:
        ahead_seconds: how far ahead of the clock an event may be; None: as AHEAD_SECONDS says for the dataset's clock.
        gather_seconds: of a recording, how much of its time goes into one push, however fast it comes.
        clock: instead of the dataset's.

    Raises:
        DataError: no dataset, or a log without times of clicks and conversions. UsageError: no table of activity, or
            one that was never materialized. Busy: another process pushes to this dataset.
    """
    info = read_info(data)
    views = tuple(view for view in VIEWS if view in view_names(data))
    if not views:
        raise UsageError(
            f"{data} has no table of {' or '.join(VIEWS)}: make them with `esmm activity build --data {data}`, then "
            "run `esmm materialize`"
        )
    place = Place.of(home.feast(info.name), info.name)
    lock = data / FOLDER / LOCK
    with exclusive(lock, f"pushing activity of {info.name!r}"), push_online.opened(place) as online:
        push_online.require_views(online, place, views)
        journal = Journal(data)
        try:
            ahead = AHEAD_SECONDS[info.clock] if ahead_seconds is None else ahead_seconds
            loaded, newest = _load(data, journal)
            chosen = clock or _clock(info, newest, online, gather_seconds)
            pusher = Pusher(
                data, views, journal, Window(loaded), online, chosen, ahead, lambda: not _somebody_reads(home, place)
            )
            pusher.recover()
            yield pusher
            pusher.flush()
            pusher.settle()
        finally:
            journal.close()


def run(pusher: Pusher, batches: Iterable[list[str]], complain: Callable[[str, str], None]) -> None:
    """Pushes batch after batch of lines, each with one flush; an empty batch says that time has passed.

    Args:
        complain: called with each line that is no event, and why.
    """
    for lines in batches:
        for line in lines:
            reason = pusher.take_line(line)
            if reason is not None:
                complain(line, reason)
        pusher.flush()


def summary(pusher: Pusher) -> str:
    """What became of the lines, for people: sums that add up."""
    counts = pusher.counts
    parts = [
        f"{counts.lines} lines: {counts.counted} events counted, {counts.duplicates} known already, "
        f"{counts.outdated} older than seven days, {pusher.waiting} waiting for their time, "
        f"{sum(counts.refused.values())} refused",
        f"{counts.rows} rows in {counts.pushes} pushes",
    ]
    parts += [f"refused: {number} lines, {reason}" for reason, number in sorted(counts.refused.items())]
    if counts.refused:
        parts.append(f"see {pusher.refused_file}, mend them and send them again")
    if counts.early:
        parts.append(
            f"{counts.early} events were ahead of this machine's clock and counted only when it reached them: set the "
            "clocks, where events are made or here"
        )
    return "\n".join(parts)


def _load(data: Path, journal: Journal) -> tuple[pa.Table, int]:
    """The events of the last window, of the log and of what was pushed, each once.

    The window ends with the newest impression or push: a time of a click in the log may be anything.
    """
    with duck.connect() as db:
        db.register("pending", events.table([event for push in journal.pending.pushes for event in push.events]))
        db.execute(
            f"CREATE TEMP TABLE pushed AS SELECT * FROM {duck.parquet(sorted(journal.events.glob('*.parquet')))} "
            "UNION ALL SELECT * FROM pending"
        )
        db.execute(f"CREATE TEMP TABLE every AS SELECT * FROM ({events.of_log(db, data)}) UNION SELECT * FROM pushed")
        ((newest,),) = db.execute(
            f"SELECT coalesce(max(epoch_us({events.TIME})), 0) FROM (SELECT {events.TIME} FROM pushed UNION ALL "
            f"SELECT {events.TIME} FROM every WHERE {events.KIND} = {duck.text(activity.IMPRESSIONS)})"
        ).fetchall()
        found = db.sql(
            f"SELECT * FROM every WHERE epoch_us({events.TIME}) >= {newest - activity.WINDOW_US} ORDER BY ALL"
        ).to_arrow_table()
    return found, int(newest)


def _clock(info: DatasetInfo, newest: int, online: Online, gather_seconds: float) -> Clock:
    if info.clock == "wall":
        return WallClock()
    done = online.materialized()
    materialized = events.microseconds(parse_utc(done.as_of)) if done is not None else 0
    return FrozenClock(max(newest + 1, materialized), gather_seconds)


def _somebody_reads(home: Home, place: Place) -> bool:
    """A run or a materialization, which lists the files first and reads them then."""
    return is_held(home.lock) or is_held(place.folder / MATERIALIZE_LOCK)


def _table(view: str, push: Push) -> pa.Table:
    """A push's rows of a view, with `created`: until that is known, the stamp."""
    (found,) = declared((view,))
    columns = push.rows[view]
    created = push.stamp if push.created is None else push.created
    size = len(columns[VIEWS[view][1]])
    made = {VIEWS[view][1]: pa.array(columns[VIEWS[view][1]], pa.string())}
    for name, time_ in ((c.EVENT_TIMESTAMP, push.stamp), (c.CREATED_TIMESTAMP, created)):
        made[name] = pa.array([time_] * size, pa.int64()).cast(UTC_US)
    for column in found.fields:
        made[column.name] = pa.array(columns[column.name], ARROW_TYPES[dtype_of(column) or "float"])
    return pa.table(made)
