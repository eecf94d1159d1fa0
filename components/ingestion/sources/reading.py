"""A user's own files, Parquet or CSV, as one relation that knows which file and line each row came from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.contracts import duck
from components.contracts.errors import DataError
from components.ingestion.readable import rows_of
from components.ingestion.sources import csv_text
from components.ingestion.sources.byte_chunks import Progress
from components.ingestion.sources.refused import Refused

TEXT = "CSV text"
"""Type of every CSV column."""
FILE, LINE, KEY = "esmm_file", "esmm_line", "esmm_key"
"""Columns of a relation beside the user's: name of the file, line in it (row in a Parquet file, both from 1), and a
number unique in the relation that grows with file and line."""
_PATH, _SHOWN, _BASE = "esmm_path", "esmm_shown", "esmm_base"
"""Not names that a user's column has: `shown` and `base` are."""


@dataclass(frozen=True)
class Source:
    """Files of one kind. `types`: column -> DuckDB type, `TEXT` for a CSV file's."""

    what: str
    path: Path
    files: tuple[Path, ...]
    types: dict[str, str]

    @property
    def is_csv(self) -> bool:
        return TEXT in self.types.values()

    def shown(self, file: Path) -> str:
        """A file's name without the folders above what was given: equal files give equal bytes wherever they lie."""
        return file.name if file == self.path else file.relative_to(self.path.parent).as_posix()


def open_source(db: Any, path: Path, what: str) -> Source:
    """A Parquet or CSV file, or all those in a folder at any depth, in the order of their names.

    Args:
        what: the source in messages: "the log", "clicks".

    Raises:
        DataError: if there is no such file, a folder holds both kinds or none, or a file is not what its name says.
    """
    files = _files(path, what)
    tables = [file for file in files if file.suffix == ".parquet" or _begins_as_parquet(file)]
    if tables and len(tables) < len(files):
        raise DataError(f"{what} {path} holds both Parquet and CSV files: give one kind, each in a folder of its own")
    if tables:
        rows_of(files)
        _check_types(files)
        return Source(what, path, tuple(files), duck.types(db, duck.parquet(files)))
    names = [name for file in files for name in csv_text.header(file)]
    return Source(what, path, tuple(files), dict.fromkeys(names, TEXT))


def read(
    source: Source, columns: Sequence[str], staging: Path, refused: Refused, progress: Progress | None
) -> tuple[str, int]:
    """SQL of a relation with `columns`, FILE, LINE and KEY, and how many records the files hold, refused ones included.

    CSV files are read here, once, into Parquet files of text below `staging`; Parquet files are read where they lie.
    """
    total = base = 0
    places = []
    if source.is_csv:
        staging.mkdir(parents=True, exist_ok=True)
        for number, file in enumerate(source.files):
            staged = staging / f"{number}.parquet"
            lines, records = csv_text.stage(file, source.shown(file), columns, LINE, staged, refused, progress)
            places.append((staged, source.shown(file), base))
            base, total = base + max(0, lines - 1), total + records
        line, key = LINE, f"{_BASE} + {LINE} - 2"
    else:
        for file, rows in rows_of(source.files).items():
            places.append((file, source.shown(file), base))
            base = total = base + rows
        line, key = "file_row_number + 1", f"{_BASE} + file_row_number"
    listed = ", ".join(duck.text(path) for path, _, _ in places)
    values = ", ".join(f"({duck.text(path)}, {duck.text(shown)}, {at}::BIGINT)" for path, shown, at in places)
    selected = ", ".join(duck.name(column) for column in columns)
    relation = (
        f"(SELECT {selected}, {_SHOWN} AS {FILE}, {line} AS {LINE}, {key} AS {KEY} FROM read_parquet([{listed}], "
        f"union_by_name = true, hive_partitioning = false, filename = '{_PATH}', file_row_number = true) "
        f"JOIN (VALUES {values}) AS places ({_PATH}, {_SHOWN}, {_BASE}) USING ({_PATH}))"
    )
    return relation, total


def _files(path: Path, what: str) -> list[Path]:
    if path.is_file():
        if path.suffix in (".parquet", ".csv", ".gz") or _begins_as_parquet(path):
            return [path]
        raise DataError(f"{what} {path} is neither *.parquet nor *.csv nor *.csv.gz: name it as what it is")
    if not path.is_dir():
        raise DataError(f"{what} {path} does not exist: give a Parquet or CSV file, or a folder with some")
    files = sorted(
        found
        for ending in ("*.parquet", "*.csv", "*.csv.gz")
        for found in path.rglob(ending)
        if found.is_file() and found.name[0] not in "._"
    )
    if not files:
        raise DataError(
            f"{what} {path} holds no *.parquet, *.csv or *.csv.gz file: give a Parquet or CSV file, or a folder with "
            "some"
        )
    return files


def _check_types(files: Sequence[Path]) -> None:
    """Raises DataError for a column that is of one kind in a file and of another in the next.

    DuckDB would make text of both, and a column of numbers would become one of words without anybody noticing.
    """
    first: dict[str, tuple[str, Path]] = {}
    for file in files:
        for field in pq.read_schema(file):
            kind = _kind(field.type)
            before, where = first.setdefault(field.name, (kind, file)) if kind else ("", file)
            if before != kind:
                raise DataError(
                    f"{file}: column {field.name!r} is {field.type}, which is {kind}, and in {where} it is {before}: "
                    "write all files with one type a column"
                )


def _kind(kind: pa.DataType) -> str:
    """What a column holds, whatever its width; "" for one that holds only nulls."""
    if pa.types.is_dictionary(kind):
        return _kind(kind.value_type)
    if pa.types.is_null(kind):
        return ""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    if pa.types.is_temporal(kind):
        return "a time"
    if pa.types.is_nested(kind):
        return "nested"
    return "a number"


def _begins_as_parquet(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(4) == b"PAR1"
