"""Small datasets, written row by row, so that every expected number can be worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ingestion.joined_made import MAP, Bring

from components.contracts.dataset import DatasetInfo, SplitConfig, write_info
from components.ingestion.sources.importing import ImportOptions
from components.ingestion.sources.joined import import_log
from components.ingestion.sources.simulator import simulate
from components.ingestion.sources.simulator_world import SimulatorConfig

UTC_US = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        ("impression_id", pa.string()),
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("event_timestamp", UTC_US),
        ("position", pa.int64()),
        ("click", pa.int64()),
        ("click_timestamp", UTC_US),
        ("conversion", pa.int64()),
        ("conversion_timestamp", UTC_US),
    ]
)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def info(**changes: Any) -> DatasetInfo:
    values: dict[str, Any] = {
        "name": "tiny",
        "source": "test",
        "context": {"position": "int"},
        "click_window_seconds": 3600.0,
        "conversion_window_seconds": 86400.0,
        "has_label_times": True,
        "split": SplitConfig(kind="time", valid_days=1, test_days=1),
    }
    return DatasetInfo.parse(values | changes)


@pytest.fixture
def write_dataset(tmp_path: Path) -> Callable[..., Path]:
    def write(
        rows: Iterable[dict[str, Any]], views: dict[str, pa.Table] | None = None, name: str = "data", **changes: Any
    ) -> Path:
        """A row's `dt` defaults to its event's date; `schema` and `drop` change what is written."""
        folder = tmp_path / name
        schema = changes.pop("schema", SCHEMA)
        drop = changes.pop("drop", ())
        days: dict[str, list[dict[str, Any]]] = {}
        for number, row in enumerate(rows):
            full = {
                "impression_id": f"m{number}",
                "user_id": "u1",
                "item_id": "i1",
                "position": 1,
                "click": 0,
                "conversion": 0,
            }
            full |= row
            day = full.pop("dt", None) or full["event_timestamp"].strftime("%Y-%m-%d")
            days.setdefault(day, []).append(full)
        for day, part in days.items():
            path = folder / "log" / f"dt={day}" / "part-0.parquet"
            path.parent.mkdir(parents=True)
            table = pa.Table.from_pylist(part, schema=schema)
            pq.write_table(table.drop_columns([column for column in drop if column in table.column_names]), path)
        for view, table in (views or {}).items():
            path = folder / "features" / view / "part-0.parquet"
            path.parent.mkdir(parents=True)
            pq.write_table(table, path)
        write_info(folder, info(**changes))
        return folder

    return write


@pytest.fixture(scope="session")
def small_shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[SimulatorConfig, Path]:
    """Small enough for plain Python to recompute."""
    config = SimulatorConfig(days=12, users=60, items=40, impressions=4_000, seed=3, valid_days=1, test_days=2)
    out = tmp_path_factory.mktemp("small") / "shop"
    simulate(config, out)
    return config, out


@pytest.fixture
def bring(tmp_path: Path) -> Bring:
    def call(table: pa.Table | None = None, **changes: Any) -> tuple[Path, dict[str, Any]]:
        source = tmp_path / "log.parquet"
        if table is not None:
            pq.write_table(table, source)
        given: dict[str, Any] = {"context": ["device"], "out": tmp_path / "out", "name": "mine"} | changes
        path, mapping = given.pop("log", source), given.pop("mapping", MAP)
        if not isinstance(given["context"], dict):
            given["context"] = dict.fromkeys(given["context"])
        return given["out"], import_log(path, mapping, ImportOptions(**given))

    return call
