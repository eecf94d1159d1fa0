"""What the model sees: the one place. Adding a feature is one line here (docs/features.md).

A dataset brings the views it has; those that are declared here are used, the others are not.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

from feast import Entity, FeatureView, Field
from feast.types import Float64, Int64, PrimitiveFeastType, String

from components.contracts.spec import Dtype
from feature_repo.context import CONTEXT
from feature_repo.entities import ITEM, USER
from feature_repo.sources import source


@dataclass(frozen=True)
class Declared:
    """A view without its files: they differ from dataset to dataset."""

    name: str
    entity: Entity
    ttl: timedelta
    fields: tuple[Field, ...]


def view(name: str, entity: Entity, ttl: timedelta, *fields: Field) -> Declared:
    return Declared(name, entity, ttl, fields)


def field(name: str, dtype: PrimitiveFeastType, **tags: str | int) -> Field:
    """A column of the view's table. `tags`: encoding (id, bucket, numeric), min_count, max_vocabulary, buckets,
    dimension."""
    return Field(name=name, dtype=dtype, tags={key: str(value) for key, value in tags.items()})


DTYPES: dict[str, Dtype] = {
    "STRING": "string", "INT32": "int", "INT64": "int", "FLOAT": "float", "DOUBLE": "float", "BOOL": "bool",
}  # fmt: skip


def dtype_of(field: Field) -> Dtype | None:
    """The contract's name for a Feast field's type; None for a type no feature has."""
    return DTYPES.get(field.dtype.to_value_type().name)


VIEWS = (
    view(
        *("user_profile", USER, timedelta(days=365)),
        field("country", String, encoding="id"),
        field("segment", String, encoding="id"),
        field("age_band", Int64, encoding="id"),
        field("member_days", Int64, encoding="bucket"),
    ),
    view(
        *("user_activity", USER, timedelta(days=7)),
        field("user_impressions_7d", Int64, encoding="bucket"),
        field("user_clicks_7d", Int64, encoding="bucket"),
        field("user_conversions_7d", Int64, encoding="bucket"),
        field("user_ctr_7d", Float64, encoding="bucket"),
    ),
    view(
        *("item_profile", ITEM, timedelta(days=365)),
        field("category", String, encoding="id"),
        field("brand", String, encoding="id"),
        field("price", Float64, encoding="bucket"),
    ),
    view(
        *("item_activity", ITEM, timedelta(days=7)),
        field("item_impressions_7d", Int64, encoding="bucket"),
        field("item_clicks_7d", Int64, encoding="bucket"),
        field("item_conversions_7d", Int64, encoding="bucket"),
        field("item_ctr_7d", Float64, encoding="bucket"),
    ),
)


def build(features_dir: str, present: Collection[str]) -> list[FeatureView]:
    """The declared views that are `present`, over the files below `features_dir`, in order of declaration."""
    return [
        FeatureView(
            name=declared.name,
            entities=[declared.entity],
            ttl=declared.ttl,
            schema=[Field(name=declared.entity.join_key, dtype=String), *declared.fields],
            source=source(features_dir, declared.name),
        )
        for declared in VIEWS
        if declared.name in present
    ]


def features_table() -> list[tuple[str, str, str, str]]:
    """(feature, view, type, encoding) of everything a model can see beside the ids, for docs/features.md."""
    context = [(f"`{name}`", "context", "as logged", _shown(settings)) for name, settings in CONTEXT.items()]
    stored = [
        (f"`{f.name}`", f"`{v.name}`", f.dtype.to_value_type().name.lower(), _shown(f.tags))
        for v in VIEWS
        for f in v.fields
    ]
    return [*context, *stored]


def _shown(settings: dict[str, object]) -> str:
    extras = [f"{key} {value}" for key, value in settings.items() if key != "encoding"]
    return ", ".join([str(settings.get("encoding", "by type")), *extras])
