"""Which impression a click belongs to, and which a conversion: last touch.

    click        by id: to the impression with its impression_id
                 by window: to the latest impression of the same user and item that is not later than the click
    conversion   by id: to the impression with its impression_id
                 by window: to the impression of the latest click of the same user and item that is not later than the
                 conversion; only clicks that are in time have a say
    ties         of impressions at one instant, or clicks at one instant, the greatest impression_id wins (by code
                 point), then the later line
    several      of the clicks of an impression the first is its click, of its conversions the first its conversion
    in time      a click at most the click window after its impression (and not before it), a conversion at most the
                 conversion window after its impression's click
    late         a later click or conversion keeps its impression and its time in the log: ingestion makes it a
                 negative, and counts it. It is never given to another impression instead
    unmatched    what belongs to no impression, or has no time: counted, and no row

An impression without an id has its place in time like any other: what belongs to it goes into quarantine with it, and
not to the impression before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from components.contracts import columns as c
from components.ingestion.sources.reading import KEY

RULES: tuple[tuple[str, str], ...] = (
    ("a click, by impression id", "to the impression with that id"),
    ("a click, by window", "to the latest impression of the same user and item that is not later than the click"),
    ("a conversion, by impression id", "to the impression with that id"),
    (
        "a conversion, by window",
        "to the impression of the latest click of the same user and item that is not later than the conversion; only "
        "clicks within the click window have a say",
    ),
    ("two at one instant", "the greatest `impression_id` wins, compared as text; then the later line"),
    ("several clicks or conversions of one impression", "the first counts"),
    (
        "a click or conversion after its window",
        "stays with its impression and its time; ingestion makes it a negative and counts it as late",
    ),
    ("a click or conversion of no impression", "is counted as unmatched, and is no row"),
    ("an event that occurs twice, equal in all columns that are read", "is kept once, the others are counted"),
    ("impressions with one id and different content", "stay, all of them, and are quarantined as DUPLICATE_ID"),
    ("a conversion by id whose impression has no click", "stays, and is quarantined as FUNNEL"),
)
"""What happens to what, for the documentation."""


@dataclass(frozen=True)
class Counts:
    """Events, each counted once."""

    clicks_unmatched: int
    conversions_unmatched: int
    clicks_late: int
    conversions_late: int


def attribute(db: Any, clicks_by_id: bool, conversions_by_id: bool, windows: tuple[float, float]) -> Counts:
    """Makes the table `labels`: KEY of an impression, click_timestamp, conversion_timestamp.

    Args:
        db: connection with relations `shown` (KEY, impression_id, user_id, item_id, event_timestamp), `clicks` and
            `conversions` (KEY, event_timestamp, and impression_id, or user_id and item_id).
        windows: seconds of the click window and of the conversion window.
    """
    click_window, conversion_window = (f"to_microseconds({round(seconds * 1e6)})" for seconds in windows)
    at = c.EVENT_TIMESTAMP
    touched = _by_id("clicks") if clicks_by_id else _last_touch("clicks", "shown")
    db.execute(
        f"""CREATE TEMP TABLE clicked AS
        SELECT t.event, s.{KEY}, t.{at}, s.{c.IMPRESSION_ID}, s.{c.USER_ID}, s.{c.ITEM_ID},
            t.{at} > s.{at} + {click_window} AS late, t.{at} < s.{at} AS early
        FROM ({touched}) t JOIN shown s USING ({KEY})"""
    )
    db.execute("CREATE TEMP VIEW touching AS SELECT * FROM clicked WHERE NOT late AND NOT early")
    bought = _by_id("conversions") if conversions_by_id else _last_touch("conversions", "touching")
    db.execute(f"CREATE TEMP TABLE converted AS {bought}")
    db.execute(
        f"""CREATE TEMP TABLE labels AS
        SELECT {KEY}, k.{at} AS {c.CLICK_TIMESTAMP}, v.{at} AS {c.CONVERSION_TIMESTAMP}
        FROM (SELECT {KEY}, min({at}) AS {at} FROM clicked GROUP BY {KEY}) k
        FULL JOIN (SELECT {KEY}, min({at}) AS {at} FROM converted GROUP BY {KEY}) v USING ({KEY})"""
    )
    late = f"v.{at} > l.{c.CLICK_TIMESTAMP} + {conversion_window} OR k.late"
    counted = (
        "SELECT count(*) FROM clicks ANTI JOIN clicked ON clicks.{key} = clicked.event",
        "SELECT count(*) FROM conversions ANTI JOIN converted ON conversions.{key} = converted.event",
        "SELECT count(DISTINCT event) FROM clicked WHERE late",
        "SELECT count(DISTINCT v.event) FROM converted v JOIN labels l USING ({key}) "
        f"JOIN (SELECT {KEY}, arg_min(late, {at}) AS late FROM clicked GROUP BY {KEY}) k USING ({KEY}) WHERE {late}",
    )
    return Counts(*(db.execute(query.format(key=KEY)).fetchone()[0] for query in counted))


def _by_id(events: str) -> str:
    """SQL for the impressions of each event: event, KEY, event_timestamp."""
    at = c.EVENT_TIMESTAMP
    return (
        f"SELECT e.{KEY} AS event, s.{KEY}, e.{at} FROM {events} e JOIN shown s USING ({c.IMPRESSION_ID}) "
        f"WHERE e.{at} IS NOT NULL"
    )


def _last_touch(events: str, touches: str) -> str:
    """SQL for the impression of each event that had a touch: event, KEY, event_timestamp."""
    who, at = f"{c.USER_ID}, {c.ITEM_ID}", c.EVENT_TIMESTAMP
    # ASOF takes any of several touches at one instant, so one is chosen before; and of the many impressions only those
    # that anyone clicked on are sorted.
    return f"""
        SELECT e.{KEY} AS event, t.{KEY}, e.{at}
        FROM {events} e ASOF JOIN (
            SELECT {who}, {at}, {KEY} FROM {touches} SEMI JOIN {events} USING ({who})
            QUALIFY row_number() OVER (
                PARTITION BY {who}, {at} ORDER BY {c.IMPRESSION_ID} DESC NULLS LAST, {KEY} DESC) = 1
        ) t ON e.{c.USER_ID} = t.{c.USER_ID} AND e.{c.ITEM_ID} = t.{c.ITEM_ID} AND e.{at} >= t.{at}"""
