"""What became of the lines of the raw files: rows in Parquet, or refused with file, line number, reason and text."""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.contracts.dataset import REFUSED
from components.ingestion.sources.ali_ccp_format import Shape, shown
from components.ingestion.sources.ali_ccp_lines import Parsed, Refused, parse
from components.ingestion.sources.byte_chunks import Chunk, Progress, Source

WORKERS = min(4, os.cpu_count() or 1)
"""Threads that parse."""
FILE = 32 << 20
"""Bytes of text that become one Parquet file."""
_REFUSED = pa.schema([("file", pa.string()), ("line", pa.int64()), ("reason", pa.string()), ("text", pa.string())])
_REFUSED_ROWS = 50_000
_EXAMPLES = 3


class Tables:
    """Rows, written as part files of about `FILE` bytes of text each; counts them and the values of their bags."""

    def __init__(self, folder: Path, prefix: str) -> None:
        self.folder, self.prefix = folder, prefix
        self.rows = 0
        self.values: Counter[str] = Counter()
        self._held: list[pa.Table] = []
        self._size = self._parts = 0

    def add(self, table: pa.Table, size: int) -> None:
        """`size` is the bytes of text that the rows were made from."""
        self.rows += table.num_rows
        for column in table.schema:
            if column.type == pa.list_(pa.string()):
                count = pc.sum(pc.list_value_length(table.column(column.name))).as_py()
                self.values[column.name.removeprefix("f")] += count or 0
        self._held.append(table)
        self._size += size
        if self._size >= FILE:
            self.close()

    def close(self) -> None:
        """Writes what is held, unless it is nothing."""
        table = pa.concat_tables(self._held) if self._held else None
        self._held, self._size = [], 0
        if table is None or not table.num_rows:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{self.prefix}-{self._parts:05d}.parquet"
        times = [column.name for column in table.schema if pa.types.is_timestamp(column.type)]
        pq.write_table(table, path, compression="zstd", compression_level=1, write_statistics=times)
        self._parts += 1


class Account:
    """Lines and refused lines by file (named as given), refused lines by reason; refused/*.parquet below `folder`."""

    def __init__(self, folder: Path, progress: Progress | None) -> None:
        self.folder, self.progress = folder, progress
        self.lines: dict[str, int] = {}
        self.refused: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.truncated: list[str] = []
        self.notes: list[str] = []
        self.examples: list[str] = []
        """The first few refused lines, in words."""
        self._rows: list[tuple[str, int, str, str]] = []
        self._parts = 0

    def parsed(self, path: Path, shape: Shape, size: int) -> Iterator[tuple[int, Parsed]]:
        """Good lines of a file, about `size` bytes at a time, each with the number of the chunk's first line.

        Raises:
            DataError: if the file cannot be read.
        """
        source = Source(path, self.progress)
        for chunk, parsed in _in_order(source.chunks(size), shape):
            begin = len(self._rows)
            if parsed is None:
                self.refuse(path, chunk.line, [Refused(0, chunk.reason, chunk.data)])
            else:
                self.refuse(path, chunk.line, parsed.refused)
                if len(parsed.lines):
                    yield chunk.line, parsed
            # The caller may have refused some too: they are written in the order of the file.
            self._rows[begin:] = sorted(self._rows[begin:], key=lambda row: row[1])
            if len(self._rows) >= _REFUSED_ROWS:
                self.close()
        self.lines[str(path)] = source.lines
        if source.broken:
            self.truncated.append(str(path))
            self.notes.append(f"{path}: {source.broken}; {source.lines} lines came before and with it.")

    def refuse(self, path: Path, first: int, refused: Sequence[Refused]) -> None:
        """Lines of a chunk whose first line has the number `first`."""
        for each in refused:
            number = first + each.line
            self.refused[str(path)] += 1
            self.reasons[each.reason] += 1
            self._rows.append((str(path), number, each.reason, shown(each.data)))
            if len(self.examples) < _EXAMPLES:
                self.examples.append(f"{path} line {number}: {each.reason}")

    def close(self) -> None:
        """Writes the refused lines held, unless there are none."""
        if not self._rows:
            return
        columns = dict(zip(_REFUSED.names, zip(*self._rows, strict=True), strict=True))
        (self.folder / REFUSED).mkdir(exist_ok=True)
        pq.write_table(pa.table(columns, schema=_REFUSED), self.folder / REFUSED / f"part-{self._parts:05d}.parquet")
        self._rows, self._parts = [], self._parts + 1


def _in_order(chunks: Iterator[Chunk], shape: Shape) -> Iterator[tuple[Chunk, Parsed | None]]:
    """Chunks with what they hold (None: a line that cannot be parsed), a few of them parsed ahead.

    numpy and Arrow let go of the interpreter while they work, so threads do while the caller writes.
    """
    ahead: deque[tuple[Chunk, Future[Parsed] | None]] = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        for chunk in chunks:
            ahead.append((chunk, None if chunk.reason else pool.submit(parse, chunk.data, shape)))
            if len(ahead) > WORKERS:
                first, parsed = ahead.popleft()
                yield first, parsed.result() if parsed else None
        for first, parsed in ahead:
            yield first, parsed.result() if parsed else None
