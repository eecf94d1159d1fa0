"""What a request says of itself and of its items, checked against the model's spec."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from components.contracts.columns import POSITION
from components.contracts.spec import CONTEXT_SOURCE, ITEM_CONTEXT_SOURCE, WEIGHTS_SUFFIX, Dtype, FeatureSpec, raw
from components.scoring.bags import LARGEST
from components.scoring.raw import Column
from serving.columns import column, repeated

OF_REQUEST, OF_ITEMS = "context", "item_context"
TYPES: dict[str, tuple[type, ...]] = {"string": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}
SAID = {"strings": "list of strings", "floats": "list of numbers of zero or more"}


class BadContext(ValueError):
    """The context does not fit the model's spec; the message is for the caller."""


def context_types(spec: FeatureSpec) -> dict[str, Dtype]:
    """Names and types that `context` may hold: one value for all items. Position is never asked for."""
    return raw(feature for feature in spec.from_source(CONTEXT_SOURCE) if feature.name != POSITION)


def item_context_types(spec: FeatureSpec) -> dict[str, Dtype]:
    """Names and types that `item_context` may hold: one value for each item."""
    return raw(spec.from_source(ITEM_CONTEXT_SOURCE))


def context_columns(
    spec: FeatureSpec, sent: Mapping[str, Any], sent_of_items: Mapping[str, list[Any]], items: int
) -> dict[str, Column]:
    """Raw columns, [items] each, of the model's context but position; missing where nothing was sent.

    Raises:
        BadContext: an unknown name, a value of another type than the spec's, values for another number of items, or
            weights that are not one a value.
    """
    of_request, of_items = context_types(spec), item_context_types(spec)
    _check_names(OF_REQUEST, sent, of_request, of_items)
    _check_names(OF_ITEMS, sent_of_items, of_items, of_request)
    columns: dict[str, Column] = {}
    values = {name: [_value(OF_REQUEST, name, dtype, sent.get(name))] for name, dtype in of_request.items()}
    _check_weights(OF_REQUEST, values)
    for name, dtype in of_request.items():
        columns[name] = repeated(column(values[name], dtype), items)
    values = {name: _values(name, dtype, sent_of_items.get(name), items) for name, dtype in of_items.items()}
    _check_weights(OF_ITEMS, values)
    return columns | {name: column(values[name], dtype) for name, dtype in of_items.items()}


def _check_names(where: str, sent: Mapping[str, Any], known: Mapping[str, Any], elsewhere: Mapping[str, Any]) -> None:
    unknown = sorted(set(sent) - set(known) - {POSITION})
    misplaced = [name for name in unknown if name in elsewhere]
    if misplaced:
        do = "one value for each item in item_context" if where == OF_REQUEST else "one value for all items in context"
        raise BadContext(f"{where} has {misplaced[0]!r}: send {do}")
    if unknown:
        raise BadContext(
            f"{where} has unknown {', '.join(map(repr, unknown))}: this model knows "
            f"{', '.join(sorted(known)) if known else f'no {where}'}"
        )


def _values(name: str, dtype: Dtype, sent: list[Any] | None, items: int) -> list[Any]:
    if sent is None:
        return [None] * items
    if len(sent) != items:
        raise BadContext(
            f"{OF_ITEMS} {name!r} has {len(sent)} values for {items} items: send one for each of item_ids, in their "
            "order, null where it is not known"
        )
    return [_value(OF_ITEMS, name, dtype, value) for value in sent]


def _value(where: str, name: str, dtype: Dtype, value: Any) -> Any:
    if value is None:
        return None
    if not (_is_list(value, dtype) if dtype in SAID else _is_single(value, dtype)):
        kind, shown = SAID.get(dtype, dtype), repr(value)
        shown = shown if len(shown) <= 100 else shown[:100] + "..."
        raise BadContext(f"{where} {name!r} = {shown} is no {kind}: send one, or null if it is not known")
    return float(value) if dtype == "float" else value


def _is_single(value: Any, dtype: Dtype) -> bool:
    # bool is an int to Python, but not to the log.
    fits = isinstance(value, TYPES[dtype]) and (dtype == "bool" or not isinstance(value, bool))
    # Neither NaN nor an integer beyond 64 bits is a value that a log can hold.
    if fits and isinstance(value, (int, float)):
        return math.isfinite(value) if isinstance(value, float) else abs(value) < 2**63
    return fits


def _is_list(value: Any, dtype: Dtype) -> bool:
    if not isinstance(value, list):
        return False
    if dtype == "strings":
        return all(isinstance(entry, str) for entry in value)
    return all(isinstance(n, (int, float)) and not isinstance(n, bool) and 0 <= n <= LARGEST for n in value)


def _check_weights(where: str, values: Mapping[str, list[Any]]) -> None:
    for name, lists in values.items():
        weights = values.get(name + WEIGHTS_SUFFIX)
        if weights is None:
            continue
        for bag, of_bag in zip(lists, weights, strict=True):
            if len(bag or ()) != len(of_bag or ()):
                raise BadContext(
                    f"{where} {name!r} has {len(bag or ())} values and {name + WEIGHTS_SUFFIX!r} {len(of_bag or ())} "
                    "weights: send one weight for each value"
                )
