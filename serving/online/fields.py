"""Which stored features of one entity a model reads, in the order in which they are read and kept."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from components.contracts.spec import WEIGHTS_SUFFIX, Dtype, FeatureSpec, View, raw

ORDER: tuple[tuple[Dtype, ...], ...] = (("float",), ("int",), ("string", "bool"), ("strings", "floats"))
"""Types that are kept together, in this order: numbers in arrays of numbers, the others as objects."""


@dataclass(frozen=True, eq=False)
class Fields:
    """C features of V views of one entity. `view_of` [C]: number of the view each is from.

    `counted` [C]: false for the weights of a bag, which are no value of their own.
    """

    entity: str
    views: tuple[View, ...]
    names: tuple[str, ...]
    dtypes: tuple[Dtype, ...]
    view_of: NDArray[np.int64]
    counted: NDArray[np.bool_]

    @cached_property
    def floats(self) -> slice:
        return self._slice(0)

    @cached_property
    def ints(self) -> slice:
        return self._slice(1)

    @cached_property
    def objects(self) -> slice:
        """Strings, booleans and bags."""
        return slice(self.ints.stop, len(self.names))

    @cached_property
    def ttl(self) -> NDArray[np.int64]:
        """Time to live by view in nanoseconds, [V, 1]."""
        return np.array([[round(view.ttl_seconds * 1e6) * 1000] for view in self.views], np.int64)

    def stored_as(self, number: int) -> tuple[str, str]:
        """View and feature of a column, as Feast names them."""
        return self.views[self.view_of[number]].name, self.names[number]

    def _slice(self, kind: int) -> slice:
        start = sum(dtype in kinds for kinds in ORDER[:kind] for dtype in self.dtypes)
        return slice(start, start + sum(dtype in ORDER[kind] for dtype in self.dtypes))


def fields(spec: FeatureSpec, entity: str, views: Collection[str]) -> Fields | None:
    """What the model reads of `entity` from the named views; None if that is nothing."""
    dtypes = raw(spec.stored)
    weights = {feature.name + WEIGHTS_SUFFIX for feature in spec.stored if feature.weighted}
    read = tuple(
        view
        for view in spec.views
        if view.entity == entity and view.name in views and any(name in dtypes for name in view.fields)
    )
    if not read:
        return None
    found = [(number, name) for number, view in enumerate(read) for name in view.fields if name in dtypes]
    found.sort(key=lambda each: next(kind for kind, kinds in enumerate(ORDER) if dtypes[each[1]] in kinds))
    names = tuple(name for _, name in found)
    return Fields(
        entity,
        read,
        names,
        tuple(dtypes[name] for name in names),
        np.array([number for number, _ in found], np.int64),
        np.array([name not in weights for name in names], np.bool_),
    )
