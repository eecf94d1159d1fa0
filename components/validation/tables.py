"""Files of an artifact's tables: what they are, and writing the log's apart into good and bad rows.

What is written is what came: same names, columns and types. A file is rewritten a row group at a time, so that memory
does not depend on its size.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.contracts import columns as c
from components.contracts.errors import DataError

REASON, REASONS = "reason", "reasons"
CODECS = ("SNAPPY", "GZIP", "ZSTD", "BROTLI", "LZ4")
ABSENT = "absent"
"""Type of a column in a file that has no such column."""


@dataclass(frozen=True)
class File:
    path: Path
    name: str
    """Relative to the artifact, as in messages."""
    day: str
    """Value of the dt partition; empty for feature tables."""
    schema: Any
    types: dict[str, str]
    """Arrow type names by column (`type_name`)."""
    rows: int


@dataclass(frozen=True)
class Bad:
    """A file's bad rows: their numbers in the file (from 0, ascending), and for each which of `reasons` it has."""

    rows: NDArray[np.int64]
    which: NDArray[np.int64]
    reasons: tuple[tuple[str, ...], ...]


def files_below(folder: Path, pattern: str) -> list[File]:
    """Parquet files of a table, sorted by name.

    Raises:
        DataError: for a file that is no Parquet file.
    """
    found: list[File] = []
    for path in sorted(folder.glob(pattern)):
        try:
            metadata = pq.read_metadata(path)
        except (pa.ArrowInvalid, OSError) as error:
            raise DataError(f"{path} is no readable Parquet file ({error}): run the stage that made it again") from None
        parent = path.parent.name
        day = parent.removeprefix(f"{c.PARTITION}=") if parent.startswith(f"{c.PARTITION}=") else ""
        name = path.relative_to(folder).as_posix()
        schema = metadata.schema.to_arrow_schema()
        types = {field.name: type_name(field.type) for field in schema}
        found.append(File(path, name, day, schema, types, metadata.num_rows))
    return found


def type_name(kind: Any) -> str:
    """An Arrow type as the suites write it: dictionaries as their values, lists without their item's name."""
    if pa.types.is_dictionary(kind):
        return type_name(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"list<{type_name(kind.value_type)}>"
    return str(kind)


def batches(files: Sequence[File], rows: int) -> Iterator[list[File]]:
    """Files in their order, together as long as they have the same columns and types and no more than `rows` rows."""
    batch: list[File] = []
    for file in files:
        if batch and (file.types != batch[0].types or sum(f.rows for f in batch) + file.rows > rows):
            yield batch
            batch = []
        batch.append(file)
    if batch:
        yield batch


def write_apart(file: File, bad: Bad, kept: Path, quarantine: Path) -> Path | None:
    """Writes the file's good rows under its name below `kept`; returns the path, or None where none is good.

    The bad ones go to a file of their own in `quarantine`, as they came, with `reason` (the first), `reasons` (all) and
    `dt` if it is no column yet. A column of the log's own named like the first two becomes `log.reason`.
    """
    aside = "-".join(part for part in (file.day, Path(file.name).stem) if part)
    target = kept / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    source = pq.ParquetFile(file.path)
    with ExitStack() as open_files:
        good_writer = bad_writer = None
        for start, table, good in _row_groups(source, bad):
            if good.any():
                good_writer = good_writer or open_files.enter_context(
                    pq.ParquetWriter(target, file.schema, **_encoded_as(source))
                )
                good_writer.write_table(table.filter(pa.array(good)))
            if not good.all():
                first, last = np.searchsorted(bad.rows, [start, start + len(good)])
                reasons = [bad.reasons[which] for which in bad.which[first:last]]
                chosen = _with_reasons(table.filter(pa.array(~good)), reasons, file.day)
                bad_writer = bad_writer or open_files.enter_context(
                    pq.ParquetWriter(quarantine / f"{aside}.parquet", chosen.schema)
                )
                bad_writer.write_table(chosen)
    return target if good_writer else None


def write_no_bad(files: Sequence[File], folder: Path) -> None:
    """The quarantine of a spotless log: an empty table, so that a reader always finds one."""
    empty = files[0].schema.empty_table() if files else pa.table({})
    pq.write_table(_with_reasons(empty, [], ""), folder / "none.parquet")


def copy(file: File, folder: Path) -> None:
    target = folder / file.name
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(file.path, target)


def _encoded_as(source: Any) -> dict[str, Any]:
    """Writer's options for the compression and the dictionaries of the file's first row group: a dictionary tried in
    vain, as for an id that never repeats, costs a third of the writing."""
    group = source.metadata.row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    return {
        "use_dictionary": [part.path_in_schema for part in columns if any("DICTIONARY" in e for e in part.encodings)],
        "compression": {
            part.path_in_schema: part.compression if part.compression in CODECS else "NONE" for part in columns
        },
    }


def _row_groups(source: Any, bad: Bad) -> Iterator[tuple[int, Any, NDArray[np.bool_]]]:
    """First row's number, table and which rows are good, of each row group."""
    start = 0
    for number in range(source.num_row_groups):
        table = source.read_row_group(number)
        good = np.ones(table.num_rows, dtype=np.bool_)
        first, last = np.searchsorted(bad.rows, [start, start + table.num_rows])
        good[bad.rows[first:last] - start] = False
        yield start, table, good
        start += table.num_rows


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
