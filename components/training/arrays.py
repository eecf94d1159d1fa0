"""A split of the encoded artifact as files: what they have to be, and reading some of their rows.

Rows are read at their place in the file, never mapped: pages of a mapped file count as memory of the process, and a set
that is larger than memory would fill it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.contracts.errors import DataError
from components.scoring.encoder import Encoder
from components.training.sampler import Span

NAMES = ("ids", "dense", "weights", "click", "conversion")
LABELS = NAMES[3:]


@dataclass(frozen=True)
class Column:
    """One .npy file: where its rows begin, bytes; its type and shape."""

    path: Path
    begins: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def row(self) -> int:
        """Bytes a row on disk."""
        return self.dtype.itemsize * int(np.prod(self.shape[1:], dtype=np.int64))

    @staticmethod
    def of(path: Path) -> Column:
        """Raises DataError if the file is absent, no .npy in C order, or not as long as its header says."""
        if not path.is_file():
            raise DataError(f"{path} does not exist: run the encode stage again")
        try:
            with path.open("rb") as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, fortran, dtype = read(file)
                column = Column(path, file.tell(), dtype, shape)
        except ValueError as error:
            raise DataError(f"{path} is no .npy file ({error}): run the encode stage again") from None
        if dtype.hasobject or (fortran and len(shape) > 1):
            raise DataError(f"{path} does not hold rows of numbers one behind the other: run the encode stage again")
        has, wants = path.stat().st_size - column.begins, column.row * shape[0]
        if has != wants:
            raise DataError(
                f"{path} holds {has:,} bytes of rows and its header promises {wants:,}: it was cut off or is still "
                "being written, run the encode stage again"
            )
        return column

    def read(self, spans: Sequence[Span], out: NDArray[Any]) -> None:
        """Fills `out` [rows of all spans, ...] of the file's type.

        Raises:
            DataError: the file has become shorter.
        """
        if not self.row:
            return
        memory = out.reshape(-1).view(np.uint8).data
        at = 0
        with self.path.open("rb", buffering=0) as file:
            for span in spans:
                # Linux reads no more than 2 GiB in one call, and may read less than it is asked for.
                place, end = self.begins + span.start * self.row, at + (span.stop - span.start) * self.row
                while at < end:
                    count = os.preadv(file.fileno(), [memory[at:end]], place)
                    if not count:
                        raise DataError(f"{self.path} ends before row {span.stop:,}: run the encode stage again")
                    at, place = at + count, place + count


@dataclass(frozen=True)
class Arrays:
    """The five files of a split, checked against each other and the encoder, but for the ids themselves."""

    folder: Path
    columns: dict[str, Column]
    sizes: NDArray[np.int64]
    """Of each ids column, the rows of its vocabulary."""

    def __len__(self) -> int:
        return self.columns["click"].shape[0]

    @property
    def bytes_in_memory(self) -> int:
        """Of all rows, with ids in their type on disk and the rest as float32."""
        wide = sum(int(np.prod(self.columns[name].shape, dtype=np.int64)) for name in NAMES[1:])
        return self.columns["ids"].row * len(self) + 4 * wide

    @staticmethod
    def of(folder: Path, encoder: Encoder) -> Arrays:
        """Raises DataError: a file that cannot be read, an empty split, shapes that do not fit the encoder."""
        columns = {name: Column.of(folder / f"{name}.npy") for name in NAMES}
        rows = columns["click"].shape[0]
        if not rows:
            raise DataError(f"{folder} has no rows: give the log more days, or the split more time (--set split...)")
        sizes = np.repeat(encoder.sizes, encoder.widths).astype(np.int64)
        wanted = {"ids": (rows, len(sizes)), "weights": (rows, encoder.weights_columns), "conversion": (rows,)}
        wanted["dense"] = (rows, columns["dense"].shape[-1])
        for name, shape in wanted.items():
            if columns[name].shape != shape:
                raise _unfit(folder, name)
        return Arrays(folder, columns, sizes)

    def read(self, name: str, spans: Sequence[Span], out: NDArray[Any] | None = None) -> NDArray[Any]:
        """Rows of one column, ids as they are on disk, all else float32; into `out` if it is given.

        Raises:
            DataError: ids outside their vocabulary, a file that has become shorter.
        """
        column = self.columns[name]
        kind = column.dtype if name == "ids" else np.dtype(np.float32)
        rows = sum(span.stop - span.start for span in spans)
        target = np.empty((rows, *column.shape[1:]), kind) if out is None else out
        if column.dtype == kind:
            column.read(spans, target)
        else:
            raw = np.empty(target.shape, column.dtype)
            column.read(spans, raw)
            target[...] = raw
        if name == "ids" and target.size and ((target < 0).any() or (target >= self.sizes).any()):
            raise _unfit(self.folder, name)
        return target


def _unfit(folder: Path, name: str) -> DataError:
    return DataError(f"{folder}: {name}.npy does not fit the encoder: run the encode stage again")
