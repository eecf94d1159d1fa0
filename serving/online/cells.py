"""Stored values one by one, with their times, for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from serving.online.rows import Block, untimely

Status = Literal["fresh", "expired", "future", "null", "unknown"]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Cell:
    """One value as the service sees it. `event_time` is None where the entity has no row in the view.

    `status`: "fresh" is what scoring takes; "expired" (older than the view's time to live), "future" (more than
    AHEAD_SECONDS ahead of the wall clock), "null" and "unknown" (no row) count as missing.
    """

    view: str
    feature: str
    entity: str
    key: str
    value: Any
    event_time: datetime | None
    age_seconds: float | None
    status: Status
    source: Literal["store", "cache"]


def cells_of(block: Block, keys: Sequence[str], cached: NDArray[np.bool_], now: int, wall: bool) -> list[Cell]:
    """Every value of n rows, whose ids are `keys`; `cached` [n]: which were kept from before. `now`: nanoseconds."""
    of = block.fields
    old, ahead = untimely(block, now, wall)
    cells = []
    for row, key in enumerate(keys):
        for number in range(len(of.names)):
            view, name = of.stored_as(number)
            place = (of.view_of[number], row)
            stamp = int(block.stamps[place])
            late: Status = "expired" if old[place] else "future" if ahead[place] else "fresh"
            status: Status = "unknown" if stamp <= 0 else late if block.present[number, row] else "null"
            cells.append(
                Cell(
                    view=view,
                    feature=name,
                    entity=of.entity,
                    key=key,
                    value=block.value(number, row),
                    event_time=EPOCH + timedelta(microseconds=stamp // 1000) if stamp > 0 else None,
                    age_seconds=(now - stamp) / 1e9 if stamp > 0 else None,
                    status=status,
                    source="cache" if cached[row] else "store",
                )
            )
    return cells
