"""DuckDB as every stage uses it: UTC, bounded memory, and one thread unless a stage writes nothing with it.

The one file of the ground floor that serving must not import.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from components.contracts import columns as c
from components.contracts.errors import DataError

MEMORY = "2GB"
"""Above this DuckDB spills to a temporary folder."""

INTEGERS = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER"})
"""Integer types whose every value fits a BIGINT."""
WIDE_INTEGERS = frozenset({"UBIGINT", "HUGEINT", "UHUGEINT"})
TIME = "TIMESTAMP WITH TIME ZONE"
NAIVE_TIMES = frozenset({"TIMESTAMP", "TIMESTAMP_NS", "TIMESTAMP_MS", "TIMESTAMP_S", "DATE"})


@contextmanager
def connect(threads: int | None = 1, trust_statistics: bool = True) -> Iterator[duckdb.DuckDBPyConnection]:
    """An in-memory connection whose spill files are gone afterwards.

    Args:
        threads: None for every core, where nothing is written in the order it comes: more than one thread splits row
            groups differently from run to run, and equal inputs must give equal bytes.
        trust_statistics: False where NaN matters. Parquet's minimum and maximum leave NaN out, and DuckDB 2.0 concludes
            from them that `isnan(x)` is false and `x > 1` as well, without looking at the values.

    Raises:
        DataError: for anything DuckDB cannot read or convert, with its first line.
    """
    with tempfile.TemporaryDirectory(prefix="esmm-duckdb-") as spill:
        connection = duckdb.connect()
        try:
            connection.execute(f"SET TimeZone = 'UTC'; SET memory_limit = '{MEMORY}'")
            if threads is not None:
                connection.execute(f"SET threads = {threads}")
            if not trust_statistics:
                connection.execute("SET disabled_optimizers = 'statistics_propagation'")
            connection.execute(f"SET temp_directory = {text(spill)}")
            yield connection
        except duckdb.Error as error:
            reason = " ".join(str(error).split("\n\n")[0].split())
            raise DataError(f"the data cannot be read ({reason}): check the files and the column types") from error
        finally:
            connection.close()


def text(value: str | Path) -> str:
    """An SQL string literal."""
    return "'" + str(value).replace("'", "''") + "'"


def name(column: str) -> str:
    """An SQL identifier."""
    return '"' + column.replace('"', '""') + '"'


def parquet(files: Sequence[Path], partitioned: bool = False, numbered: bool = False) -> str:
    """A table function over the files. Columns are matched by name; one that a file lacks is null in its rows.

    `partitioned` adds `dt` from the folders' names, as a string; `numbered` adds filename and file_row_number.
    """
    listed = ", ".join(text(file) for file in files)
    options = "union_by_name = true"
    options += (
        ", hive_partitioning = true, hive_types = {'dt': VARCHAR}" if partitioned else ", hive_partitioning = false"
    )
    options += ", filename = true, file_row_number = true" if numbered else ""
    return f"read_parquet([{listed}], {options})"


def instant(value: datetime) -> str:
    """An SQL TIMESTAMPTZ literal."""
    return f"TIMESTAMPTZ {text(value.astimezone(UTC).isoformat(sep=' '))}"


def known_before(as_of: datetime) -> str:
    """The as-of rule for feature tables: a row whose event or created time is not earlier is invisible."""
    return f"{c.EVENT_TIMESTAMP} < {instant(as_of)} AND {c.CREATED_TIMESTAMP} < {instant(as_of)}"


def types(connection: duckdb.DuckDBPyConnection, source: str) -> dict[str, str]:
    """Column -> DuckDB type of a table function or view, in order."""
    rows = connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()
    return {str(row[0]): str(row[1]) for row in rows}
