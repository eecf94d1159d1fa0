"""Raw feature columns as numpy arrays: the one form in which the encoder meets data, in training and in serving.

Strings and booleans with nulls are object arrays with None, integers are int64 (float64 with NaN where there are
nulls), floats are float64 with NaN. A list a row is `Ragged`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.contracts.errors import DataError


@dataclass(frozen=True, eq=False)
class Ragged:
    """A list of values for each of B rows; a missing list is an empty one.

    `values` [total] are all of them one row behind the other, `offsets` int64 [B + 1] where each row begins and ends.
    """

    values: NDArray[Any]
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, rows: NDArray[np.int64] | slice) -> Ragged:
        """Some rows, in the order given; an index may occur again."""
        lengths = np.diff(self.offsets)[rows]
        starts = self.offsets[:-1][rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return Ragged(self.values[places], offsets)


Column = NDArray[Any] | Ragged
Columns = Mapping[str, Column]


def columns_from_table(table: Any, names: Iterable[str]) -> dict[str, Column]:
    """Columns of a pyarrow Table (or RecordBatch), by name; [rows] each, in the order of `names`.

    pyarrow itself is not imported: serving does without it.

    Raises:
        DataError: naming every column that the table does not have.
    """
    wanted = list(names)
    absent = [name for name in wanted if name not in table.column_names]
    if absent:
        raise DataError(f"the table has no column {', '.join(absent)} (it has {', '.join(table.column_names)})")
    return {name: _to_numpy(table.column(name)) for name in wanted}


def _to_numpy(column: Any) -> Column:
    if str(column.type).startswith(("list", "large_list")):
        return _to_ragged(column)
    if str(column.type).startswith("dictionary"):
        column = column.cast(column.type.value_type)
    array: NDArray[Any] = np.asarray(column.to_numpy(zero_copy_only=False))
    if array.dtype.kind in "iu":
        return array.astype(np.int64, copy=False)
    if array.dtype.kind == "f":
        return array.astype(np.float64, copy=False)
    return array


def _to_ragged(column: Any) -> Ragged:
    if hasattr(column, "combine_chunks"):
        column = column.combine_chunks()
    lengths = np.asarray(column.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)).astype(np.int64)
    values = np.asarray(column.flatten().to_numpy(zero_copy_only=False))
    return Ragged(values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
