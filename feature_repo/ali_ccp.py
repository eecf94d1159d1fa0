"""The view of Ali-CCP: what the publisher's common features say of a user, one set a group of impressions.

Names are the publisher's field numbers. The bags' weights are logarithms of counts, so they are averaged and not
added: a sum would grow with the length of a user's history. docs/ali-ccp.md says what the fields are.
"""

from __future__ import annotations

from datetime import timedelta

from feast.types import Array, Float64, String

from feature_repo.declare import Logged, field, logged, view
from feature_repo.entities import GROUP

VIEWS = (
    view(
        *("ali_ccp_user", GROUP, timedelta(days=365)),
        field("f121", String, "Category of the user's profile.", encoding="id"),
        field("f122", String, "Group of categories of the user's profile.", encoding="id"),
        field("f124", String, "The user's gender.", encoding="id"),
        field("f125", String, "The user's age.", encoding="id"),
        field("f126", String, "The user's level of consumption, type I; often missing.", encoding="id"),
        field("f127", String, "The user's level of consumption, type II.", encoding="id"),
        field("f128", String, "The user's occupation: working or not.", encoding="id"),
        field("f129", String, "The user's geography.", encoding="id"),
        field("f109_14", Array(String), "The user's past categories.", encoding="bag", combiner="mean", max_values=32),
        field("f109_14_weights", Array(Float64), "Of each category, the logarithm of how often it occurs."),
        field("f110_14", Array(String), "The user's past shops.", encoding="bag", combiner="mean", max_values=32),
        field("f110_14_weights", Array(Float64), "Of each shop, the logarithm of how often it occurs."),
        field("f127_14", Array(String), "The user's past brands.", encoding="bag", combiner="mean", max_values=32),
        field("f127_14_weights", Array(Float64), "Of each brand, the logarithm of how often it occurs."),
        field("f150_14", Array(String), "The user's past intentions.", encoding="bag", combiner="mean", max_values=32),
        field("f150_14_weights", Array(Float64), "Of each intention, the logarithm of how often it occurs."),
        description="Ali-CCP: the common features of a group of impressions, which say who the user was at that time.",
    ),
)

ITEM_CONTEXT: dict[str, Logged] = {
    # Its publisher calls it "a categorical expression of position", so it may explain clicks and nothing else.
    "f301": logged('Ali-CCP: "a categorical expression of position".', encoding="id", tower="ctr"),
    "f206": logged("Ali-CCP: the item's category."),
    "f207": logged("Ali-CCP: the item's shop."),
    "f216": logged("Ali-CCP: the item's brand."),
    "f210": logged("Ali-CCP: the item's intentions, each with its weight."),
    "f508": logged("Ali-CCP: cross of the user's categories (f109_14) with the item's category (f206)."),
    "f509": logged("Ali-CCP: cross of the user's shops (f110_14) with the item's shop (f207)."),
    "f702": logged("Ali-CCP: cross of the user's brands (f127_14) with the item's brand (f216)."),
    "f853": logged("Ali-CCP: cross of the user's intentions (f150_14) with the item's (f210); often missing."),
}
"""Logged with the impression, one value an item."""
