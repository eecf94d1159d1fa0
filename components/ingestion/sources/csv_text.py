"""CSV lines to columns of text, a few megabytes at a time; lines that are none are refused one by one.

A file has a header, commas, UTF-8, optionally double quotes, and may be gzipped. A record is a line: a quoted value
holds no line break, so that one stray quote costs one line and not the rest of the file. An empty value is null, quoted
or not, and an empty line is no record. All else stays text: what a value means is for `convert` to say.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq

from components.contracts.errors import DataError
from components.ingestion.sources.byte_chunks import Progress, Source
from components.ingestion.sources.refused import Refused

CHUNK = 4 << 20
_BOM = b"\xef\xbb\xbf"


def header(file: Path) -> list[str]:
    """Names of the columns.

    Raises:
        DataError: if the file is empty, no text, or names a column twice or not at all.
    """
    chunk = next(Source(file).chunks(CHUNK), None)
    if chunk and chunk.reason:
        raise DataError(f"{file} has no whole first line ({chunk.reason}): write it again, as UTF-8 text or gzipped")
    first = chunk.data.partition(b"\n")[0] if chunk else b""
    try:
        names = next(csv.reader([first.removeprefix(_BOM).decode("utf-8")], strict=True), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{file} cannot be read as CSV ({error}): write it as UTF-8 text, plain or gzipped") from None
    if not any(names):
        raise DataError(f"{file} begins with no header: its first line must name the columns, separated by commas")
    if len(names) == 1 and any(other in names[0] for other in ";\t|"):
        raise DataError(f"{file} is not separated by commas (its first line is {names[0]!r}): write it with commas")
    unusable = [name for name in names if not name or names.count(name) > 1]
    if unusable:
        raise DataError(f"{file} has the column name {unusable[0]!r} twice, or a column without one: name each once")
    return names


def stage(
    file: Path, shown: str, columns: Sequence[str], line: str, staged: Path, refused: Refused, progress: Progress | None
) -> tuple[int, int]:
    """Writes columns of the file's good lines, as text, to the Parquet file `staged`.

    Args:
        shown: the file's name among the refused lines.
        columns: names; one that the file lacks is null.
        line: name of a further column, the line's number in the file (int64; the header is line 1).
        progress: called with the bytes of the file (compressed, if it is) that were read since the last call.

    Returns:
        Lines in the file, and records among them, good or refused.

    Raises:
        DataError: if the file is no CSV at all.
    """
    names = header(file)
    source = Source(file, progress)
    schema = pa.schema([*((column, pa.string()) for column in columns), (line, pa.int64())])
    records = 0
    with pq.ParquetWriter(staged, schema, compression="snappy") as writer:
        for chunk in source.chunks(CHUNK):
            if chunk.reason:
                refused.add(shown, chunk.line, chunk.reason, chunk.data)
                records += 1
                continue
            data, first = chunk.data, chunk.line
            if first == 1:
                data, first = data.partition(b"\n")[2], 2
            good, numbers, seen = _good_lines(data, first, shown, refused)
            records += seen
            if numbers:
                writer.write_table(_parse(good, numbers, names, schema, shown, refused))
    if source.broken:
        refused.truncated.append(shown)
    return source.lines, records


def _good_lines(data: bytes, first: int, shown: str, refused: Refused) -> tuple[bytes, Sequence[int], int]:
    """The lines that can be split into values, their numbers, and how many records there were."""
    count = data.count(b"\n")
    if b'"' not in data and b"\r" not in data and not data.startswith(b"\n") and b"\n\n" not in data and _is_text(data):
        return data, range(first, first + count), count
    good: list[bytes] = []
    numbers: list[int] = []
    records = 0
    for number, line in enumerate(data.split(b"\n")[:count], first):
        if not line:
            continue
        records += 1
        reason = _judge(line)
        if reason:
            refused.add(shown, number, reason, line)
        else:
            good.append(line)
            numbers.append(number)
    return b"\n".join(good) + b"\n", numbers, records


def _is_text(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _judge(line: bytes) -> str | None:
    """Why a line cannot be split into values."""
    if not _is_text(line):
        return "NOT_UTF8"
    if b"\r" in line:
        return "COLUMNS"
    if b'"' in line:
        try:
            next(csv.reader([line.decode("utf-8")], strict=True))
        except csv.Error:
            return "QUOTES"
    return None


def _parse(
    data: bytes, numbers: Sequence[int], names: list[str], schema: pa.Schema, shown: str, refused: Refused
) -> pa.Table:
    bad: list[int] = []

    def skip(row: arrow_csv.InvalidRow) -> str:
        bad.append(row.number - 1)
        refused.add(shown, numbers[row.number - 1], "COLUMNS", row.text.encode("utf-8"))
        return "skip"

    columns = schema.names[:-1]
    table = arrow_csv.read_csv(
        io.BytesIO(_BOM + data),  # Arrow takes one mark off: without ours, one that begins the chunk's first value
        read_options=arrow_csv.ReadOptions(column_names=names, use_threads=False, block_size=len(_BOM + data) + 1),
        parse_options=arrow_csv.ParseOptions(ignore_empty_lines=False, invalid_row_handler=skip),
        convert_options=arrow_csv.ConvertOptions(
            column_types=dict.fromkeys(columns, pa.string()),
            include_columns=columns,
            include_missing_columns=True,
            null_values=[""],
            strings_can_be_null=True,
        ),
    )
    if table.num_rows + len(bad) != len(numbers):
        raise DataError(f"{shown}, lines {numbers[0]} to {numbers[-1]}, was not read line by line: is it CSV?")
    wrong = set(bad)
    kept = pa.array([number for row, number in enumerate(numbers) if row not in wrong], pa.int64())
    return table.append_column(schema.field(len(columns)), kept)
