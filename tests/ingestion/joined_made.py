"""A joined log as a user has it, under names of its own."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa

START = datetime(2026, 5, 1, 10, tzinfo=UTC)
UTC_US = pa.timestamp("us", tz="UTC")
MAP = {
    "impression_id": "id", "user_id": "visitor", "item_id": "sku", "event_timestamp": "at",
    "click": "is_click", "conversion": "is_buy",
}  # fmt: skip
Bring = Callable[..., tuple[Path, dict[str, Any]]]
"""Imports a log, or what was written before; the folder and what the import says."""


def log(rows: int = 40, hours: float = 12, **changes: Any) -> pa.Table:
    columns: dict[str, Any] = {
        "id": [f"x{n}" for n in range(rows)],
        "visitor": pa.array([n % 7 for n in range(rows)], pa.int32()),
        "sku": [f"sku-{n % 5}" for n in range(rows)],
        "at": pa.array([START + timedelta(hours=hours) * n for n in range(rows)], UTC_US),
        "is_click": [n % 3 == 0 for n in range(rows)],
        "is_buy": pa.array([int(n % 6 == 0) for n in range(rows)], pa.int8()),
        "device": ["phone"] * rows,
        "slot": pa.array([1] * rows, pa.int16()),
    }
    columns |= changes
    return pa.table({name: value for name, value in columns.items() if value is not None})
