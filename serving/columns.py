"""Values of a request or of the feature store as the raw columns that retrieval would give (scoring/raw.py)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.contracts.spec import Dtype
from components.scoring.raw import Column, Ragged


def column(values: Sequence[Any], dtype: Dtype) -> Column:
    """One value a row, None where it is missing; a missing list is an empty one.

    Integers with a missing value are float64 with NaN, strings and booleans object arrays with None.
    """
    if dtype in ("strings", "floats"):
        return _ragged(values, dtype)
    if dtype in ("string", "bool"):
        return objects(values)
    if dtype == "int" and None not in values:
        return np.array(values, np.int64)
    return np.array([np.nan if value is None else value for value in values], np.float64)


def repeated(one: Column, count: int) -> Column:
    """A column of one row, made one of `count` equal rows."""
    return one[np.zeros(count, np.int64)]


def objects(values: Iterable[Any]) -> NDArray[Any]:
    return np.array(list(values), dtype=object)


def _ragged(lists: Sequence[Sequence[Any] | None], dtype: Dtype) -> Ragged:
    lengths = [len(values) if values is not None else 0 for values in lists]
    flat = list(chain.from_iterable(values for values in lists if values is not None))
    values = objects(flat) if dtype == "strings" else np.array(flat, np.float64)
    return Ragged(values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
