"""Point-in-time join through Feast: what was known of user, item and group at the moment of each row.

Of each view a row gets the latest values stamped no later than the row's time, no older than the view's time to live
(inclusive), and *created* no later than the row's time: a backfill written afterwards was not known then. Ties go to
the latest `created`. Rows without any keep nulls; no row is dropped or merged. The join itself is the offline store of
feature_store.yaml, feature_repo/asof.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import ibis
import pyarrow as pa

from components.contracts import columns as c
from components.contracts import duck
from components.contracts.errors import DataError
from components.contracts.spec import FeatureSpec, raw
from components.features import tables
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
        self._store = repo.open_store("scratch", scratch)
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
        keys = rows.select(list(wanted)).append_column(ROW, pa.array(range(len(rows)), pa.int64()))
        found = self._retrieve(keys).to_arrow()
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
        for batch in self._retrieve(query).to_batches(batch_rows):
            found = pa.Table.from_batches([batch])
            features = self._features(found)
            for name in features.column_names:
                found = found.set_column(found.column_names.index(name), name, features[name])
            yield found

    def _retrieve(self, entities: Any) -> Any:
        references = [f"{feature.source}:{name}" for feature in self.spec.stored for name in feature.raw]
        return self._store.get_historical_features(
            entity_df=entities, features=references, filter_by_created_timestamp=True
        )

    def _features(self, found: pa.Table) -> pa.Table:
        columns = raw(self.spec.stored)
        return pa.table({name: found[name].cast(tables.ARROW_TYPES[dtype]) for name, dtype in columns.items()})


@contextmanager
def ibis_in_utc() -> Iterator[None]:
    """Gives Feast, which materializes on ibis' default backend, a DuckDB connection of its own, in UTC.

    Casts of that connection depend on its time zone, which is the machine's unless it is told.
    """
    before = ibis.options.default_backend
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # ibis calls DuckDB by an old name
        backend = ibis.duckdb.connect()
        try:
            backend.raw_sql(f"SET TimeZone = 'UTC'; SET memory_limit = '{duck.MEMORY}'")
            ibis.set_backend(backend)
            yield
        finally:
            ibis.options.default_backend = before
            backend.disconnect()
