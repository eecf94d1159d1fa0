"""Where a view's rows lie. Feast freezes the path into its registry, so it is an argument and no constant."""

from __future__ import annotations

from pathlib import Path

from feast import FileSource
from feast.data_format import ParquetFormat


def source(features_dir: str, view: str) -> FileSource:
    """The table of a view below `features_dir`: <view>/*.parquet with event_timestamp and created, UTC microseconds."""
    files = sorted((Path(features_dir) / view).glob("*.parquet"))
    return FileSource(
        name=f"{view}_table",
        path=str(files[0] if len(files) == 1 else Path(features_dir) / view / "*.parquet"),
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
        created_timestamp_column="created",
    )


def present(features_dir: str) -> tuple[str, ...]:
    """Names of the views that have files below `features_dir`, sorted."""
    return tuple(sorted({file.parent.name for file in Path(features_dir).glob("*/*.parquet")}))
