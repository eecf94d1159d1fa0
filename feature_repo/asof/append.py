"""Adds rows to a view's table as a file of their own beside the others: nothing that is there is written again."""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.contracts import columns as c
from components.contracts import pushed
from components.contracts.errors import DataError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def append(folder: Path, rows: pa.Table) -> Path:
    """Writes `rows` as `folder`/push-*.parquet; a reader sees the whole file or none. Equal rows get an equal name.

    Returns:
        The file, which may have been there: then nothing is written.

    Raises:
        DataError: other columns than the table in `folder` has, a value that does not fit its type, or a row without
            event or created time.
    """
    fitted = _fitted(folder, rows)
    for column in (c.EVENT_TIMESTAMP, c.CREATED_TIMESTAMP):
        if column in fitted.column_names and fitted[column].null_count:
            raise DataError(f"{folder}: {fitted[column].null_count} rows to append have no {column}: give it")
    sink = pa.BufferOutputStream()
    pq.write_table(fitted, sink)
    content = sink.getvalue()
    path = folder / pushed.name(_first(fitted), hashlib.sha256(content).hexdigest()[:16])
    if not path.exists():
        write_bytes(path, content)
    return path


def write_bytes(path: Path, content: bytes | pa.Buffer) -> None:
    """Aside and on disk first, then renamed. The name aside ends otherwise: no pattern of tables matches it."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def table_schema(folder: Path) -> pa.Schema:
    """Of the table's first file that was not pushed, else of the first. Raises DataError if there is none."""
    files = sorted(folder.glob("*.parquet"), key=lambda file: (pushed.first_created(file.name) is not None, file.name))
    if not files:
        raise DataError(f"{folder} holds no *.parquet, so the columns of its rows are unknown: bring the table first")
    try:
        return pq.read_schema(files[0])
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{files[0]} is no readable Parquet file ({error}): bring the table again") from None


def _fitted(folder: Path, rows: pa.Table) -> pa.Table:
    schema = table_schema(folder).remove_metadata()
    missing = sorted(set(schema.names) - set(rows.column_names))
    more = sorted(set(rows.column_names) - set(schema.names))
    if missing or more:
        said = [f"lack {', '.join(missing)}"] if missing else []
        said += [f"have {', '.join(more)}, which it has not"] if more else []
        raise DataError(f"{folder}: the rows to append {' and '.join(said)}: give exactly the table's columns")
    try:
        return rows.select(schema.names).cast(schema)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{folder}: the rows to append do not fit the table's types ({error})") from None


def _first(rows: pa.Table) -> datetime:
    time = c.CREATED_TIMESTAMP if c.CREATED_TIMESTAMP in rows.column_names else c.EVENT_TIMESTAMP
    first = pc.min(rows[time].cast(pa.timestamp("us", tz="UTC"))).cast(pa.int64()).as_py() if len(rows) else 0
    return EPOCH + timedelta(microseconds=first)
