"""The offline store itself: Feast's DuckDB store with another point-in-time join."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
from feast import FileSource
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.on_demand_feature_view import OnDemandFeatureView

from components.contracts.errors import UsageError
from feature_repo.asof import plan
from feature_repo.asof.append import append, table_schema
from feature_repo.asof.job import AsofRetrievalJob, Limits, connect


class AsofOfflineStoreConfig(DuckDBOfflineStoreConfig):  # type: ignore[misc]  # Feast ships no types
    """Settings below `offline_store` in feature_store.yaml.

    `filter_by_created_timestamp`: leave out what was created after the entity row's time, whatever the call says, since
    Feast passes the call's own setting on only where it is true. False: as Feast, which leaks late backfills unless
    asked not to. `memory_limit`: what DuckDB holds before it spills to a temporary folder; a retrieval takes about that
    much beside Python itself. `threads` None: every core.
    """

    type: str = "feature_repo.asof.AsofOfflineStore"
    filter_by_created_timestamp: bool = True
    memory_limit: str = "1GB"
    threads: int | None = None


class AsofOfflineStore(DuckDBOfflineStore):  # type: ignore[misc]  # Feast ships no types
    """One ASOF join a view, and a file of its own for pushed rows. All else (materialization, logging, monitoring) is
    the parent's."""

    @staticmethod
    def get_historical_features(
        config: Any,
        feature_views: list[Any],
        feature_refs: list[str],
        entity_df: Any,
        registry: Any,
        project: str,
        full_feature_names: bool = False,
        filter_by_created_timestamp: bool = False,
        **ranges: Any,
    ) -> AsofRetrievalJob:
        """Checks what is asked for and returns a job that has not run.

        Args:
            entity_df: a pandas frame, an Arrow table, a path to Parquet, or SQL that DuckDB reads.
            ranges: start_date and end_date, for retrieval without entity rows, which is refused.

        Raises:
            UsageError, DataError: as `plan.make`; no entity rows; on-demand views in Substrait.
        """
        if entity_df is None or any(value is not None for value in ranges.values()):
            raise UsageError(
                "this offline store joins features to entity rows and does not list them by time alone: give "
                "entity_df, without start_date and end_date"
            )
        on_demand = OnDemandFeatureView.get_requested_odfvs(feature_refs, project, registry)
        substrait = [view.name for view in on_demand if view.mode == "substrait"]
        if substrait:
            raise UsageError(
                f"on-demand feature view {substrait[0]!r} is in Substrait, which this offline store does not run: "
                "write it for pandas or Python"
            )
        settings = config.offline_store
        limits = Limits(settings.memory_limit, settings.threads)
        known_only = filter_by_created_timestamp or settings.filter_by_created_timestamp
        with connect(limits) as db:
            made = plan.make(
                db, entity_df, feature_views, feature_refs, config.repo_path, full_feature_names, known_only
            )
        return AsofRetrievalJob(made, limits, full_feature_names, on_demand, feature_refs)

    @staticmethod
    def offline_write_batch(
        config: Any, feature_view: Any, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        """Appends pushed rows as a file beside the table's others; the parent writes the whole table again.

        Raises:
            DataError: rows with other columns than the table, or of other types. UsageError: no local table.
        """
        append(_folder(config, feature_view.batch_source), table)
        if progress is not None:
            progress(len(table))

    def get_table_column_names_and_types_from_data_source(
        self, config: Any, data_source: Any
    ) -> Iterable[tuple[str, str]]:
        """Of a table in several files too, which Feast cannot look into."""
        if isinstance(data_source, FileSource) and _is_pattern(data_source.path):
            return [(field.name, str(field.type)) for field in table_schema(_folder(config, data_source))]
        found: Iterable[tuple[str, str]] = data_source.get_table_column_names_and_types(config)
        return found


def _is_pattern(path: str) -> bool:
    return Path(path).name == "*.parquet"


def _folder(config: Any, source: Any) -> Path:
    """The folder that a source's files lie in."""
    if not isinstance(source, FileSource) or "://" in source.path.removeprefix("file://"):
        raise UsageError(
            f"{getattr(source, 'path', source)} is no local table, and this offline store appends to no other: push "
            "online only, or set another offline_store"
        )
    path = Path(FileSource.get_uri_for_file_path(config.repo_path, source.path).removeprefix("file://"))
    return path if path.is_dir() else path.parent
