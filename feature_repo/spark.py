"""Feast's Spark offline store and engine, held to what this project promises. Imported under the spark profile alone.

What Feast 0.67 gets wrong, and this mends (tests/features/test_profiles_spark.py shows each):

- The first and last time of the entity rows bound what is read of a view. PySpark gives them in the *process's* time
  zone, Feast takes them for UTC: west of Greenwich the latest hours of features vanish, east of it those at the edge of
  their time to live.
- A version that is in the table twice (same key, event and created time) multiplies the entity rows it belongs to.
- An integer column with nulls comes back as floats, since the result goes through pandas.
- A late backfill is seen in the past unless each call asks not to.
- The engine, where it comes first, starts Spark without the `spark_conf` set for it (it takes its whole section of the
  yaml for Spark's settings): in the machine's time zone, that is, which moves the ends of what is materialized.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from feast.errors import DataSourceNotFoundException
from feast.infra.compute_engines.spark.compute import SparkComputeEngine, SparkComputeEngineConfig
from feast.infra.offline_stores.contrib.spark_offline_store.spark import (
    SparkOfflineStore,
    SparkOfflineStoreConfig,
    SparkRetrievalJob,
    get_spark_session_or_start_new_with_repoconfig,
)
from py4j.protocol import Py4JError, Py4JJavaError  # type: ignore[import-untyped]  # ships no types
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession, functions

from components.contracts.errors import UsageError
from feature_repo.asof.append import append, table_schema

# Before Spark starts: its workers would take another Python than the one that runs this.
for _name in ("PYSPARK_PYTHON", "PYSPARK_DRIVER_PYTHON"):
    os.environ.setdefault(_name, sys.executable)

FAILURES = (PySparkException, Py4JError, DataSourceNotFoundException)
TIME = "event_timestamp"
TIMES = ("timestamp", "timestamp_ntz")
ROW = "__spark_row"
"""Numbers the entity rows within a retrieval."""


class UtcSparkOfflineStoreConfig(SparkOfflineStoreConfig):  # type: ignore[misc]  # Feast ships no types
    """Settings below `offline_store` in feature_store.spark.yaml.

    `filter_by_created_timestamp`: leave out what was created after the entity row's time, whatever the call says; so
    does the asof store.
    """

    type: str = "feature_repo.spark.UtcSparkOfflineStore"
    filter_by_created_timestamp: bool = True


class UtcSparkRetrievalJob(SparkRetrievalJob):  # type: ignore[misc]
    """Every entity row once, in no order."""

    def to_spark_df(self) -> DataFrame:
        found = super().to_spark_df().dropDuplicates([ROW]).drop(ROW)
        return found.withColumn(TIME, functions.col(TIME).cast("timestamp"))

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        return self.to_spark_df().toArrow()


class UtcSparkOfflineStore(SparkOfflineStore):  # type: ignore[misc]
    """Historical features, and pushed rows as the asof store writes them; all else (materialization, monitoring) is the
    parent's."""

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
    ) -> UtcSparkRetrievalJob:
        """As Feast's, and nothing has run yet but the first and last time of the entity rows.

        Args:
            entity_df: a Spark frame, a pandas frame or Spark's SQL, with event_timestamp.
            ranges: start_date and end_date, for retrieval without entity rows, which is refused.

        Raises:
            UsageError: no entity rows, or none of these kinds, or without event_timestamp.
        """
        if entity_df is None or any(value is not None for value in ranges.values()):
            raise UsageError(
                "this offline store joins features to entity rows and does not list them by time alone: give "
                "entity_df, without start_date and end_date"
            )
        job = SparkOfflineStore.get_historical_features(
            config,
            feature_views,
            feature_refs,
            _numbered(entity_df, session(config)),
            registry,
            project,
            full_feature_names,
            filter_by_created_timestamp or config.offline_store.filter_by_created_timestamp,
        )
        return UtcSparkRetrievalJob(
            spark_session=job.spark_session,
            query=job.query,
            full_feature_names=job.full_feature_names,
            config=config,
            on_demand_feature_views=job.on_demand_feature_views,
            metadata=job.metadata,
        )

    @staticmethod
    def offline_write_batch(
        config: Any, feature_view: Any, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        """Appends pushed rows as a file beside the table's others; Spark would append a repeated push again.

        Raises:
            DataError: rows with other columns than the table, or of other types. UsageError: no local table.
        """
        append(_folder(feature_view.batch_source), table)
        if progress is not None:
            progress(len(table))

    def get_table_column_names_and_types_from_data_source(
        self, config: Any, data_source: Any
    ) -> Iterable[tuple[str, str]]:
        return [(field.name, str(field.type)) for field in table_schema(_folder(data_source))]


class UtcSparkComputeEngineConfig(SparkComputeEngineConfig):  # type: ignore[misc]
    """Settings below `batch_engine` in feature_store.spark.yaml; those of Spark itself are below `offline_store`."""

    type: str = "feature_repo.spark.UtcSparkComputeEngine"


class UtcSparkComputeEngine(SparkComputeEngine):  # type: ignore[misc]
    """Feast's materialization, in the offline store's session."""

    def _get_feature_view_spark_session(self, feature_view: Any) -> SparkSession:
        opened = session(self.repo_config)
        opened.conf.set("spark.sql.execution.arrow.pyspark.enabled", "true")
        return opened


def session(config: Any) -> SparkSession:
    """The session that is open, or one with the settings of feature_store.spark.yaml; in UTC either way.

    Raises:
        UsageError: Spark does not start.
    """
    try:
        opened: SparkSession = get_spark_session_or_start_new_with_repoconfig(config.offline_store)
    except FAILURES as error:
        raise UsageError(
            f"Spark did not start ({first_line(error)}): it needs Java 17 or later, on the path or in JAVA_HOME, and a "
            "master that it reaches (ESMM_SPARK_MASTER, ESMM_SPARK_HOST; docs/profiles.md)"
        ) from error
    opened.conf.set("spark.sql.session.timeZone", "UTC")
    return opened


def first_line(error: Exception) -> str:
    """Of what Spark says, without the Java stack trace below."""
    if isinstance(error, DataSourceNotFoundException) and isinstance(error.__context__, Exception):
        return first_line(error.__context__)  # Feast says so of any table that Spark cannot read
    said = error.java_exception.toString() if isinstance(error, Py4JJavaError) else str(error)
    return next(iter(str(said).strip().splitlines()), type(error).__name__)


def _folder(source: Any) -> Path:
    if not source.path or "://" in source.path:
        raise UsageError(f"{source.path or source.name} is no local folder of Parquet, so nothing can be pushed to it")
    return Path(source.path)


def _numbered(given: Any, spark: SparkSession) -> DataFrame:
    """The entity rows with a number each, and their time without a zone: that of the session is UTC, and of such times
    PySpark makes no local ones."""
    if isinstance(given, pd.DataFrame):
        frame = (
            given.assign(**{TIME: pd.to_datetime(given[TIME], utc=True).dt.as_unit("us")}) if TIME in given else given
        )
        rows = spark.createDataFrame(pa.Table.from_pandas(frame, preserve_index=False))
    elif isinstance(given, str):
        rows = spark.sql(given)
    elif isinstance(given, DataFrame):
        rows = given
    else:
        raise UsageError(f"entity rows came as {type(given).__name__}: give a Spark frame, a pandas frame or SQL")
    if dict(rows.dtypes).get(TIME) not in TIMES:
        raise UsageError(f"the entity rows have the columns {', '.join(rows.columns)}: call the one of times {TIME}")
    time = functions.col(TIME).cast("timestamp_ntz")
    return rows.withColumns({TIME: time, ROW: functions.monotonically_increasing_id()})
