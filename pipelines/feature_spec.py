"""From the tags in feature_repo to the feature spec of a run: the only reader of the tags."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from components.contracts.config import explain
from components.contracts.dataset import DatasetInfo
from components.contracts.errors import FeatureSpecError
from components.contracts.spec import CONTEXT_SOURCE, ID_SOURCE, Dtype, Feature, FeatureSpec, View, union
from feature_repo import views as repo
from feature_repo.context import CONTEXT

DEFAULT_ENCODING = {"int": "id", "string": "id", "bool": "id", "float": "bucket"}
NUMBERS = ("min_count", "max_vocabulary", "buckets", "dimension")
TAGS = ("encoding", *NUMBERS)


def feature_spec(
    info: DatasetInfo, present_views: tuple[str, ...], declared: tuple[repo.Declared, ...] = repo.VIEWS
) -> FeatureSpec:
    """What a model of this dataset sees: ids, then its context, then the fields of the declared views it brings.

    Raises:
        FeatureSpecError: an unknown tag, encoding or type, a name like a label, a name twice.
    """
    features = [_feature(name, ID_SOURCE, "string", {"encoding": "id"}) for name in info.id_features]
    for name, dtype in info.context.items():
        settings = {"encoding": DEFAULT_ENCODING[dtype], **CONTEXT.get(name, {})}
        features.append(_feature(name, CONTEXT_SOURCE, dtype, settings))
    views = []
    for view in declared:
        if view.name not in present_views:
            continue
        for field in view.fields:
            features.append(_stored(view.name, field))
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
    new: FeatureSpec, in_use: Iterable[FeatureSpec], declared: tuple[repo.Declared, ...] = repo.VIEWS
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
            if feature.name not in fields.get(feature.source, ()):
                raise FeatureSpecError(
                    f"feature {feature.name!r} of view {feature.source!r} was removed from feature_repo/views.py, but "
                    "the champion or its predecessor needs it: put the line back until neither does"
                )
            if feature.source not in brought:
                raise FeatureSpecError(
                    f"the dataset no longer brings view {feature.source!r}, but the champion or its predecessor reads "
                    f"{feature.name!r} from it: bring the table again, or give the dataset another name"
                )
        for feature in other.context:
            if new.named(feature.name) is None:
                raise FeatureSpecError(
                    f"the dataset no longer has context column {feature.name!r}, but the champion or its predecessor "
                    "reads it: bring the column again, or give the dataset another name"
                )
    return union(new, others)


def _stored(view: str, field: Any) -> Feature:
    where = f"feature {field.name!r} of view {view!r}"
    unknown = sorted(set(field.tags) - set(TAGS))
    if unknown:
        raise FeatureSpecError(f"{where} has an unknown tag {unknown[0]!r}: use {', '.join(TAGS)}")
    if "encoding" not in field.tags:
        raise FeatureSpecError(f"{where} has no encoding: add encoding='id', 'bucket' or 'numeric'")
    dtype = repo.dtype_of(field)
    if dtype is None:
        raise FeatureSpecError(f"{where} is a {field.dtype}: use String, Int64, Float64 or Bool")
    if field.name.endswith("_y"):
        # Feast's DuckDB store drops such columns after its joins, taking them for duplicates.
        raise FeatureSpecError(f"{where} ends in '_y', which Feast's join drops: rename it")
    return _feature(field.name, view, dtype, dict(field.tags), where)


def _feature(name: str, source: str, dtype: Dtype, settings: Mapping[str, Any], where: str = "") -> Feature:
    values = dict(settings)
    for key in NUMBERS:
        if key in values and not (str(values[key]).isdecimal() and int(values[key]) > 0):
            raise FeatureSpecError(f"{where or name}: tag {key}={values[key]!r} must be a whole number above 0")
    try:
        return Feature.model_validate({"name": name, "source": source, "dtype": dtype, **values})
    except ValidationError as error:
        raise FeatureSpecError(f"{where or f'feature {name!r}'}: {explain(error)}") from None
