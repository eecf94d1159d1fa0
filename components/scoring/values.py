"""Raw values to what a vocabulary or a bucket is cut from: text, or float64.

One rule for fit and transform, offline and online: an integer is its canonical decimal however it arrives (3, 3.0
in a column with nulls, numpy's 3), a boolean is "true" or "false", and None, NaN and infinities are missing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.contracts.errors import DataError
from components.contracts.spec import Feature
from components.scoring.raw import Column, Ragged

MISSING, UNKNOWN, KNOWN = 0, 1, 2
"""Local index of a missing value, of one that is not in the vocabulary, and of the vocabulary's first."""


def single(feature: Feature, column: Column) -> NDArray[Any]:
    """The column of a feature that has one value a row.

    Raises:
        DataError: if it holds lists.
    """
    if isinstance(column, Ragged):
        raise DataError(f"feature {feature.name!r} ({feature.dtype}) holds a list a row: give one value a row")
    return column


def texts(feature: Feature, column: NDArray[Any]) -> tuple[list[str | None], NDArray[np.int64]]:
    """Distinct values as text (None: missing) and, for each row, which of them it has.

    Distinct raw values may share a text (1 and 1.0), so the list may hold a text twice.
    """
    if column.dtype.kind in "OU":
        rows = column.tolist()
        # True == 1 to a dict, so values of mixed types are told apart by their type; text alone needs no such care.
        is_text = _is_text(rows)
        keys = rows if is_text else list(zip(map(type, rows), rows, strict=True))
        try:
            codes = {key: code for code, key in enumerate(dict.fromkeys(keys))}
        except TypeError:
            raise DataError(f"feature {feature.name!r} holds a list or a mapping: give one value a row") from None
        inverse = np.fromiter(map(codes.__getitem__, keys), np.int64, len(keys))
        return list(codes) if is_text else [text(feature, value) for _, value in codes], inverse
    distinct, inverse = np.unique(column, return_inverse=True)
    return [text(feature, value) for value in distinct.tolist()], inverse.reshape(-1).astype(np.int64, copy=False)


def text(feature: Feature, value: Any) -> str | None:
    """One value's text, or None if it is missing.

    Raises:
        DataError: if the value is of a kind no feature has (bytes, a list).
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (int, np.integer)):
        return _number(feature, int(value))
    if isinstance(value, (float, np.floating)):
        number = float(value)
        if not np.isfinite(number):
            return None
        return _number(feature, int(number)) if number.is_integer() else repr(number)
    raise DataError(
        f"feature {feature.name!r} ({feature.dtype}) holds {value!r}, a {type(value).__name__}: "
        "give text, a number, true or false, or null"
    )


def _number(feature: Feature, value: int) -> str:
    # A boolean column with nulls can arrive as 1.0, 0.0 and NaN.
    if feature.dtype == "bool" and value in (0, 1):
        return "true" if value else "false"
    return str(value)


def numbers(feature: Feature, column: NDArray[Any]) -> NDArray[np.float64]:
    """The column as float64 [rows]; missing and infinite values are NaN.

    Raises:
        DataError: if a value is no number.
    """
    try:
        values = column.astype(np.float64)
    except (TypeError, ValueError):
        raise DataError(
            f"feature {feature.name!r} ({feature.dtype}) holds a value that is no number: "
            "give a number or null, or declare the feature a string with encoding 'id'"
        ) from None
    return np.where(np.isfinite(values), values, np.nan)


def indices(vocabulary: Iterable[str]) -> dict[str | None, int]:
    """Local index of a missing value (None) and of each text of a vocabulary."""
    return {None: MISSING, **{value: index for index, value in enumerate(vocabulary, start=KNOWN)}}


def local(feature: Feature, column: NDArray[Any], known: Mapping[str | None, int]) -> NDArray[np.int64]:
    """Local index of each value, by what `indices` made: 0 missing, 1 unknown, 2.. its place in the vocabulary."""
    if column.dtype.kind in "OU":
        values = column.tolist()
        if _is_text(values):
            return _look_up(known, values)
    distinct, inverse = texts(feature, column)
    return _look_up(known, distinct)[inverse]


def _look_up(known: Mapping[str | None, int], values: list[str | None]) -> NDArray[np.int64]:
    return np.fromiter(map(known.get, values, repeat(UNKNOWN)), np.int64, len(values))


def _is_text(values: list[Any]) -> bool:
    return set(map(type, values)) <= {str, type(None)}
