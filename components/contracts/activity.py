"""Activity: how often something was shown, clicked and bought in the seven days before a moment.

The one place where these features are computed: the simulator's snapshots, `esmm activity build` and
`esmm activity push` all call it. Here and not in feature_repo, since ingestion does not know Feast.

A row is stamped at the end of its window, and an event counts by when it *occurred*: a conversion from its own time,
not from its impression's. So a row never says anything of its stamp or later.

Letters in shapes: N events, R rows.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

WINDOW_US = 7 * 86_400_000_000
IMPRESSIONS, CLICKS, CONVERSIONS = "impressions", "clicks", "conversions"
KINDS = (IMPRESSIONS, CLICKS, CONVERSIONS)


def count(entity: Ints, time: Ints, asked: Ints, stamp: Ints) -> Ints:
    """How many events of an entity lie in [stamp - 7 days, stamp).

    Args:
        entity, time: [N] events in any order: a number from 0, and microseconds.
        asked, stamp: [R] the entity and the moment of each row.

    Returns:
        [R].
    """
    order = np.argsort(time, kind="stable")
    sorted_time = time[order]
    # Times become places in the order of all events: with the entity's number above them they fit an integer, and the
    # events of an entity in a window are then neighbours.
    width = len(time) + 1
    place = np.sort(entity[order] * width + np.arange(len(time)))
    first = asked * width + np.searchsorted(sorted_time, stamp - WINDOW_US)
    end = asked * width + np.searchsorted(sorted_time, stamp)
    return np.asarray(np.searchsorted(place, end) - np.searchsorted(place, first), np.int64)


def features(kind: str, events: Mapping[str, tuple[Ints, Ints]], asked: Ints, stamp: Ints) -> dict[str, Ints | Floats]:
    """The columns of `<kind>_activity`: a count of each name in `events`, and the click-through rate.

    Args:
        kind: user or item; columns begin with it.
        events: name -> (entity, time) as in `count`; impressions and clicks among them.

    Returns:
        name -> [R]; NaN is the rate of an entity that was not shown, null in a table.
    """
    counts = {name: count(*found, asked, stamp) for name, found in events.items()}
    shown = counts[IMPRESSIONS]
    rate = np.where(shown > 0, counts[CLICKS] / np.maximum(shown, 1), np.nan)
    return {**{f"{kind}_{name}_7d": value for name, value in counts.items()}, f"{kind}_ctr_7d": rate}
