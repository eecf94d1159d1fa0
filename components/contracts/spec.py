"""The feature spec: what a model sees, by name and type. Made by `plan` from the tags in `feature_repo`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from components.contracts import columns as c
from components.contracts.config import Config
from components.contracts.errors import FeatureSpecError

Dtype = Literal["string", "int", "float", "bool", "strings", "floats"]
"""`strings` is a list of values a row, `floats` a list of their weights."""
Encoding = Literal["id", "bucket", "numeric", "bag"]
Tower = Literal["shared", "ctr"]

ID_SOURCE = "id"
CONTEXT_SOURCE = "context"
ITEM_CONTEXT_SOURCE = "item_context"
LOGGED = (CONTEXT_SOURCE, ITEM_CONTEXT_SOURCE)
WEIGHTS_SUFFIX = "_weights"
"""A list of floats named `<bag>_weights`, beside the bag, holds its weights."""


class Feature(Config):
    """One input of the model.

    `source` is "id" (user_id, item_id), "context" (logged with the impression and sent with the request, one value for
    all its items), "item_context" (the same, one value an item) or the name of a feature view. `encoding`: `id` looks
    values up in a vocabulary, `bucket` cuts numbers at the quantiles of the training split, both then embed; `numeric`
    feeds the standardised number itself; `bag` embeds each of several values and pools them: their weighted mean or sum
    (`combiner`), at most `max_values` of them, the heaviest. `weighted` says that a column `<name>_weights` holds their
    weights; without, each weighs 1. `minimum` and `maximum` are what validation holds the values against.
    `tower` "ctr" keeps a feature out of the shared bottom and out of the CVR tower: position, always.
    """

    name: str
    source: str
    dtype: Dtype
    encoding: Encoding
    tower: Tower = "shared"
    dimension: int = 16
    min_count: int = 5
    max_vocabulary: int = 1_000_000
    buckets: int = 16
    weighted: bool = False
    combiner: Literal["mean", "sum"] = "mean"
    max_values: int = 16
    minimum: float | None = None
    maximum: float | None = None

    @property
    def raw(self) -> dict[str, Dtype]:
        """Columns of raw values the feature is made from, with their types."""
        return {self.name: self.dtype, **({self.name + WEIGHTS_SUFFIX: "floats"} if self.weighted else {})}


class View(Config):
    """A Feast feature view the model reads: its entity column, its time to live and its fields (weights included)."""

    name: str
    entity: Literal["user_id", "item_id", "group_id"]
    ttl_seconds: float
    fields: tuple[str, ...]


class FeatureSpec(Config):
    """All features of a model, in the order of the encoder's columns.

    Raises:
        FeatureSpecError: on construction, for names that are labels, duplicates, encodings a type cannot
            have, or position outside the CTR tower.
    """

    features: tuple[Feature, ...]
    views: tuple[View, ...] = ()
    reference_position: int = 1

    def model_post_init(self, _: object) -> None:
        seen: set[str] = set()
        views = {view.name for view in self.views}
        if not self.features:
            raise FeatureSpecError("the feature spec is empty: a model needs an id, a context column or a view")
        for feature in self.features:
            for name in feature.raw:
                check_name(name)
                if name in seen:
                    raise FeatureSpecError(f"feature {name!r} is declared twice: rename one of the two")
                seen.add(name)
            if feature.encoding in ("bucket", "numeric") and feature.dtype not in ("int", "float"):
                raise FeatureSpecError(
                    f"feature {feature.name!r} is a {feature.dtype} and cannot be encoded as {feature.encoding}: "
                    "use encoding 'id'"
                )
            if (feature.encoding == "bag") != (feature.dtype == "strings") or (
                feature.weighted and feature.dtype != "strings"
            ):
                raise FeatureSpecError(
                    f"feature {feature.name!r} is {feature.dtype} and encoded as {feature.encoding}: a list of "
                    "strings, and only that, is a bag, with or without weights"
                )
            if feature.encoding == "id" and feature.dtype == "float":
                raise FeatureSpecError(f"feature {feature.name!r} is a float and no id: use encoding 'bucket'")
            if feature.name == c.POSITION and feature.tower != "ctr":
                raise FeatureSpecError(
                    "position may feed only the CTR tower (tower='ctr'): it is not known when serving"
                )
            if feature.source not in (ID_SOURCE, *LOGGED) and feature.source not in views:
                raise FeatureSpecError(
                    f"feature {feature.name!r} comes from view {feature.source!r}, which is not declared"
                )

    def from_source(self, source: str) -> tuple[Feature, ...]:
        return tuple(feature for feature in self.features if feature.source == source)

    @property
    def context(self) -> tuple[Feature, ...]:
        """Features logged with the impression, whether of the request or of one of its items."""
        return tuple(feature for feature in self.features if feature.source in LOGGED)

    @property
    def item_context(self) -> tuple[Feature, ...]:
        return self.from_source(ITEM_CONTEXT_SOURCE)

    @property
    def stored(self) -> tuple[Feature, ...]:
        """Features that come from feature views."""
        return tuple(f for f in self.features if f.source not in (ID_SOURCE, *LOGGED))

    @property
    def raw(self) -> dict[str, Dtype]:
        """Every column of raw values, in the features' order."""
        return raw(self.features)

    @property
    def keys(self) -> tuple[str, ...]:
        """Id columns a row needs beside the impression's own: group_id where a view is keyed by it."""
        needed = {view.entity for view in self.views}
        return (c.USER_ID, c.ITEM_ID, *((c.GROUP_ID,) if c.GROUP_ID in needed else ()))

    def named(self, name: str) -> Feature | None:
        return next((feature for feature in self.features if feature.name == name), None)


def raw(features: Iterable[Feature]) -> dict[str, Dtype]:
    """Columns of raw values of some features, in their order, with their types."""
    return {name: dtype for feature in features for name, dtype in feature.raw.items()}


LABEL_LIKE = (c.CLICK, c.CONVERSION, "label", "target")


def check_name(name: str) -> None:
    """Refuses a feature that is, or is named like, a label or a bookkeeping column.

    `click`, `is_click`, `label`, `conversion_7` are refused; `user_clicks_7d` (a count) is fine.

    Raises:
        FeatureSpecError: saying which name clashes.
    """
    words = name.lower().split("_")
    if name.lower() in c.RESERVED or (
        name.lower() not in (c.USER_ID, c.ITEM_ID) and any(w in LABEL_LIKE for w in words)
    ):
        raise FeatureSpecError(
            f"feature {name!r} is named like a label or a bookkeeping column, so it would leak or clash: "
            "rename it (a count of past events is best named in the plural, like user_clicks_7d)"
        )


def union(run: FeatureSpec, others: tuple[FeatureSpec, ...]) -> FeatureSpec:
    """The run's features first, then those that only other models (champion, previous) need.

    Raises:
        FeatureSpecError: if another model needs a feature under the same name with another type or source.
    """
    features = list(run.features)
    views = {view.name: view for view in run.views}
    for other in others:
        for feature in other.features:
            mine = next((f for f in features if f.name == feature.name), None)
            if mine is None:
                features.append(feature)
            elif (mine.raw, mine.source) != (feature.raw, feature.source):
                raise FeatureSpecError(
                    f"feature {feature.name!r} was {feature.dtype} from {feature.source!r} for a model in use and is "
                    f"now {mine.dtype} from {mine.source!r}: give the new one another name"
                )
        for view in other.views:
            mine_view = views.get(view.name, view)
            fields = mine_view.fields + tuple(f for f in view.fields if f not in mine_view.fields)
            views[view.name] = mine_view.model_copy(update={"fields": fields})
    return FeatureSpec(features=tuple(features), views=tuple(views.values()), reference_position=run.reference_position)
