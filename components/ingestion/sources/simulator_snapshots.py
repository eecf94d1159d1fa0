"""Feature views of the simulated shop: what a nightly job would have written.

Activity counts events of the seven days before a midnight by when they *occurred*: a conversion counts from its own
time, not from its impression's. Rows are stamped with that midnight and `created` 5 to 120 minutes later. An entity
has rows from the first midnight after its first event on; so on the first day there is no activity at all. Profiles
are written once before the first event, and again for an entity whose profile changed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.contracts import activity
from components.contracts import columns as c
from components.contracts.dataset import FEATURES
from components.ingestion.sources.simulator_truth import Outcomes
from components.ingestion.sources.simulator_world import (
    CATEGORIES,
    COUNTRIES,
    DAY,
    SEGMENTS,
    Exposures,
    Ints,
    SimulatorConfig,
    World,
)

Bools = NDArray[np.bool_]
_MINUTE = 60_000_000
_JOBS = 3
UTC_US = pa.timestamp("us", tz="UTC")


def write_views(
    config: SimulatorConfig, world: World, shown: Exposures, outcomes: Outcomes, out: Path
) -> dict[str, int]:
    """Writes features/<view>/part-0.parquet for all four views; returns rows of each."""
    rng = np.random.default_rng([config.seed, _JOBS])
    first = np.unique(shown.session, return_index=True)[1]
    sessions = (first, shown.time[first])
    events = {
        "impressions": (np.arange(len(shown)), shown.time),
        "clicks": (np.flatnonzero(outcomes.click), outcomes.click_time[outcomes.click]),
        "conversions": (np.flatnonzero(outcomes.conversion), outcomes.conversion_time[outcomes.conversion]),
    }
    views = {
        "user_profile": _user_profile(config, world, rng),
        "user_activity": _activity(config, "user", shown.user, config.users, {**events, "sessions": sessions}, rng),
        "item_profile": _item_profile(config, world, rng),
        "item_activity": _activity(config, "item", shown.item, config.items, events, rng),
    }  # fmt: skip
    for name, table in views.items():
        folder = out / FEATURES / name
        folder.mkdir(parents=True)
        pq.write_table(table, folder / "part-0.parquet")
    return {name: len(table) for name, table in views.items()}


def times(config: SimulatorConfig, since_midnight: Ints, null: Bools | None = None) -> pa.Array:
    """Microseconds since the first midnight -> timestamp[us, UTC], null where `null` is true."""
    origin = int(config.first_midnight.timestamp()) * 1_000_000
    return pa.array(since_midnight + origin, mask=null).cast(UTC_US)


def names(prefix: str, numbers: Ints, null: Bools | None = None) -> pa.Array:
    """Ids as strings: u17, i3."""
    every = pa.array([f"{prefix}{number}" for number in range(int(numbers.max(initial=0)) + 1)])
    return every.take(pa.array(numbers, mask=null))


def words(values: tuple[str, ...], numbers: Ints) -> pa.Array:
    return pa.array(values).take(pa.array(numbers))


def _activity(
    config: SimulatorConfig,
    kind: str,
    entity_N: Ints,
    entities: int,
    events: dict[str, tuple[Ints, Ints]],
    rng: np.random.Generator,
) -> pa.Table:
    """`events`: name -> (impression each belongs to, its time). Those after the last midnight are not counted."""
    found = {name: (entity_N[impression], time) for name, (impression, time) in events.items()}
    first_day = np.full(entities, config.days)
    np.minimum.at(first_day, entity_N, events[activity.IMPRESSIONS][1] // DAY)
    day, entity = np.nonzero(first_day <= np.arange(config.days)[:, None])
    stamp = (day + 1) * DAY
    counted = activity.features(kind, found, entity, stamp)
    rate = counted.pop(f"{kind}_ctr_7d")
    created = rng.integers(5, 121, config.days)[day] * _MINUTE + stamp
    return pa.table(
        {
            f"{kind}_id": names(kind[0], entity),
            c.EVENT_TIMESTAMP: times(config, stamp),
            c.CREATED_TIMESTAMP: times(config, created),
            **counted,
            f"{kind}_ctr_7d": pa.array(rate, mask=np.isnan(rate)),
        }
    )


def _changes(entities: int, changed: Bools, rng: np.random.Generator) -> tuple[Ints, Ints, Ints, Ints]:
    """Entity, day whose values hold, stamp and created of each profile row; `changed` is [E, D] (column 0 unused).

    The first rows are stamped a day before the first event. A value that holds on day d is stamped at d's midnight.
    """
    days: int = changed.shape[1]
    day, entity = np.nonzero(changed.T[1:])
    day = np.concatenate([np.zeros(entities, np.int64), day + 1])
    entity = np.concatenate([np.arange(entities), entity])
    stamp: Ints = np.where(day == 0, -1, day) * DAY
    minutes: Ints = rng.integers(5, 121, days)
    return entity, day, stamp, minutes[day] * _MINUTE + stamp


def _user_profile(config: SimulatorConfig, world: World, rng: np.random.Generator) -> pa.Table:
    segment = world.segment_UD
    moved = np.diff(segment, axis=1, prepend=segment[:, :1]) != 0
    entity, day, stamp, created = _changes(config.users, moved, rng)
    return pa.table(
        {
            c.USER_ID: names("u", entity),
            c.EVENT_TIMESTAMP: times(config, stamp),
            c.CREATED_TIMESTAMP: times(config, created),
            "country": words(COUNTRIES, world.country_U[entity]),
            "segment": words(SEGMENTS, segment[entity, day]),
            "age_band": world.age_U[entity],
            "member_days": stamp // DAY - world.signup_day_U[entity],
        }
    )


def _item_profile(config: SimulatorConfig, world: World, rng: np.random.Generator) -> pa.Table:
    repriced = np.diff(world.price_ID, axis=1, prepend=world.price_ID[:, :1]) != 0
    entity, day, stamp, created = _changes(config.items, repriced, rng)
    return pa.table(
        {
            c.ITEM_ID: names("i", entity),
            c.EVENT_TIMESTAMP: times(config, stamp),
            c.CREATED_TIMESTAMP: times(config, created),
            "category": words(CATEGORIES, world.category_I[entity]),
            "brand": words(
                tuple(f"b{number}" for number in range(int(world.brand_I.max()) + 1)), world.brand_I[entity]
            ),
            "price": world.price_ID[entity, day],
        }
    )
