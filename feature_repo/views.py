"""What the model sees: the one place. Adding a feature is one line here (docs/features.md).

A dataset brings the views it has; those that are declared here are used, the others are not. Views of a public data
set have a file of their own.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta
from typing import Any

from feast import FeatureView, Field
from feast.types import Float64, Int64, String

from feature_repo import ali_ccp
from feature_repo.declare import Declared, field, view
from feature_repo.entities import ITEM, USER
from feature_repo.sources import push_source, source

PUSHED = ("user_activity", "item_activity")
"""Views whose rows are also pushed, as events come in (docs/streaming.md)."""

VIEWS: tuple[Declared, ...] = (
    view(
        *("user_profile", USER, timedelta(days=365)),
        field("country", String, "Country the user lives in.", encoding="id"),
        field("segment", String, "Segment of customers that the shop puts the user in.", encoding="id"),
        field("age_band", Int64, "The user's age in bands, a number each.", encoding="id"),
        field("member_days", Int64, "Days since the user signed up.", encoding="bucket", minimum=0),
        description="Who the user is; a new row when something changes.",
    ),
    view(
        *("user_activity", USER, timedelta(days=7)),
        field("user_impressions_7d", Int64, "Items shown to the user, last 7 days.", encoding="bucket", minimum=0),
        field("user_clicks_7d", Int64, "The user's clicks, last 7 days.", encoding="bucket", minimum=0),
        field("user_conversions_7d", Int64, "The user's purchases, last 7 days.", encoding="bucket", minimum=0),
        field("user_ctr_7d", Float64, "Clicks by impressions, last 7 days.", encoding="bucket", minimum=0, maximum=1),
        description="What the user did in the seven days before, counted when it happened.",
    ),
    view(
        *("item_profile", ITEM, timedelta(days=365)),
        field("category", String, "Category of the item.", encoding="id"),
        field("brand", String, "Brand of the item.", encoding="id"),
        field("price", Float64, "Price of the item.", encoding="bucket", minimum=0),
        description="What the item is; a new row when something changes.",
    ),
    view(
        *("item_activity", ITEM, timedelta(days=7)),
        field("item_impressions_7d", Int64, "How often it was shown, last 7 days.", encoding="bucket", minimum=0),
        field("item_clicks_7d", Int64, "Clicks on it, last 7 days.", encoding="bucket", minimum=0),
        field("item_conversions_7d", Int64, "Purchases of it, last 7 days.", encoding="bucket", minimum=0),
        field("item_ctr_7d", Float64, "Clicks by impressions, last 7 days.", encoding="bucket", minimum=0, maximum=1),
        description="What became of the item in the seven days before, counted when it happened.",
    ),
    *ali_ccp.VIEWS,
)


def build(features_dir: str, present: Collection[str], spark: bool = False) -> list[FeatureView]:
    """The declared views that are `present`, over the files below `features_dir`, in order of declaration.

    `spark`: with sources that Feast's Spark store reads.
    """
    return [
        FeatureView(
            name=declared.name,
            entities=[declared.entity],
            ttl=declared.ttl,
            description=declared.description,
            schema=[Field(name=declared.entity.join_key, dtype=String), *declared.fields],
            source=_source(features_dir, declared.name, spark),
        )
        for declared in VIEWS
        if declared.name in present
    ]


def _source(features_dir: str, view: str, spark: bool) -> Any:
    table = source(features_dir, view, spark)
    return push_source(view, table) if view in PUSHED else table
