from __future__ import annotations

import re
import runpy
from datetime import timedelta
from pathlib import Path

import pytest
from feast import Field
from feast.types import Array, Bool, Float64, Int64, String

from components.contracts.dataset import DatasetInfo
from components.contracts.errors import FeatureSpecError
from feature_repo import views
from feature_repo.entities import USER
from pipelines.feature_spec import check_in_use, feature_spec

INFO = DatasetInfo(
    name="shop",
    source="test",
    context={"position": "int", "hour": "int", "device": "string", "basket": "float", "returning": "bool"},
    reference_position=2,
)
ALL = tuple(view.name for view in views.VIEWS)


def declared(*fields, name="user_profile"):
    return (views.view(name, USER, timedelta(days=1), *fields),)


def one(field):
    """The spec's feature for a single declared field."""
    return feature_spec(INFO, ("user_profile",), declared(field)).named(field.name)


def test_ids_then_context_then_the_views_fields():
    spec = feature_spec(INFO, ALL)
    names = [feature.name for feature in spec.features]
    stored = [field.name for view in views.VIEWS for field in view.fields]
    assert names == ["user_id", "item_id", *INFO.context, *stored]
    assert [view.name for view in spec.views] == list(ALL)
    assert spec.views[1].ttl_seconds == 7 * 86400
    assert spec.views[1].entity == "user_id"
    assert spec.views[3].fields[0] == "item_impressions_7d"
    assert spec.reference_position == 2


def test_encodings():
    spec = feature_spec(INFO, ALL)
    encodings = {feature.name: feature.encoding for feature in spec.features}
    assert encodings["user_id"] == encodings["country"] == encodings["age_band"] == encodings["hour"] == "id"
    assert encodings["basket"] == encodings["price"] == encodings["member_days"] == "bucket"
    assert encodings["returning"] == "id"
    assert spec.named("position").tower == "ctr"
    assert spec.named("position").min_count == 1
    assert all(feature.tower == "shared" for feature in spec.features if feature.name != "position")


def test_only_the_views_that_are_there():
    spec = feature_spec(INFO, ("item_profile", "a_view_of_their_own"))
    assert {feature.source for feature in spec.stored} == {"item_profile"}
    assert [view.name for view in spec.views] == ["item_profile"]
    assert feature_spec(INFO, ()).views == ()


def test_an_id_can_be_left_out():
    info = INFO.model_copy(update={"id_features": ("item_id",)})
    assert [feature.name for feature in feature_spec(info, ()).from_source("id")] == ["item_id"]


def test_tags_become_numbers():
    feature = one(views.field("x", Int64, encoding="bucket", buckets=7, dimension=4))
    assert (feature.buckets, feature.dimension) == (7, 4)
    feature = one(views.field("y", String, encoding="id", min_count=2, max_vocabulary=9))
    assert (feature.min_count, feature.max_vocabulary) == (2, 9)
    assert one(views.field("z", Bool, encoding="id")).dtype == "bool"


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        (views.field("x", Int64, encoding="bucket", bukets=7), "unknown tag 'bukets'"),
        (views.field("x", Int64, encoding="embedding"), "encoding = 'embedding'"),
        (views.field("x", Int64), "has no encoding"),
        (Field(name="x", dtype=Int64), "has no encoding"),
        (views.field("x", Int64, encoding="bucket", buckets="many"), "buckets='many' must be a whole number"),
        (views.field("x", Int64, encoding="bucket", buckets=0), "must be a whole number above 0"),
        (views.field("x", Array(Int64), encoding="id"), "use String, Int64, Float64 or Bool"),
        (views.field("x", String, encoding="bucket"), "is a string and cannot be encoded as bucket"),
        (views.field("x", Float64, encoding="id"), "is a float and no id"),
        (views.field("click", Int64, encoding="bucket"), "named like a label"),
        (views.field("is_conversion", Int64, encoding="id"), "named like a label"),
        (views.field("created", Int64, encoding="id"), "bookkeeping"),
        (views.field("hour", Int64, encoding="id"), "declared twice"),
        (views.field("price_y", Float64, encoding="bucket"), "ends in '_y'"),
    ],
)
def test_what_is_refused(field, sentence):
    with pytest.raises(FeatureSpecError, match=re.escape(sentence)):
        one(field)


def test_position_cannot_come_from_a_view():
    info = INFO.model_copy(update={"context": {"hour": "int"}})
    with pytest.raises(FeatureSpecError, match="only the CTR tower"):
        feature_spec(info, ("user_profile",), declared(views.field("position", Int64, encoding="id")))


def test_one_line_adds_a_feature(tmp_path):
    """In a copy of views.py, as a person would: the line of user_clicks_7d again, with another name."""
    text = Path(views.__file__).read_text()
    line = re.search(r'^.*"user_clicks_7d".*\n', text, re.MULTILINE).group(0)
    (tmp_path / "views.py").write_text(text.replace(line, line + line.replace("user_clicks_7d", "user_sessions_7d")))
    changed = runpy.run_path(str(tmp_path / "views.py"))["VIEWS"]
    spec = feature_spec(INFO, ALL, changed)
    assert spec.named("user_sessions_7d").encoding == "bucket"
    assert len(spec.features) == len(feature_spec(INFO, ALL).features) + 1
    # Back without the line, a champion trained with it is in the way.
    with pytest.raises(FeatureSpecError, match=r"'user_sessions_7d' of view 'user_activity' was removed"):
        check_in_use(feature_spec(INFO, ALL), [spec])
    # The other way round nothing is: the old model's features are all there.
    assert check_in_use(spec, [feature_spec(INFO, ALL)]) == spec


def test_the_union_asks_for_what_models_in_use_need():
    """A champion that reads an id the run leaves out, and the run's own order first."""
    info = INFO.model_copy(update={"id_features": ("item_id",)})
    new, old = feature_spec(info, ALL), feature_spec(INFO, ALL)
    both = check_in_use(new, [old, old])
    assert [f.name for f in both.features] == [*(f.name for f in new.features), "user_id"]


def test_nothing_in_use_changes_nothing():
    spec = feature_spec(INFO, ALL)
    assert check_in_use(spec, []) == spec


def test_a_retyped_feature_is_refused():
    was = feature_spec(INFO, ("user_profile",), declared(views.field("grade", String, encoding="id")))
    now = declared(views.field("grade", Int64, encoding="id"))
    with pytest.raises(FeatureSpecError, match=r"'grade' was string .* and is now int"):
        check_in_use(feature_spec(INFO, ("user_profile",), now), [was], now)


def test_a_changed_encoding_is_no_retyping():
    was = feature_spec(INFO, ("user_profile",), declared(views.field("grade", Int64, encoding="id")))
    now = declared(views.field("grade", Int64, encoding="bucket"))
    spec = feature_spec(INFO, ("user_profile",), now)
    assert check_in_use(spec, [was], now) == spec


def test_a_view_the_data_lost_is_refused():
    with pytest.raises(FeatureSpecError, match="no longer brings view 'user_profile'"):
        check_in_use(feature_spec(INFO, ("item_profile",)), [feature_spec(INFO, ALL)])


def test_a_context_column_the_log_lost_is_refused():
    info = INFO.model_copy(update={"context": {"position": "int"}})
    with pytest.raises(FeatureSpecError, match="no longer has context column 'hour'"):
        check_in_use(feature_spec(info, ()), [feature_spec(INFO, ())])
