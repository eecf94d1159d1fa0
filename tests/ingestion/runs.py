"""Ingesting a small dataset and reading what came out."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from components.contracts.dataset import SplitConfig, data_fingerprint, read_info
from components.ingestion.ingest import IngestConfig, run

START = datetime(2026, 3, 1, tzinfo=UTC)
AS_OF = START + timedelta(days=10)
HOUR, DAY, TICK = timedelta(hours=1), timedelta(days=1), timedelta(microseconds=1)

Write = Callable[..., Path]


def ingest(data: Path, as_of: datetime | str = AS_OF, out: str = "out", split: SplitConfig | None = None) -> Path:
    text = as_of if isinstance(as_of, str) else as_of.isoformat()
    config = IngestConfig(
        data=str(data), fingerprint=data_fingerprint(data), as_of=text, split=split or read_info(data).split
    )
    folder = data.parent / out
    run(config, folder / "impressions", folder / "features")
    return folder


def written(folder: Path) -> dict[str, dict[str, Any]]:
    """Impression id -> row."""
    rows = []
    for file in sorted((folder / "impressions").glob("dt=*/*.parquet")):
        day = file.parent.name[3:]
        rows += [row | {"dt": day} for row in pq.read_table(str(file), partitioning=None).to_pylist()]
    return {row["impression_id"]: row for row in rows}


def spread(**changes: Any) -> list[dict[str, Any]]:
    """One row every six hours over the ten days, so that every split has some."""
    return [{"impression_id": f"s{n}", "event_timestamp": START + n * 6 * HOUR} | changes for n in range(40)]
