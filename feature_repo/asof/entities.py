"""The rows that features are asked for: a frame, a Parquet file, or a query."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa

from components.contracts import duck
from components.contracts.errors import DataError, UsageError

GIVEN = "asof_given"
"""The name under which a frame is known to DuckDB."""
TIME_COLUMN = "event_timestamp"
RESERVED = "asof_"
"""Tables and columns of the join begin with it, so no column given may."""
VIRTUAL = ("file_index", "file_row_number")
"""DuckDB says with them where in a Parquet file a row lies; a column of that name would be taken in their place."""
_QUERY = re.compile(r"\s*(\(|(select|with|from|values|table)\b)", re.IGNORECASE)

TIMES = frozenset({duck.TIME, *duck.NAIVE_TIMES, "TIMESTAMPTZ_NS"})
NANOSECONDS = frozenset({"TIMESTAMP_NS", "TIMESTAMPTZ_NS"})


@dataclass(frozen=True)
class Entities:
    """Where the rows come from.

    `query`: SQL of them; `file`: a table function, if they are one Parquet file, whose rows are read where they lie, by
    their number, while all others are copied first. `types`: DuckDB's, by column, in order; `time`: the column of the
    event time.
    """

    query: str
    file: str | None
    frame: pa.Table | None
    types: dict[str, str]
    time: str

    def register(self, db: duckdb.DuckDBPyConnection) -> None:
        if self.frame is not None:
            db.register(GIVEN, self.frame)


def describe(db: duckdb.DuckDBPyConnection, given: object) -> Entities:
    """Finds out what was given.

    Args:
        given: a pandas frame, an Arrow table, a path to Parquet (a file, a pattern or a folder), or SQL that DuckDB
            reads (a string that begins with SELECT, WITH, FROM or VALUES).

    Raises:
        UsageError: nothing of that kind, no event time, a column whose name the join needs. DataError: a frame that
            Arrow cannot take, no such file.
    """
    frame, file = None, None
    if isinstance(given, pd.DataFrame | pa.Table):
        frame = _arrow(given)
        db.register(GIVEN, frame)
        query = f"SELECT * FROM {GIVEN}"
    elif isinstance(given, str) and _QUERY.match(given):
        query = given.strip().rstrip(";")
    elif isinstance(given, str | Path):
        table = parquet(str(given), "entity rows")
        query, file = f"SELECT * FROM {table}", table if Path(given).is_file() else None
    else:
        raise UsageError(
            f"entity rows came as {type(given).__name__}: give a pandas frame, an Arrow table, a path to Parquet or SQL"
        )
    described = db.execute(f"DESCRIBE {query}").fetchall()
    types = {str(row[0]): str(row[1]) for row in described}
    taken = [name for name in types if name.lower().startswith(RESERVED)]
    if taken or len({name.lower() for name in types}) < len(described):
        raise UsageError(
            f"the entity rows have the columns {', '.join(map(str, (row[0] for row in described)))}: names must differ "
            f"by more than their case, and {RESERVED}* is kept for the join; rename them"
        )
    return Entities(query, None if set(VIRTUAL) & set(types) else file, frame, types, _time(types))


def parquet(path: str, what: str) -> str:
    """A table function over a local file, pattern or folder. Raises DataError if it leads to no file."""
    if "://" in path:
        raise UsageError(f"{what} lie at {path}: this store reads local Parquet; copy them, or use Feast's Spark store")
    place = Path(path)
    pattern = str(place / "*.parquet") if place.is_dir() else path
    if not any(character in pattern for character in "*?[") and not place.is_file():
        raise DataError(f"{what}: {path} does not exist; give a Parquet file, a folder of them, or a pattern")
    return f"read_parquet({duck.text(pattern)}, union_by_name = true)"


def _arrow(given: pd.DataFrame | pa.Table) -> pa.Table:
    if isinstance(given, pa.Table):
        return given
    frame = given
    if TIME_COLUMN in frame and frame[TIME_COLUMN].dtype == object:
        # As Feast does: times written out, or of several zones, are read as UTC.
        frame = frame.assign(**{TIME_COLUMN: pd.to_datetime(frame[TIME_COLUMN], utc=True)})
    try:
        return pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise DataError(f"the frame of entity rows mixes types ({error}): give each column one type") from None


def _time(types: dict[str, str]) -> str:
    """Feast's rule: event_timestamp, or the only column of times."""
    if TIME_COLUMN in types:
        if types[TIME_COLUMN] not in TIMES:
            raise UsageError(
                f"{TIME_COLUMN} of the entity rows is {types[TIME_COLUMN]}: give a time, as with "
                f"CAST({TIME_COLUMN} AS TIMESTAMPTZ)"
            )
        return TIME_COLUMN
    times = [name for name, kind in types.items() if kind in TIMES]
    if len(times) != 1:
        raise UsageError(
            f"the entity rows have {len(times)} columns of times ({', '.join(times) or 'none'}): call the one that "
            f"counts {TIME_COLUMN}"
        )
    return times[0]
