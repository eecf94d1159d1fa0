"""Lines of a user's own log that could not be read: DIR/refused/*.parquet, and counts by reason."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.contracts import duck

REASONS: dict[str, str] = {
    "NOT_UTF8": "A CSV line holds bytes that are not UTF-8.",
    "TOO_LONG": "A CSV line is longer than 8 MiB: the file is not what it claims to be.",
    "TRUNCATED": "A gzipped CSV file ends or breaks in the middle of this line; what came before it is imported.",
    "QUOTES": "A CSV line has a quote that is not closed on it, or text around a quoted value.",
    "COLUMNS": "A CSV line has another number of columns than the header, or a stray carriage return.",
    "ID": "An id is a floating-point number among ids that are none (`12.0`).",
    "LABEL": "A label of a CSV file is none of 0, 1, true, false (other whole numbers go on to validation in Parquet).",
    "TIME": "A time is not ISO-8601, or not within the years 1 to 9999.",
    "VALUE": "A context value is no number, or no truth value, though its column holds such; or does not fit 64 bits.",
}
"""Reason codes, for the documentation. A row is refused once, under the first that applies."""

SHOWN = 200
"""Characters of a refused line or value that are kept."""
SCHEMA = pa.schema([("file", pa.string()), ("line", pa.int64()), ("reason", pa.string()), ("text", pa.string())])
_ROWS = 50_000


class Refused:
    """Collects in bounded memory; `close` writes the rest. The folder is made by the first line refused."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts: Counter[str] = Counter()
        self.truncated: list[str] = []
        self.example = ""
        self._rows: list[tuple[str, int, str, str]] = []
        self._parts = 0

    def add(self, file: str, line: int, reason: str, text: bytes) -> None:
        self.counts[reason] += 1
        shown = text.decode("utf-8", errors="replace")[:SHOWN]
        self._remember(file, line, reason, shown)
        self._rows.append((file, line, reason, shown))
        if len(self._rows) >= _ROWS:
            self.close()

    def add_rows(self, db: Any, rows: str) -> None:
        """Of an SQL query for file, line, reason and text, in the order it gives."""
        self.close()
        path = self._next()
        db.execute(f"COPY ({rows}) TO {duck.text(path)} (FORMAT parquet, COMPRESSION snappy)")
        for reason, count in db.execute(
            f"SELECT reason, count(*) FROM {duck.parquet([path])} GROUP BY reason ORDER BY reason"
        ).fetchall():
            self.counts[reason] += count
        self._remember(*db.execute(f"SELECT file, line, reason, text FROM {duck.parquet([path])} LIMIT 1").fetchone())

    def close(self) -> None:
        if self._rows:
            columns = [
                pa.array(column, kind) for column, kind in zip(zip(*self._rows, strict=True), SCHEMA.types, strict=True)
            ]
            pq.write_table(pa.table(columns, schema=SCHEMA), self._next())
            self._rows = []

    def _next(self) -> Path:
        self.folder.mkdir(exist_ok=True)
        self._parts += 1
        return self.folder / f"part-{self._parts - 1:04}.parquet"

    def _remember(self, file: str, line: int, reason: str, text: str) -> None:
        self.example = self.example or f"{file} line {line}: {reason} {text!r}"
