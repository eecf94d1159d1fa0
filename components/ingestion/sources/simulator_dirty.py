"""Makes a share of a clean log dirty, in the ways logs are: so that validation has something to find."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from components.ingestion.sources.simulator_world import DAY, Ints, SimulatorConfig

HOUR = DAY // 24
KINDS = (
    "null_user",
    "null_item",
    "null_time",
    "null_click",
    "click_is_two",
    "conversion_without_click",
    "click_before_impression",
    "conversion_before_click",
    "time_outside_day",
    "negative_position",
    "duplicate_id",
)
"""Ways of being dirty, equally likely; so funnel violations are about a tenth of the dirty rows."""

NONE = -1
"""Marks a null in the integer columns of `Log`."""

_DIRT = 4


@dataclass(frozen=True)
class Log:
    """The log's columns as numbers [N], in order of time. `day` is the partition, whatever `time` is made to say."""

    day: Ints
    impression: Ints
    user: Ints
    item: Ints
    time: Ints
    time_null: NDArray[np.bool_]
    position: Ints
    hour: Ints
    device: Ints
    click: Ints
    click_time: Ints
    conversion: Ints
    conversion_time: Ints


def soil(config: SimulatorConfig, log: Log) -> tuple[Log, dict[str, int]]:
    """Returns the log with `dirty_share` of its rows changed, and rows by kind. All other rows stay as they are."""
    rng = np.random.default_rng([config.seed, _DIRT])
    count = len(log.day)
    wanted = round(config.dirty_share * count)
    rows = rng.permutation(count)[:wanted]
    of = {kind: np.sort(rows[number :: len(KINDS)]) for number, kind in enumerate(KINDS)}
    log = replace(
        log,
        **{
            name: getattr(log, name).copy()
            for name in ("impression", "user", "item", "time", "time_null", "position", "click", "click_time",
                         "conversion", "conversion_time")
        },
    )  # fmt: skip
    log.user[of["null_user"]] = NONE
    log.item[of["null_item"]] = NONE
    log.time_null[of["null_time"]] = True
    log.click[of["null_click"]] = NONE
    log.click[of["click_is_two"]] = 2

    at = of["conversion_without_click"]
    log.click[at], log.click_time[at], log.conversion[at], log.conversion_time[at] = 0, NONE, 1, log.time[at] + HOUR
    at = of["click_before_impression"]
    log.click[at], log.click_time[at], log.conversion[at], log.conversion_time[at] = 1, log.time[at] - HOUR, 0, NONE
    at = of["conversion_before_click"]
    log.click[at], log.click_time[at], log.conversion[at], log.conversion_time[at] = (
        1, log.time[at] + 60_000_000, 1, log.time[at] + 30_000_000,
    )  # fmt: skip
    at = of["time_outside_day"]
    log.time[at] -= 30 * DAY
    log.position[of["negative_position"]] *= -1
    at = of["duplicate_id"]
    beside = np.where((at > 0) & (log.day[at] == log.day[at - 1]), at - 1, np.minimum(at + 1, count - 1))
    log.impression[at] = log.impression[beside]
    return log, {kind: len(at) for kind, at in of.items()}
