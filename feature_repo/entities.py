"""Who features are about. Keys are strings everywhere: to Feast `"12"` and `12` are two entities."""

from __future__ import annotations

from feast import Entity, ValueType

USER = Entity(
    name="user", join_keys=["user_id"], value_type=ValueType.STRING, description="Someone who is shown items."
)
ITEM = Entity(name="item", join_keys=["item_id"], value_type=ValueType.STRING, description="Something that is shown.")
GROUP = Entity(
    name="group",
    join_keys=["group_id"],
    value_type=ValueType.STRING,
    description="What a user's features are kept by where one user has several sets of them.",
)
