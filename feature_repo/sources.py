"""Where a view's rows lie. Feast freezes the path into its registry, so it is an argument and no constant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from feast import FileSource, PushSource
from feast.data_format import ParquetFormat


def source(features_dir: str, view: str, spark: bool = False) -> Any:
    """The table of a view below `features_dir`: <view>/*.parquet with event_timestamp and created, UTC microseconds.

    `spark`: as Feast's Spark store reads it; it takes no other kind.
    """
    if spark:
        return _spark_source(features_dir, view)
    return FileSource(
        name=f"{view}_table",
        # A pattern, even for one file: pushed rows come as files of their own.
        path=str(Path(features_dir) / view / "*.parquet"),
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )


def push_source(view: str, table: Any) -> PushSource:
    """Takes rows of a view as they are made, into the online store and beside the others in `table`."""
    return PushSource(
        name=f"{view}_push",
        batch_source=table,
        description=f"Rows of {view} as events come in (docs/streaming.md).",
    )


def _spark_source(features_dir: str, view: str) -> Any:
    # Needs pyspark, which the other profiles do without.
    from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource

    return SparkSource(
        name=f"{view}_table",
        path=str(Path(features_dir) / view),
        file_format="parquet",
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )


def present(features_dir: str) -> tuple[str, ...]:
    """Names of the views that have files below `features_dir`, sorted."""
    return tuple(sorted({file.parent.name for file in Path(features_dir).glob("*/*.parquet")}))
