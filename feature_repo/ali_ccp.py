"""The view of Ali-CCP: what the publisher's common features say of a user, one set a group of impressions.

Names are the publisher's field numbers. The bags' weights are logarithms of counts, so they are averaged and not
added: a sum would grow with the length of a user's history. docs/ali-ccp.md says what the fields are.
"""

from __future__ import annotations

from datetime import timedelta

from feast.types import Array, Float64, String

from feature_repo.declare import field, view
from feature_repo.entities import GROUP

VIEWS = (
    view(
        *("ali_ccp_user", GROUP, timedelta(days=365)),
        field("f121", String, encoding="id"),
        field("f122", String, encoding="id"),
        field("f124", String, encoding="id"),
        field("f125", String, encoding="id"),
        field("f126", String, encoding="id"),
        field("f127", String, encoding="id"),
        field("f128", String, encoding="id"),
        field("f129", String, encoding="id"),
        field("f109_14", Array(String), encoding="bag", combiner="mean", max_values=32),
        field("f109_14_weights", Array(Float64)),
        field("f110_14", Array(String), encoding="bag", combiner="mean", max_values=32),
        field("f110_14_weights", Array(Float64)),
        field("f127_14", Array(String), encoding="bag", combiner="mean", max_values=32),
        field("f127_14_weights", Array(Float64)),
        field("f150_14", Array(String), encoding="bag", combiner="mean", max_values=32),
        field("f150_14_weights", Array(Float64)),
    ),
)
