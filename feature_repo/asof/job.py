"""What the offline store hands back: nothing has run yet, and what runs does so in a connection of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from feast.errors import SavedDatasetLocationAlreadyExists
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.infra.offline_stores.offline_store import RetrievalJob, RetrievalMetadata

from components.contracts import duck
from components.contracts.errors import DataError, UsageError
from feature_repo.asof import sql
from feature_repo.asof.plan import Plan

NULLABLE = {
    pa.int8(): pd.Int8Dtype(), pa.int16(): pd.Int16Dtype(), pa.int32(): pd.Int32Dtype(), pa.int64(): pd.Int64Dtype(),
    pa.uint8(): pd.UInt8Dtype(), pa.uint16(): pd.UInt16Dtype(), pa.uint32(): pd.UInt32Dtype(),
    pa.uint64(): pd.UInt64Dtype(), pa.bool_(): pd.BooleanDtype(),
}  # fmt: skip


ROW_GROUP = 122_880
"""Rows, as DuckDB writes them."""
SLICE = 0.3
"""Share of the memory that the rows of a slice may take, by estimate: the values to fetch for them need some too."""


@dataclass(frozen=True)
class Limits:
    """`memory`: what DuckDB may hold before it spills to a temporary folder. `threads` None: every core."""

    memory: str
    threads: int | None


@contextmanager
def connect(limits: Limits) -> Iterator[duckdb.DuckDBPyConnection]:
    """In UTC whatever the machine's zone, since casts depend on it.

    Raises:
        DataError: what DuckDB cannot read; more memory needed than it may have, though it spills what it can.
    """
    with duck.connect(threads=limits.threads) as db:
        db.execute(f"SET memory_limit = {duck.text(limits.memory)}")
        # Few rows would be joined by another operator than many: one is enough to vouch for.
        db.execute("SET asof_loop_join_threshold = 0")
        try:
            yield db
        except duckdb.OutOfMemoryException as error:
            raise DataError(
                f"the join needs more than the {limits.memory} it may hold, with all on disk that can be: raise "
                "memory_limit or lower threads, below offline_store in feature_store.yaml"
            ) from error


class AsofRetrievalJob(RetrievalJob):  # type: ignore[misc]  # Feast ships no types
    """Every entity row once, in the order given: its own columns, then the features, view by view."""

    def __init__(
        self, plan: Plan, limits: Limits, full_feature_names: bool, on_demand: list[Any], references: list[str]
    ) -> None:
        super().__init__()
        self.plan = plan
        self._limits = limits
        self._full_feature_names = full_feature_names
        self._on_demand = on_demand
        self._references = references
        self._metadata: RetrievalMetadata | None = None

    def to_parquet(self, path: str | Path) -> int:
        """Writes the result to one Parquet file, never held in memory whole; replaces a file of that name.

        Returns:
            Rows written.

        Raises:
            DataError: what cannot be read; no file is left then. UsageError: on-demand views were asked for.
        """
        self._refuse_on_demand("to_parquet")
        path = Path(path)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as aside, self._prepared() as db:
            file = Path(aside) / "rows.parquet"
            rows, size = self._rows(db)
            if rows <= size:
                db.execute(f"COPY ({sql.result(self.plan, 0, size)}) TO {duck.text(file)} (FORMAT parquet)")
            else:
                self._write(db, file)
            file.replace(path)
        return rows

    def to_batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        """The result in pieces of about `rows` rows or fewer, in order; one or two are in memory at a time.

        Raises:
            DataError, UsageError: as `to_parquet`.
        """
        self._refuse_on_demand("to_batches")
        with self._prepared() as db:
            yield from self._batches(db, rows)

    def to_df(self, validation_reference: Any = None, timeout: int | None = None) -> pd.DataFrame:
        """As Feast's, but integers and booleans that may be null stay what they are: pandas' nullable types."""
        table = self.to_arrow(validation_reference=validation_reference, timeout=timeout)
        given = [name for name in self.plan.entities.types if name in table.column_names]
        features = table.drop_columns(given).to_pandas(types_mapper=NULLABLE.get)
        return pd.concat([table.select(given).to_pandas(), features], axis=1)

    def _to_arrow_internal(self, timeout: int | None = None) -> pa.Table:
        with self._prepared() as db:
            schema = db.sql(sql.result(self.plan, 0, 0)).to_arrow_table().schema
            return pa.Table.from_batches(self._batches(db, ROW_GROUP), schema)

    def _to_df_internal(self, timeout: int | None = None) -> pd.DataFrame:
        return self._to_arrow_internal(timeout).to_pandas()

    @contextmanager
    def _prepared(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with connect(self._limits) as db:
            self.plan.entities.register(db)
            for statement in sql.preparation(self.plan):
                db.execute(statement)
            yield db

    def _rows(self, db: duckdb.DuckDBPyConnection) -> tuple[int, int]:
        """How many entity rows there are, and how many make a slice."""
        query = f"SELECT count(*), current_setting('memory_limit'), ({sql.row_bytes(self.plan)}) FROM {sql.MATCHED}"
        ((rows, limit, row_bytes),) = db.execute(query).fetchall()
        return int(rows), max(int(SLICE * _bytes(limit) / row_bytes), 1)

    def _batches(self, db: duckdb.DuckDBPyConnection, most: int) -> Iterator[pa.RecordBatch]:
        rows, size = self._rows(db)
        for first in range(0, rows, size):
            yield from db.sql(sql.result(self.plan, first, first + size)).to_arrow_reader(most)

    def _write(self, db: duckdb.DuckDBPyConnection, file: Path) -> None:
        """A row group a batch, each written while the next one is joined."""
        schema = db.sql(sql.result(self.plan, 0, 0)).to_arrow_table().schema
        with pq.ParquetWriter(file, schema) as writer, ThreadPoolExecutor(1) as pool:
            written = pool.submit(int)
            for batch in self._batches(db, ROW_GROUP):
                written.result()
                written = pool.submit(writer.write_batch, batch)
            written.result()

    def _refuse_on_demand(self, what: str) -> None:
        if self._on_demand:
            raise UsageError(
                f"{what} streams what is stored and cannot compute on-demand feature views "
                f"({', '.join(view.name for view in self._on_demand)}): leave them out, or use to_arrow"
            )

    @property
    def full_feature_names(self) -> bool:
        return self._full_feature_names

    @property
    def on_demand_feature_views(self) -> list[Any]:
        return self._on_demand

    @property
    def metadata(self) -> RetrievalMetadata:
        """Asks the entity rows for their first and last time, once."""
        if self._metadata is None:
            entities = self.plan.entities
            time = duck.name(entities.time)
            with connect(self._limits) as db:
                entities.register(db)
                first, last = db.execute(
                    f"SELECT min({time})::TIMESTAMPTZ, max({time})::TIMESTAMPTZ FROM ({entities.query})"
                ).fetchone()
            keys = [name for name in entities.types if name != entities.time]
            self._metadata = RetrievalMetadata(self._references, keys, first, last)
        return self._metadata

    def persist(self, storage: Any, allow_overwrite: bool = False, timeout: int | None = None) -> None:
        """For `FeatureStore.create_saved_dataset`: one Parquet file at the storage's path."""
        if not isinstance(storage, SavedDatasetFileStorage):
            raise UsageError(f"this offline store saves to files, not to {type(storage).__name__}: give a file storage")
        path = Path(storage.file_options.uri.removeprefix("file://"))
        if path.exists() and not allow_overwrite:
            raise SavedDatasetLocationAlreadyExists(location=str(path))
        self.to_parquet(path)


def _bytes(shown: str) -> int:
    """Of "953.6 MiB", as DuckDB shows its limit."""
    number, unit = shown.split()
    return int(float(number) * 1024 ** ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB").index(unit))
