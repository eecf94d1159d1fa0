"""Point-in-time join through Feast: what was known of user, item and group at the moment of each row.

Of each view a row gets the latest values stamped no later than the row's time, no older than the view's time to live
(inclusive), and *created* no later than the row's time: a backfill written afterwards was not known then. Ties go to
the latest `created`. Rows without any keep nulls; no row is dropped or merged. The join itself is the offline store of
feature_store.yaml, feature_repo/asof; under the spark profile that of feature_store.spark.yaml, feature_repo/spark.py.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from components.contracts import columns as c
from components.contracts.errors import DataError
from components.contracts.spec import FeatureSpec, raw
from components.features import spark_join, tables
from feature_repo import sources
from feature_repo import store as repo

ROW = "__row"
"""Numbers the rows given, to check that each came back, in its place."""


class PointInTime:
    """A scratch Feast store over `features`, thrown away on exit; the live store is never touched.

    Raises:
        DataError: on entry, if a view the spec needs is not declared or has no table, a column is of another type, or a
            list is no bag.
    """

    def __init__(self, features: Path, spec: FeatureSpec) -> None:
        self.features = features
        self.spec = spec
        self._open = ExitStack()

    def __enter__(self) -> Self:
        present = tuple(view.name for view in self.spec.views)
        tables.require(self.spec.views, sources.present(str(self.features)), self.features)
        tables.check(self.features, present)
        scratch = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="esmm-feast-")))
        self._store = repo.open_store("scratch", scratch, repo.scratch("scratch", scratch))
        repo.apply(self._store, self.features, present)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def join(self, rows: pa.Table) -> pa.Table:
        """The spec's stored features for `rows` (the spec's keys, event_timestamp), in the rows' order.

        Returns:
            A column a stored feature (and its weights), of the spec's type, null where nothing was known; as many rows
            as given.

        Raises:
            DataError: if Feast does not return each row exactly once.
        """
        wanted = (*self.spec.keys, c.EVENT_TIMESTAMP)
        if not len(rows):
            return self._schema().empty_table()
        keys = rows.select(list(wanted)).append_column(ROW, pa.array(range(len(rows)), pa.int64()))
        found = self._joined(keys)
        if not found[ROW].combine_chunks().equals(keys[ROW].combine_chunks()):
            raise DataError(
                f"Feast returned {len(found)} rows for {len(keys)} impressions, or not the same ones: the retrieved "
                "data would be a biased sample; report this with your feast version"
            )
        return self._features(found)

    def stream(self, query: str, batch_rows: int) -> Iterator[pa.Table]:
        """The rows of `query` (SQL with the spec's keys and event_timestamp) in its order, with the stored features.

        Yields:
            Tables of about `batch_rows` rows: the query's columns, then one a stored feature as `join` has them.
        """
        for found in self._batches(query, batch_rows):
            features = self._features(found)
            for name in features.column_names:
                found = found.set_column(found.column_names.index(name), name, features[name])
            yield found

    def _joined(self, keys: pa.Table) -> pa.Table:
        if not repo.on_spark(self._store):
            return self._retrieve(keys).to_arrow()
        with tempfile.TemporaryDirectory(prefix="esmm-keys-") as folder:
            pq.write_table(keys, Path(folder) / "keys.parquet")
            return pa.concat_tables(self._batches(f"FROM {tables.parquet(Path(folder))}", len(keys)))

    def _batches(self, query: str, batch_rows: int) -> Iterator[pa.Table]:
        if repo.on_spark(self._store):
            yield from spark_join.stream(self._store, self._references(), self.spec.keys, query, batch_rows)
            return
        for batch in self._retrieve(query).to_batches(batch_rows):
            yield pa.Table.from_batches([batch])

    def _retrieve(self, entities: Any) -> Any:
        return self._store.get_historical_features(
            entity_df=entities, features=self._references(), filter_by_created_timestamp=True
        )

    def _references(self) -> list[str]:
        return [f"{feature.source}:{name}" for feature in self.spec.stored for name in feature.raw]

    def _features(self, found: pa.Table) -> pa.Table:
        return pa.table({column.name: found[column.name].cast(column.type) for column in self._schema()})

    def _schema(self) -> pa.Schema:
        return pa.schema({name: tables.ARROW_TYPES[dtype] for name, dtype in raw(self.spec.stored).items()})
