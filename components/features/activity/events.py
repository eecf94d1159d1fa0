"""Events of the funnel: somebody was shown something, clicked it or bought it, at a time.

Two events are one if they agree in all four: kind, user, item and time. So whoever is in doubt sends an event again.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from components.contracts import columns as c
from components.contracts import duck
from components.contracts.activity import CLICKS, CONVERSIONS, IMPRESSIONS
from components.contracts.dataset import LOG
from components.contracts.errors import DataError

KIND, TIME = "kind", c.EVENT_TIMESTAMP
WORDS = {"impression": IMPRESSIONS, "click": CLICKS, "conversion": CONVERSIONS}
"""What an event line says -> what is counted."""
SCHEMA = pa.schema(
    {KIND: pa.string(), c.USER_ID: pa.string(), c.ITEM_ID: pa.string(), TIME: pa.timestamp("us", tz="UTC")}
)
EXAMPLE = '{"event": "click", "user_id": "u1", "item_id": "i7", "time": "2026-01-31T10:15:00.250Z"}'


class Event(NamedTuple):
    """`time` in microseconds since 1970, UTC."""

    kind: str
    user: str
    item: str
    time: int


class BadLine(ValueError):
    """A line that is no event; the message says why, without the line."""


def parse(line: str | bytes) -> Event:
    """Reads one JSON object: event (impression, click or conversion), user_id, item_id, time (ISO-8601; without a zone
    it is UTC). Ids that are integers become decimal; other keys are ignored.

    Raises:
        BadLine: anything else.
    """
    try:
        found = json.loads(line)
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError):
        raise BadLine("is no JSON") from None
    if not isinstance(found, dict):
        raise BadLine("is no JSON object")
    word = found.get("event")
    if not isinstance(word, str) or word not in WORDS:
        raise BadLine(f"has no event of {', '.join(WORDS)}")
    return Event(WORDS[word], _id(found, c.USER_ID), _id(found, c.ITEM_ID), _time(found))


def _id(found: dict[str, Any], name: str) -> str:
    value = found.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value:
        raise BadLine(f"has no {name} that is a string or an integer")
    return value


def _time(found: dict[str, Any]) -> int:
    value = found.get("time")
    try:
        time = datetime.fromisoformat(value.strip()) if isinstance(value, str) else None
    except ValueError:
        time = None
    if time is None:
        raise BadLine("has no time in ISO-8601")
    time = time.replace(tzinfo=UTC) if time.tzinfo is None else time
    return microseconds(time)


def microseconds(time: datetime) -> int:
    seconds = int(time.replace(microsecond=0).timestamp())
    return seconds * 1_000_000 + time.microsecond


def table(events: list[Event]) -> pa.Table:
    """Of `SCHEMA`."""
    columns = [
        pa.array([event.kind for event in events], pa.string()),
        pa.array([event.user for event in events], pa.string()),
        pa.array([event.item for event in events], pa.string()),
        pa.array([event.time for event in events], pa.int64()).cast(SCHEMA.field(TIME).type),
    ]
    return pa.table(columns, schema=SCHEMA)


def of_log(db: Any, data: Path) -> str:
    """A query for the events in a dataset's log, as `SCHEMA`; an event that was logged twice may come twice.

    Rows that no rule can place are left out: without user, item or time, or with a time outside their partition's day.

    Raises:
        DataError: a log without times of clicks and conversions: when they happened is what counts.
    """
    files = sorted((data / LOG).glob(f"{c.PARTITION}=*/*.parquet"))
    source = duck.parquet(files, partitioned=True)
    have = duck.types(db, source)
    absent = [time for time in (TIME, *c.LABEL_TIMESTAMPS) if have.get(time) != duck.TIME]
    if absent:
        raise DataError(
            f"{data / LOG} has no {absent[0]} as a UTC time, so nobody knows when its events happened: import the log "
            "again with it (esmm import log --map)"
        )
    kinds = {
        IMPRESSIONS: (TIME, "true"),
        CLICKS: (c.CLICK_TIMESTAMP, f"{c.CLICK} = 1"),
        CONVERSIONS: (c.CONVERSION_TIMESTAMP, f"{c.CONVERSION} = 1"),
    }
    whole = f"{c.USER_ID} IS NOT NULL AND {c.ITEM_ID} IS NOT NULL AND strftime({TIME}, '%Y-%m-%d') = {c.PARTITION}"
    return " UNION ALL ".join(
        f"SELECT {duck.text(kind)} AS {KIND}, {c.USER_ID}, {c.ITEM_ID}, {time} AS {TIME} FROM {source} "
        f"WHERE {whole} AND {happened} AND {time} IS NOT NULL"
        for kind, (time, happened) in kinds.items()
    )
