"""Random histories of one feature, and rows at the moments that matter to them: for joins that must agree."""

from __future__ import annotations

import random
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
from features.made import UTC_US, at

TICK = timedelta(microseconds=1)
TTL = timedelta(days=7)
"""Of item_activity."""
Asked = tuple[str | None, str | None, datetime]
"""(user, item, time)"""


def keys(rows: Iterable[Asked], **more: list[str | None]) -> pa.Table:
    """Entity rows, with further keys."""
    rows = list(rows)
    return pa.table(
        {
            "user_id": pa.array([user for user, _, _ in rows], pa.string()),
            "item_id": pa.array([item for _, item, _ in rows], pa.string()),
            "event_timestamp": pa.array([time for _, _, time in rows], UTC_US),
            **{name: pa.array(values, pa.string()) for name, values in more.items()},
        }
    )


def timelines(seed: int) -> tuple[list[dict[str, Any]], list[Asked]]:
    """Versions of item_activity with ties, late backfills, nulls and gaps; rows just before, at and just after their
    edges, for unknown and null items too, some of them twice."""
    made = random.Random(seed)
    versions = []
    for number in range(200):
        event, late = made.randrange(120) / 4, made.choice([0, 0, 0.25, 3, 9])
        clicks = made.choice([None, number])
        versions.append(
            {"item_id": f"i{made.randrange(5)}", "event": event, "created": event + late, "item_clicks_7d": clicks,
             "item_ctr_7d": number / 7}
        )  # fmt: skip
    # Of two versions of one moment, made at one moment, either would do.
    versions = list({(v["item_id"], v["event"], v["created"]): v for v in versions}.values())
    moments = [at(v["event"]) for v in versions] + [at(v["created"]) for v in versions]
    moments += [at(v["event"]) + TTL for v in versions]
    items = ["i0", "i1", "i2", "i3", "i4", "nobody", None]
    rows = [("u1", made.choice(items), made.choice(moments) + made.choice([-1, 0, 1]) * TICK) for _ in range(400)]
    return versions, rows + rows[:40]
