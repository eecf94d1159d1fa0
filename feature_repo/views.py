"""What the model sees: the one place. Adding a feature is one line here (docs/features.md).

A dataset brings the views it has; those that are declared here are used, the others are not. Views of a public data
set have a file of their own.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from feast import FeatureView, Field
from feast.types import Float64, Int64, String

from components.contracts.spec import WEIGHTS_SUFFIX
from feature_repo import ali_ccp
from feature_repo.context import CONTEXT
from feature_repo.declare import Declared, dtype_of, field, shown, view
from feature_repo.entities import ITEM, USER
from feature_repo.sources import source

VIEWS: tuple[Declared, ...] = (
    view(
        *("user_profile", USER, timedelta(days=365)),
        field("country", String, encoding="id"),
        field("segment", String, encoding="id"),
        field("age_band", Int64, encoding="id"),
        field("member_days", Int64, encoding="bucket", minimum=0),
    ),
    view(
        *("user_activity", USER, timedelta(days=7)),
        field("user_impressions_7d", Int64, encoding="bucket", minimum=0),
        field("user_clicks_7d", Int64, encoding="bucket", minimum=0),
        field("user_conversions_7d", Int64, encoding="bucket", minimum=0),
        field("user_ctr_7d", Float64, encoding="bucket", minimum=0, maximum=1),
    ),
    view(
        *("item_profile", ITEM, timedelta(days=365)),
        field("category", String, encoding="id"),
        field("brand", String, encoding="id"),
        field("price", Float64, encoding="bucket", minimum=0),
    ),
    view(
        *("item_activity", ITEM, timedelta(days=7)),
        field("item_impressions_7d", Int64, encoding="bucket", minimum=0),
        field("item_clicks_7d", Int64, encoding="bucket", minimum=0),
        field("item_conversions_7d", Int64, encoding="bucket", minimum=0),
        field("item_ctr_7d", Float64, encoding="bucket", minimum=0, maximum=1),
    ),
    *ali_ccp.VIEWS,
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
    context = [(f"`{name}`", "context", "as logged", shown(settings)) for name, settings in CONTEXT.items()]
    stored = [row for declared in VIEWS for row in _rows(declared)]
    return [*context, *stored]


def _rows(declared: Declared) -> list[tuple[str, str, str, str]]:
    """A bag's weights are no feature of their own: its type says that it has some."""
    names = {column.name for column in declared.fields}
    rows = []
    for column in declared.fields:
        if dtype_of(column) == "floats":
            continue
        kind = column.dtype.to_value_type().name.lower()
        if dtype_of(column) == "strings":
            kind = "list of strings" + (", weighted" if column.name + WEIGHTS_SUFFIX in names else "")
        rows.append((f"`{column.name}`", f"`{declared.name}`", kind, shown(column.tags)))
    return rows
