"""Every activity row recomputed in plain Python from the log that was written."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.ingestion.sources.simulator_world import SimulatorConfig

Shop = tuple[SimulatorConfig, Path]


def rows(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.rglob("*.parquet"))
    return [row for file in files for row in pq.read_table(str(file), partitioning=None).to_pylist()]


def sessions(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A session opens with position 1, whatever the order in which sessions overlap."""
    return [row for row in log if row["position"] == 1]


@pytest.mark.parametrize("kind", ["user", "item"])
def test_activity_counts_what_occurred_in_the_seven_days_before(small_shop: Shop, kind: str) -> None:
    config, folder = small_shop
    log = rows(folder / "log")
    events: dict[str, list[tuple[str, datetime]]] = defaultdict(list)
    for row in log:
        events["impressions"].append((row[f"{kind}_id"], row["event_timestamp"]))
        if row["click"]:
            events["clicks"].append((row[f"{kind}_id"], row["click_timestamp"]))
        if row["conversion"]:
            events["conversions"].append((row[f"{kind}_id"], row["conversion_timestamp"]))
    if kind == "user":
        events["sessions"] = [(row["user_id"], row["event_timestamp"]) for row in sessions(log)]

    expected = {}
    for day in range(1, config.days + 1):
        stamp = config.first_midnight + timedelta(days=day)
        for entity in {who for who, time in events["impressions"] if time < stamp}:
            row = {
                f"{kind}_{name}_7d": sum(
                    1 for who, time in happened if who == entity and stamp - timedelta(days=7) <= time < stamp
                )
                for name, happened in events.items()
            }
            shown = row[f"{kind}_impressions_7d"]
            row[f"{kind}_ctr_7d"] = row[f"{kind}_clicks_7d"] / shown if shown else None
            expected[entity, stamp] = row

    table = rows(folder / "features" / f"{kind}_activity")
    got = {(row.pop(f"{kind}_id"), row.pop("event_timestamp")): row for row in table}
    for (_, stamp), row in got.items():
        assert timedelta(minutes=5) <= row.pop("created") - stamp <= timedelta(minutes=120)
    assert got == expected
    assert sum(row[f"{kind}_conversions_7d"] for row in expected.values()) > 0


def test_a_conversion_counts_from_its_own_time(small_shop: Shop) -> None:
    _, folder = small_shop
    later = [
        r
        for r in rows(folder / "log")
        if r["conversion"] and r["conversion_timestamp"].date() > r["event_timestamp"].date()
    ]
    assert later  # else the test above would not tell occurrence from exposure


def test_profiles_are_there_before_the_first_event_and_only_change_later(small_shop: Shop) -> None:
    config, folder = small_shop
    first = min(row["event_timestamp"] for row in rows(folder / "log"))
    for view, entity, count in (("user_profile", "user_id", config.users), ("item_profile", "item_id", config.items)):
        last: dict[str, tuple[Any, ...]] = {}
        for row in sorted(rows(folder / "features" / view), key=lambda row: row["event_timestamp"]):
            assert timedelta(minutes=5) <= row["created"] - row["event_timestamp"] <= timedelta(minutes=120)
            values = (row["segment"],) if view == "user_profile" else (row["price"],)
            if row[entity] in last:
                assert values != last[row[entity]]
            else:
                assert row["created"] < first
            last[row[entity]] = values
        assert len(last) == count
    assert len(rows(folder / "features" / "item_profile")) > config.items
