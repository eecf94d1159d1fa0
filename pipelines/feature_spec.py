"""From the tags in feature_repo to the feature spec of a run: the only reader of the tags."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from components.contracts.columns import POSITION
from components.contracts.config import explain
from components.contracts.dataset import DatasetInfo
from components.contracts.errors import FeatureSpecError
from components.contracts.spec import (
    CONTEXT_SOURCE,
    ID_SOURCE,
    ITEM_CONTEXT_SOURCE,
    WEIGHTS_SUFFIX,
    Dtype,
    Feature,
    FeatureSpec,
    View,
    union,
)
from feature_repo import views as repo
from feature_repo.context import settings_of
from feature_repo.declare import Declared, dtype_of

DEFAULT_ENCODING = {"int": "id", "string": "id", "bool": "id", "float": "bucket", "strings": "bag"}
NUMBERS = ("min_count", "max_vocabulary", "buckets", "dimension", "max_values")
BOUNDS = ("minimum", "maximum")
TAGS = ("encoding", "combiner", *NUMBERS, *BOUNDS)


def feature_spec(
    info: DatasetInfo, present_views: tuple[str, ...], declared: tuple[Declared, ...] = repo.VIEWS
) -> FeatureSpec:
    """What a model of this dataset sees: ids, then its context, then the fields of the declared views it brings.

    Lists of strings are bags; a list of floats holds the weights of the bag it is named after.

    Raises:
        FeatureSpecError: an unknown tag, encoding or type, a name like a label, a name twice, weights without a bag.
    """
    features = [_feature(name, ID_SOURCE, "string", {"encoding": "id"}) for name in info.id_features]
    features += _context(info)
    views = []
    for view in declared:
        if view.name not in present_views:
            continue
        features += _stored(view)
        views.append(
            View(
                name=view.name,
                entity=view.entity.join_key,
                ttl_seconds=view.ttl.total_seconds(),
                fields=tuple(field.name for field in view.fields),
            )
        )
    return FeatureSpec(features=tuple(features), views=tuple(views), reference_position=info.reference_position)


def check_in_use(
    new: FeatureSpec, in_use: Iterable[FeatureSpec], declared: tuple[Declared, ...] = repo.VIEWS
) -> FeatureSpec:
    """The union of the run's spec with those of the models in use (champion, predecessor).

    Raises:
        FeatureSpecError: a feature that a model in use needs was removed from views.py, retyped, or is no longer
            brought by the dataset: that model could neither be compared nor be rolled back to.
    """
    others = tuple(in_use)
    fields = {view.name: {field.name for field in view.fields} for view in declared}
    brought = {view.name for view in new.views}
    for other in others:
        for feature in other.stored:
            lost = [name for name in feature.raw if name not in fields.get(feature.source, ())]
            if lost:
                raise FeatureSpecError(
                    f"feature {lost[0]!r} of view {feature.source!r} was removed from feature_repo/views.py, but "
                    "the champion or its predecessor needs it: put the line back until neither does"
                )
            if feature.source not in brought:
                raise FeatureSpecError(
                    f"the dataset no longer brings view {feature.source!r}, but the champion or its predecessor reads "
                    f"{feature.name!r} from it: bring the table again, or give the dataset another name"
                )
        for feature in other.context:
            gone = [name for name in feature.raw if name not in new.raw]
            if gone:
                raise FeatureSpecError(
                    f"the dataset no longer has context column {gone[0]!r}, but the champion or its predecessor "
                    "reads it: bring the column again, or give the dataset another name"
                )
        for feature in other.features:
            mine = new.named(feature.name)
            if mine is not None and mine.weighted and not feature.weighted and mine.dtype == feature.dtype:
                raise FeatureSpecError(
                    f"bag {feature.name!r} has weights now, but the champion or its predecessor reads it without: "
                    "give the weighted one another name"
                )
    return union(new, others)


def _context(info: DatasetInfo) -> list[Feature]:
    """The features of the log's context columns; position belongs to the request, whatever the dataset says."""
    unknown = sorted(set(info.item_context) - set(info.context))
    if unknown:
        raise FeatureSpecError(
            f"item_context of dataset {info.name!r} names {unknown[0]!r}, which is no context column: add it to "
            "`context` in dataset.json with its type, or take it out of `item_context`"
        )
    weights = {name for name, dtype in info.context.items() if dtype == "floats"}
    for name in sorted(weights):
        bag = name.removesuffix(WEIGHTS_SUFFIX)
        if bag == name or info.context.get(bag) != "strings":
            raise FeatureSpecError(_stray_weights(f"context column {name!r}", name))
        if name in info.item_context and bag not in info.item_context:
            raise FeatureSpecError(
                f"item_context of dataset {info.name!r} names {name!r} and not {bag!r}, the bag it weighs: add it"
            )
    features = []
    for name, dtype in info.context.items():
        if name in weights:
            continue
        source = ITEM_CONTEXT_SOURCE if name in info.item_context and name != POSITION else CONTEXT_SOURCE
        settings = {"encoding": DEFAULT_ENCODING[dtype], **settings_of(name)}
        features.append(_feature(name, source, dtype, settings, weighted=name + WEIGHTS_SUFFIX in weights))
    return features


def _stored(view: Declared) -> list[Feature]:
    """The features of a view: one a field, but weights belong to the bag they are named after."""
    bags = {field.name for field in view.fields if dtype_of(field) == "strings"}
    weights = {field.name for field in view.fields if dtype_of(field) == "floats"}
    features = []
    for field in view.fields:
        where = f"feature {field.name!r} of view {view.name!r}"
        if field.name not in weights:
            features.append(_field(view.name, field, where, weighted=field.name + WEIGHTS_SUFFIX in weights))
        elif field.name not in {bag + WEIGHTS_SUFFIX for bag in bags}:
            raise FeatureSpecError(_stray_weights(where, field.name))
        elif field.tags:
            raise FeatureSpecError(
                f"{where} holds the weights of a bag and has the tag {min(field.tags)!r}: put tags on the bag"
            )
    return features


def _stray_weights(where: str, name: str) -> str:
    bag = name.removesuffix(WEIGHTS_SUFFIX)
    do = (
        f"name it after the bag it weighs (<bag>{WEIGHTS_SUFFIX})"
        if bag == name
        else f"declare {bag!r}, the list of strings that it weighs, beside it"
    )
    return f"{where} is a list of floats, which can only hold the weights of a bag: {do}, or take it out"


def _field(view: str, field: Any, where: str, weighted: bool) -> Feature:
    unknown = sorted(set(field.tags) - set(TAGS))
    if unknown:
        raise FeatureSpecError(f"{where} has an unknown tag {unknown[0]!r}: use {', '.join(TAGS)}")
    if "encoding" not in field.tags:
        raise FeatureSpecError(f"{where} has no encoding: add encoding='id', 'bucket', 'numeric' or 'bag'")
    dtype = dtype_of(field)
    if dtype is None:
        raise FeatureSpecError(f"{where} is a {field.dtype}: use String, Int64, Float64, Bool or Array(String)")
    if field.name.endswith("_y"):
        # Feast's DuckDB store drops such columns after its joins, taking them for duplicates.
        raise FeatureSpecError(f"{where} ends in '_y', which Feast's join drops: rename it")
    return _feature(field.name, view, dtype, dict(field.tags), where, weighted)


def _feature(
    name: str, source: str, dtype: Dtype, settings: Mapping[str, Any], where: str = "", weighted: bool = False
) -> Feature:
    values = dict(settings)
    where = where or f"feature {name!r}"
    for key in NUMBERS:
        if key in values and not (str(values[key]).isdecimal() and int(values[key]) > 0):
            raise FeatureSpecError(f"{where}: tag {key}={values[key]!r} must be a whole number above 0")
    for key in ("combiner", "max_values"):
        if key in values and values.get("encoding") != "bag":
            raise FeatureSpecError(f"{where}: tag {key!r} is for bags: take it out, or use encoding='bag'")
    _check_bounds(where, dtype, values)
    try:
        return Feature.model_validate({"name": name, "source": source, "dtype": dtype, "weighted": weighted, **values})
    except ValidationError as error:
        raise FeatureSpecError(f"{where}: {explain(error)}") from None


def _check_bounds(where: str, dtype: Dtype, values: dict[str, Any]) -> None:
    """Makes numbers of minimum and maximum, in place."""
    for key in BOUNDS:
        if key not in values:
            continue
        if dtype not in ("int", "float"):
            raise FeatureSpecError(f"{where}: tag {key!r} is for numbers and this is a {dtype}: take it out")
        try:
            number = float(values[key])
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise FeatureSpecError(f"{where}: tag {key}={values[key]!r} must be a finite number")
        values[key] = number
    low, high = values.get("minimum", -math.inf), values.get("maximum", math.inf)
    if low > high:
        raise FeatureSpecError(f"{where}: minimum {low:g} is above maximum {high:g}: swap them")
