"""Daily snapshots of activity from a dataset's own log, for a shop that brings no such tables.

A row is stamped with the midnight that ends its window and `created` a stated delay later, when a nightly job would
have written it. An entity has rows from the first midnight after it was first shown on. The last midnight is the one
before the last logged impression: a day that is only begun gets no snapshot.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.contracts import activity, duck, pushed
from components.contracts import columns as c
from components.contracts.activity import Ints
from components.contracts.dataset import FEATURES, read_info
from components.contracts.errors import DataError
from components.features.activity import events
from components.features.activity.events import KIND, TIME

VIEWS = {"user_activity": ("user", c.USER_ID), "item_activity": ("item", c.ITEM_ID)}
"""View -> (what its columns begin with, its key)."""
DAY = timedelta(days=1)
UTC_US = pa.timestamp("us", tz="UTC")
_OURS = re.compile(r"part-(\d{4}-\d{2}-\d{2})\.parquet")


def build(
    data: Path, delay: timedelta, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, dict[str, Any]]:
    """Writes features/<view>/part-<day of the stamp>.parquet of both views, one file a day, for the days still missing.

    Args:
        delay: from a row's stamp to its `created`.
        progress: called with days done and days to do, of both views together.

    Returns:
        Of each view: files and rows written, and the days that were there.

    Raises:
        DataError: no dataset, a log without times of clicks and conversions, or a table of the view from elsewhere,
            which is never overwritten or mixed with.
    """
    read_info(data)
    have = {view: _have(data / FEATURES / view) for view in VIEWS}
    done = {view: {"files": 0, "rows": 0, "there": len(days)} for view, days in have.items()}
    with duck.connect() as db:
        db.execute(f"CREATE TEMP TABLE events AS SELECT DISTINCT * FROM ({events.of_log(db, data)})")
        stamps = list(_midnights(db))
        todo = [(view, stamp) for view in VIEWS for stamp in stamps if stamp.strftime("%Y-%m-%d") not in have[view]]
        for number, (view, stamp) in enumerate(todo):
            if number == 0 or todo[number - 1][0] != view:
                _number_keys(db, VIEWS[view][1])
            rows = _snapshot(db, *VIEWS[view], stamp, delay)
            _write(rows, data / FEATURES / view / f"part-{stamp:%Y-%m-%d}.parquet")
            done[view]["files"] += 1
            done[view]["rows"] += len(rows)
            progress(number + 1, len(todo))
    return done


def _table(view: str, keys: pa.Array, counted: dict[str, Any], stamp: Ints, created: Ints) -> pa.Table:
    columns: dict[str, Any] = {VIEWS[view][1]: keys}
    columns[c.EVENT_TIMESTAMP] = pa.array(stamp).cast(UTC_US)
    columns[c.CREATED_TIMESTAMP] = pa.array(created).cast(UTC_US)
    for name, value in counted.items():
        columns[name] = pa.array(value, mask=np.isnan(value)) if value.dtype.kind == "f" else pa.array(value)
    return pa.table(columns)


def _have(folder: Path) -> set[str]:
    """Days of the files that `build` wrote. Raises DataError if any came from elsewhere; pushed ones may be there."""
    days = set()
    for file in sorted(folder.glob("*.parquet")):
        match = _OURS.fullmatch(file.name)
        if match is None and pushed.first_created(file.name) is None:
            raise DataError(
                f"{file} was not written by `esmm activity build`: the dataset brings this view itself, so nothing was "
                "written; move the file away to have it computed from the log"
            )
        days |= {match[1]} if match else set()
    return days


def _midnights(db: Any) -> Iterator[datetime]:
    """After the first impression, and before the last."""
    ((first, last),) = db.execute(
        f"SELECT min({TIME}), max({TIME}) FROM events WHERE {KIND} = {duck.text(activity.IMPRESSIONS)}"
    ).fetchall()
    if first is None:
        return
    stamp = first.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + DAY
    while stamp <= last:
        yield stamp
        stamp += DAY


def _number_keys(db: Any, key: str) -> None:
    """Makes `numbered`: each entity that was shown, a number and when it first was, in order of the key."""
    db.execute(
        f"CREATE OR REPLACE TEMP TABLE numbered AS SELECT {key} AS key, min({TIME}) AS first, "
        f"row_number() OVER (ORDER BY {key}) - 1 AS code FROM events "
        f"WHERE {KIND} = {duck.text(activity.IMPRESSIONS)} GROUP BY {key}"
    )


def _snapshot(db: Any, kind: str, key: str, stamp: datetime, delay: timedelta) -> pa.Table:
    until = duck.instant(stamp)
    seen = db.sql(f"SELECT key, code FROM numbered WHERE first < {until} ORDER BY code").to_arrow_table()
    within = (
        f"SELECT code, {KIND}, epoch_us({TIME}) AS time FROM events JOIN numbered ON numbered.key = events.{key} "
        f"WHERE {TIME} < {until} AND {TIME} >= {until} - to_microseconds({activity.WINDOW_US})"
    )
    found = {name: _arrays(db, f"SELECT code, time FROM ({within}) WHERE {KIND} = {duck.text(name)}")
             for name in activity.KINDS}  # fmt: skip
    code = seen["code"].to_numpy()
    stamps = np.full(len(code), events.microseconds(stamp))
    counted = activity.features(kind, found, code, stamps)
    created = stamps + round(delay.total_seconds() * 1e6)
    return _table(f"{kind}_activity", seen["key"].combine_chunks(), counted, stamps, created)


def _arrays(db: Any, query: str) -> tuple[Ints, Ints]:
    rows = db.sql(query).to_arrow_table()
    return rows["code"].to_numpy(), rows["time"].to_numpy()


def _write(rows: pa.Table, path: Path) -> None:
    # Feast takes seconds to import, which a command that fails early should not.
    from feature_repo.asof.append import write_bytes

    path.parent.mkdir(parents=True, exist_ok=True)
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink)
    write_bytes(path, sink.getvalue())
