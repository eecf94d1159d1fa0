"""The offline store itself: Feast's DuckDB store with another point-in-time join."""

from __future__ import annotations

from typing import Any

from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.on_demand_feature_view import OnDemandFeatureView

from components.contracts.errors import UsageError
from feature_repo.asof import plan
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
    """One ASOF join a view. All but historical features (materialization, logging, monitoring) is the parent's."""

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
