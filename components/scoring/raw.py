"""Raw feature columns as numpy arrays: the one form in which the encoder meets data, in training and in serving.

Strings and booleans with nulls are object arrays with None, integers are int64 (float64 with NaN where there are
nulls), floats are float64 with NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.contracts.errors import DataError

Columns = Mapping[str, NDArray[Any]]


def columns_from_table(table: Any, names: Iterable[str]) -> dict[str, NDArray[Any]]:
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


def _to_numpy(column: Any) -> NDArray[Any]:
    if str(column.type).startswith("dictionary"):
        column = column.cast(column.type.value_type)
    array: NDArray[Any] = np.asarray(column.to_numpy(zero_copy_only=False))
    if array.dtype.kind in "iu":
        return array.astype(np.int64, copy=False)
    if array.dtype.kind == "f":
        return array.astype(np.float64, copy=False)
    return array
