"""Reading artifact tables for the suites, and writing them apart into good and bad rows.

A file is read column by column for checking, and once more whole for writing, so that what is written is what
came: same columns, same types.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.contracts import columns as c
from components.contracts.dataset import DatasetInfo
from components.contracts.errors import DataError
from components.validation.runner import INDEX_NAME
from components.validation.suite import ABSENT, CLICK_DEADLINE, CONVERSION_DEADLINE, EVENT_DATE

REASON, REASONS = "reason", "reasons"


@dataclass(frozen=True)
class File:
    path: Path
    name: str
    """Relative to the artifact, as in messages."""
    day: str
    """Value of the dt partition; empty for feature tables."""
    schema: Any
    start: int
    """Number of its first row in the whole table."""
    rows: int


def files_below(folder: Path, pattern: str) -> list[File]:
    """Parquet files of a table, sorted by name.

    Raises:
        DataError: for a file that is no Parquet file.
    """
    found: list[File] = []
    start = 0
    for path in sorted(folder.glob(pattern)):
        try:
            metadata = pq.read_metadata(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{path} is no readable Parquet file ({error}): run the stage that made it again") from None
        parent = path.parent.name
        day = parent.removeprefix(f"{c.PARTITION}=") if parent.startswith(f"{c.PARTITION}=") else ""
        name = path.relative_to(folder).as_posix()
        found.append(File(path, name, day, metadata.schema.to_arrow_schema(), start, metadata.num_rows))
        start += metadata.num_rows
    return found


def type_frame(files: list[File]) -> Any:
    """pandas frame with a row a file and a column a column of any file: Arrow type names, or `absent`."""
    import pandas as pd

    names = list(dict.fromkeys(name for file in files for name in file.schema.names))
    rows = [
        {name: _type_name(file.schema.field(name).type) if name in file.schema.names else ABSENT for name in names}
        for file in files
    ]
    return pd.DataFrame(rows, columns=names, index=pd.Index([file.name for file in files], name=INDEX_NAME))


def _type_name(kind: Any) -> str:
    return str(kind.value_type if pa.types.is_dictionary(kind) else kind)


def read_frame(files: list[File], columns: list[str]) -> Any:
    """pandas frame of some columns of all files, with types that Great Expectations handles vectorised.

    Numbers and labels become float64 (null and NaN are then the same); strings but ids stay in Arrow. The
    partition is added as `dt`.
    """
    import pandas as pd

    parts: dict[str, list[Any]] = {name: [] for name in columns}
    days: list[Any] = []
    for file in files:
        table = pq.ParquetFile(file.path).read(columns=[name for name in columns if name != c.PARTITION])
        _check_text(table, file)
        for name in columns:
            parts[name].extend(_plain(table.column(name)).chunks)
        if file.day:
            days.append(pa.array([file.day]).take(pa.array(np.zeros(file.rows, dtype=np.int64))))
    data: dict[str, Any] = {}
    for name, chunks in parts.items():
        column = pa.chunked_array(chunks) if chunks else pa.chunked_array([], pa.null())
        # Ids as Python strings: the library's astype(str) drops a NUL at the end of an Arrow-backed string.
        data[name] = column.to_pandas() if name in c.IDS else _series(column)
    if days:
        data[c.PARTITION] = _series(pa.chunked_array(days))
    return pd.DataFrame(data, index=pd.RangeIndex(sum(file.rows for file in files)), copy=False)


def _check_text(table: Any, file: File) -> None:
    try:
        table.validate(full=True)
    except pa.ArrowInvalid as error:
        raise DataError(f"{file.path} holds text that is not UTF-8 ({error}): import the log again as UTF-8") from None


def _plain(column: Any) -> Any:
    """One type for each kind, whatever the files use, so that files can be joined."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp("us", "UTC"))
    if pa.types.is_boolean(kind):
        return column.cast(pa.int8()).cast(pa.float64())
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return column.cast(pa.float64(), safe=False)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column.cast(pa.large_string())
    return column


def _series(column: Any) -> Any:
    import pandas as pd

    if pa.types.is_large_string(column.type) or pa.types.is_string(column.type):
        return column.to_pandas(types_mapper=pd.ArrowDtype)
    return column.to_pandas()


def derive(frame: Any, info: DatasetInfo, healthy: set[str]) -> set[str]:
    """Adds the columns rules compare with (facts, not rules): the event's date and the ends of the windows.

    Returns the names added; those whose source columns are not healthy are left out.
    """
    import pandas as pd

    added = set()
    if c.EVENT_TIMESTAMP in healthy:
        dates = pa.array(frame[c.EVENT_TIMESTAMP]).cast(pa.date32()).cast(pa.large_string())
        frame[EVENT_DATE] = pd.Series(pd.array(dates, dtype=pd.ArrowDtype(pa.large_string())), index=frame.index)
        added.add(EVENT_DATE)
    ends = (
        (CLICK_DEADLINE, c.EVENT_TIMESTAMP, info.click_window_seconds),
        (CONVERSION_DEADLINE, c.CLICK_TIMESTAMP, info.conversion_window_seconds),
    )
    for name, source, seconds in ends:
        if info.has_label_times and source in healthy:
            frame[name] = frame[source] + pd.Timedelta(seconds=seconds)
            added.add(name)
    return added


def write_clean(files: list[File], good: NDArray[np.bool_], folder: Path) -> None:
    """Writes the good rows under the same names; a file with no bad row is copied as it is."""
    for file in files:
        keep = good[file.start : file.start + file.rows]
        if not keep.any():
            continue
        target = folder / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if keep.all():
            shutil.copyfile(file.path, target)
        else:
            pq.write_table(pq.ParquetFile(file.path).read().filter(pa.array(keep)), target)


def write_quarantine(
    files: list[File], reasons: dict[int, tuple[str, ...]], codes: NDArray[np.int64], folder: Path
) -> None:
    """Writes the bad rows as they came, with `reason` (the first), `reasons` (all) and `dt` if it is no column yet.

    A column of the log's own named like the first two becomes `log.reason`. One file for each file the rows came
    from, and an empty one when there are none, so that a reader always finds a table.

    Args:
        reasons: the reason codes behind each number in `codes`; 0 stands for none.
        codes: [rows] what is wrong with each row of the whole table.
    """
    written = 0
    for file in files:
        mine = codes[file.start : file.start + file.rows]
        bad = mine != 0
        if bad.any():
            name = "-".join(part for part in (file.day, Path(file.name).stem) if part)
            table = pq.ParquetFile(file.path).read().filter(pa.array(bad))
            pq.write_table(
                _with_reasons(table, [reasons[int(code)] for code in mine[bad]], file.day), folder / f"{name}.parquet"
            )
            written += 1
    if not written:
        empty = files[0].schema.empty_table() if files else pa.table({})
        pq.write_table(_with_reasons(empty, [], ""), folder / "none.parquet")


def _with_reasons(table: Any, reasons: list[tuple[str, ...]], day: str) -> Any:
    added = {
        REASON: pa.array([codes[0] for codes in reasons], pa.string()),
        REASONS: pa.array([list(codes) for codes in reasons], pa.list_(pa.string())),
        c.PARTITION: pa.array([day] * table.num_rows, pa.string()),
    }
    taken = {REASON: f"log.{REASON}", REASONS: f"log.{REASONS}"}
    table = table.rename_columns([taken.get(name, name) for name in table.column_names])
    for name, values in added.items():
        if name not in table.column_names:
            table = table.append_column(name, values)
    return table


def count_by(values: Any) -> dict[str, int]:
    """How often each value of a pandas column occurs, nulls left out."""
    counts = pc.value_counts(pa.chunked_array(pa.array(values.dropna()))).to_pylist() if len(values) else []
    return {str(entry["values"]): int(entry["counts"]) for entry in counts}
