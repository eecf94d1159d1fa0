"""The words that views.py and context.py declare with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from feast import Entity, Field
from feast.types import Array, PrimitiveFeastType

from components.contracts.spec import Dtype


@dataclass(frozen=True)
class Declared:
    """A view without its files: they differ from dataset to dataset."""

    name: str
    entity: Entity
    ttl: timedelta
    fields: tuple[Field, ...]
    description: str = ""


@dataclass(frozen=True)
class Logged:
    """A column of context: what it is, and its settings where they are not those of its type."""

    description: str
    settings: dict[str, Any]


def view(name: str, entity: Entity, ttl: timedelta, *fields: Field, description: str = "") -> Declared:
    return Declared(name, entity, ttl, fields, description)


def field(name: str, dtype: PrimitiveFeastType | Array, description: str = "", **tags: str | float) -> Field:
    """A column of the view's table. `description`: a sentence for people, wherever the feature is shown.

    `tags`: encoding (id, bucket, numeric, bag), dimension; of an id or a bag min_count and max_vocabulary, of a bag
    combiner (mean, sum) and max_values too, of a bucket buckets; minimum and maximum of numbers. An `Array(Float64)`
    without tags, named `<bag>_weights`, holds the weights of that bag's values.
    """
    return Field(name=name, dtype=dtype, description=description, tags={key: str(value) for key, value in tags.items()})


def logged(description: str, **settings: Any) -> Logged:
    """A column of context. `settings`: as the tags of `field`, and `tower`."""
    return Logged(description, settings)


DTYPES: dict[str, Dtype] = {
    "STRING": "string", "INT32": "int", "INT64": "int", "FLOAT": "float", "DOUBLE": "float", "BOOL": "bool",
    "STRING_LIST": "strings", "DOUBLE_LIST": "floats",
}  # fmt: skip


def dtype_of(field: Field) -> Dtype | None:
    """The contract's name for a Feast field's type; None for a type no feature has."""
    return DTYPES.get(field.dtype.to_value_type().name)


def shown(settings: dict[str, Any]) -> str:
    """`bucket, minimum 0` for the docs."""
    extras = [f"{key} {value}" for key, value in settings.items() if key != "encoding"]
    return ", ".join([str(settings.get("encoding", "by type")), *extras])
