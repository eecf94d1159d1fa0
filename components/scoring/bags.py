"""Bags: several weighted values a row, made into a fixed number of columns that a model pools.

Shapes: B rows, N values over all rows, K columns of the bag. What a model computes is sum over k of
coefficients[:, k] * E[ids[:, k]]; everything that depends on the combiner is in the coefficients.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.contracts.errors import DataError
from components.contracts.spec import WEIGHTS_SUFFIX, Feature
from components.scoring.raw import Column, Columns, Ragged
from components.scoring.values import MISSING, local

LARGEST = float(np.finfo(np.float32).max)
"""A model's coefficients are float32, and a larger weight would be infinite there."""


@dataclass(frozen=True, eq=False)
class Bag:
    """A bag's values that are not null; a null among values takes no part, and neither does its weight.

    `ids` int64 [N]: local indices. `weights` float64 [N], zero or more. `offsets` int64 [B + 1]: where each row begins
    and ends.
    """

    ids: NDArray[np.int64]
    weights: NDArray[np.float64]
    offsets: NDArray[np.int64]

    @staticmethod
    def of(feature: Feature, columns: Columns, known: Mapping[str | None, int]) -> Bag:
        """From raw columns, [B] each, and the `indices` of a vocabulary.

        Raises:
            DataError: naming the feature, if a column is no list a row, the weights are not one a value, or a weight is
                null, NaN, negative or too large.
        """
        values = listed(feature, columns)
        bag = Bag(local(feature, values.values, known), _weights(feature, values, columns), values.offsets)
        return bag._only(bag.ids != MISSING)

    @property
    def longest(self) -> int:
        """Values of the row that has most."""
        return int(np.diff(self.offsets).max(initial=0))

    def padded(self, width: int, combiner: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """Ids and coefficients [B, K], K = `width`.

        A longer bag keeps its heaviest values, of equal ones the earlier, in their order. "mean" divides the weights by
        the sum of those kept. A row without values, and for "mean" one whose weights are all zero, is the one id
        MISSING with coefficient 1; what is left of a row is MISSING with coefficient 0.
        """
        bag = self._heaviest(width)
        lengths = np.diff(bag.offsets)
        # Filled a row behind the other, which is the order of the values.
        taken = np.arange(width) < lengths[:, None]
        ids, coefficients = np.full(taken.shape, MISSING, np.int64), np.zeros(taken.shape)
        ids[taken], coefficients[taken] = bag.ids, bag.weights
        missing = lengths == 0
        if combiner == "mean":
            sums = coefficients.sum(axis=1)
            missing = sums == 0
            coefficients /= np.where(missing, 1.0, sums)[:, None]
        ids[missing] = MISSING
        coefficients[missing, 0] = 1.0
        return ids, coefficients.astype(np.float32)

    def _heaviest(self, width: int) -> Bag:
        lengths = np.diff(self.offsets)
        keep = np.ones(len(self.ids), np.bool_)
        # Rows of one length are a matrix, and there are few lengths.
        for length in np.unique(lengths[lengths > width]):
            places = self.offsets[:-1][lengths == length][:, None] + np.arange(length)
            order = np.argsort(-self.weights[places], axis=1, kind="stable")
            keep[np.take_along_axis(places, order[:, width:], axis=1)] = False
        return self._only(keep)

    def _only(self, keep: NDArray[np.bool_]) -> Bag:
        if keep.all():
            return self
        kept_before = np.concatenate([[0], np.cumsum(keep)]).astype(np.int64)
        return Bag(self.ids[keep], self.weights[keep], kept_before[self.offsets])


def listed(feature: Feature, columns: Columns) -> Ragged:
    """The values of a bag, nulls included.

    Raises:
        DataError: if its column holds single values.
    """
    return _ragged(feature, feature.name, columns[feature.name])


def _ragged(feature: Feature, name: str, column: Column) -> Ragged:
    if isinstance(column, Ragged):
        return column
    raise DataError(f"column {name!r} of the bag {feature.name!r} holds single values: give a list a row")


def _weights(feature: Feature, values: Ragged, columns: Columns) -> NDArray[np.float64]:
    if not feature.weighted:
        return np.ones(len(values.values))
    name = feature.name + WEIGHTS_SUFFIX
    column = _ragged(feature, name, columns[name])
    if not np.array_equal(column.offsets, values.offsets):
        row = int(np.flatnonzero(np.diff(column.offsets) != np.diff(values.offsets))[0])
        raise DataError(
            f"bag {feature.name!r} has other numbers of values than {name!r} has weights, first in row {row} of those "
            "encoded: give each value one weight"
        )
    weights = _floats(feature, name, column.values)
    wrong = ~((weights >= 0) & (weights <= LARGEST))
    if wrong.any():
        raise DataError(
            f"{int(wrong.sum())} of {len(wrong)} weights of the bag {feature.name!r} ({name!r}) are null, NaN, "
            f"negative or more than {LARGEST:.2g}: validate the data, or give each value a weight of zero or more"
        )
    return weights


def _floats(feature: Feature, name: str, values: NDArray[Any]) -> NDArray[np.float64]:
    try:
        return values.astype(np.float64)
    except (TypeError, ValueError):
        raise DataError(f"weights of the bag {feature.name!r} ({name!r}) are no numbers: give numbers") from None
