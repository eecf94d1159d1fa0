"""The point-in-time join on Spark: entity rows go in as Parquet, features come out as Parquet, none through the driver.

Spark gets the keys and the time alone. The rows' other columns wait in a file here, and what Spark wrote is laid beside
them, row by row, since both are in order of a number that each row carries.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from components.contracts import columns as c
from components.contracts import duck
from components.contracts.errors import DataError

ROW = "__place"
"""Of a row given, its place."""
FOUND = "__found"
"""The same, as Spark returned it."""


def stream(store: Any, references: list[str], keys: tuple[str, ...], query: str, batch_rows: int) -> Iterator[pa.Table]:
    """The rows of `query` (SQL with `keys` and event_timestamp) in its order, then a column a feature.

    Args:
        store: a Feast store of the spark profile; references: "view:feature".

    Yields:
        Tables of about `batch_rows` rows.

    Raises:
        DataError: if Spark does not return each row exactly once, or fails. UsageError: if it does not start.
    """
    with tempfile.TemporaryDirectory(prefix="esmm-spark-") as folder:
        rows, found = Path(folder) / "rows.parquet", Path(folder) / "found"
        with duck.connect() as db:
            numbered = f"SELECT *, row_number() OVER () - 1 AS {ROW} FROM ({query})"
            count = db.execute(f"COPY ({numbered}) TO {duck.text(rows)} (FORMAT parquet)").fetchone()[0]
        if count:
            _join(store, references, [*keys, c.EVENT_TIMESTAMP, ROW], rows, found)
            yield from _beside(rows, found, count, batch_rows)


def _join(store: Any, references: list[str], columns: list[str], rows: Path, found: Path) -> None:
    from feature_repo import spark  # needs pyspark, which the other profiles do without

    session = spark.session(store.config)
    try:
        entities = session.read.parquet(str(rows)).select(*columns)
        job = store.get_historical_features(entity_df=entities, features=references, filter_by_created_timestamp=True)
        features = job.to_spark_df().drop(*columns[:-1])
        features.withColumnRenamed(ROW, FOUND).sort(FOUND).write.parquet(str(found))
    except spark.FAILURES as error:
        raise DataError(
            f"Spark could not join the features ({spark.first_line(error)}): check the tables, and that executors see "
            "the home and TMPDIR at the same paths (docs/profiles.md)"
        ) from error


def _beside(rows: Path, found: Path, count: int, batch_rows: int) -> Iterator[pa.Table]:
    # Spark numbers the files of a sorted result in its order.
    parts = duck.parquet(sorted(found.glob("part-*.parquet")))
    query = f"SELECT given.*, found.* FROM {duck.parquet([rows])} AS given POSITIONAL JOIN {parts} AS found"
    returned = 0
    with duck.connect() as db:
        for batch in db.sql(query).to_arrow_reader(batch_rows):
            table = pa.Table.from_batches([batch])
            expected = pa.array(range(returned, returned + len(table)), pa.int64())
            if not all(table[name].combine_chunks().equals(expected) for name in (ROW, FOUND)):
                raise DataError(
                    f"Spark did not return each of {count} impressions once: the retrieved data would be a biased "
                    "sample; report this with your versions of feast and pyspark"
                )
            returned += len(table)
            yield table.drop_columns([ROW, FOUND])
