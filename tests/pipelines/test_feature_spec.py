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
from feature_repo import declare, views
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
    return (declare.view(name, USER, timedelta(days=1), *fields),)


def one(field):
    """The spec's feature for a single declared field."""
    return feature_spec(INFO, ("user_profile",), declared(field)).named(field.name)


def test_ids_then_context_then_the_views_fields():
    spec = feature_spec(INFO, ALL)
    names = [feature.name for feature in spec.features]
    stored = [f.name for view in views.VIEWS for f in view.fields if f.dtype != Array(Float64)]
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
    feature = one(declare.field("x", Int64, encoding="bucket", buckets=7, dimension=4))
    assert (feature.buckets, feature.dimension) == (7, 4)
    feature = one(declare.field("y", String, encoding="id", min_count=2, max_vocabulary=9))
    assert (feature.min_count, feature.max_vocabulary) == (2, 9)
    assert one(declare.field("z", Bool, encoding="id")).dtype == "bool"


@pytest.mark.parametrize(
    ("field", "sentence"),
    [
        (declare.field("x", Int64, encoding="bucket", bukets=7), "unknown tag 'bukets'"),
        (declare.field("x", Int64, encoding="embedding"), "encoding = 'embedding'"),
        (declare.field("x", Int64), "has no encoding"),
        (Field(name="x", dtype=Int64), "has no encoding"),
        (declare.field("x", Int64, encoding="bucket", buckets="many"), "buckets='many' must be a whole number"),
        (declare.field("x", Int64, encoding="bucket", buckets=0), "must be a whole number above 0"),
        (declare.field("x", Array(Int64), encoding="id"), "use String, Int64, Float64, Bool or Array(String)"),
        (declare.field("x", String, encoding="bucket"), "is a string and cannot be encoded as bucket"),
        (declare.field("x", Float64, encoding="id"), "is a float and no id"),
        (declare.field("click", Int64, encoding="bucket"), "named like a label"),
        (declare.field("is_conversion", Int64, encoding="id"), "named like a label"),
        (declare.field("created", Int64, encoding="id"), "bookkeeping"),
        (declare.field("hour", Int64, encoding="id"), "declared twice"),
        (declare.field("price_y", Float64, encoding="bucket"), "ends in '_y'"),
        (declare.field("x", Array(String), encoding="id"), "is strings and encoded as id"),
        (declare.field("x", String, encoding="bag"), "is string and encoded as bag"),
        (declare.field("x", Array(String)), "has no encoding"),
        (declare.field("x", Array(String), encoding="bag", combiner="max"), "combiner = 'max'"),
        (declare.field("x", Array(String), encoding="bag", max_values=0), "must be a whole number above 0"),
        (declare.field("x", String, encoding="id", max_values=3), "tag 'max_values' is for bags"),
        (declare.field("x", Int64, encoding="bucket", combiner="sum"), "tag 'combiner' is for bags"),
        (declare.field("x", String, encoding="id", minimum=0), "tag 'minimum' is for numbers and this is a string"),
        (declare.field("x", Int64, encoding="bucket", maximum="high"), "maximum='high' must be a finite number"),
        (declare.field("x", Int64, encoding="bucket", maximum="inf"), "must be a finite number"),
        (declare.field("x", Int64, encoding="bucket", minimum=2, maximum=1.5), "minimum 2 is above maximum 1.5"),
        (declare.field("x", Array(Float64)), "name it after the bag it weighs (<bag>_weights)"),
        (declare.field("x", Array(Float64), encoding="numeric"), "can only hold the weights of a bag"),
        (declare.field("x_weights", Array(Float64)), "declare 'x', the list of strings that it weighs"),
        (declare.field("hour_weights", Array(Float64)), "declare 'hour'"),
    ],
)
def test_what_is_refused(field, sentence):
    with pytest.raises(FeatureSpecError, match=re.escape(sentence)):
        one(field)


def test_a_bag_and_its_weights_are_one_feature():
    fields = (
        declare.field("x", Array(String), encoding="bag", combiner="sum", max_values=20, min_count=2),
        declare.field("x_weights", Array(Float64)),
        declare.field("z", Array(String), encoding="bag"),
    )
    spec = feature_spec(INFO, ("user_profile",), declared(*fields))
    x, z = spec.stored
    assert (x.name, x.encoding, x.combiner, x.max_values, x.min_count, x.weighted) == ("x", "bag", "sum", 20, 2, True)
    assert (z.combiner, z.weighted) == ("mean", False)
    assert spec.views[0].fields == ("x", "x_weights", "z")
    assert {name: spec.raw[name] for name in ("x", "x_weights", "z")} == {
        "x": "strings", "x_weights": "floats", "z": "strings",
    }  # fmt: skip


def test_weights_of_a_bag_have_no_tags_of_their_own():
    fields = (
        declare.field("x", Array(String), encoding="bag"),
        declare.field("x_weights", Array(Float64), encoding="bag"),
    )
    with pytest.raises(FeatureSpecError, match=r"'x_weights' .* has the tag 'encoding': put tags on the bag"):
        feature_spec(INFO, ("user_profile",), declared(*fields))


def test_weights_in_another_view_are_nobody_s():
    bag, weights = declare.field("x", Array(String), encoding="bag"), declare.field("x_weights", Array(Float64))
    both = (*declared(bag), *declared(weights, name="user_activity"))
    with pytest.raises(FeatureSpecError, match="'x_weights' of view 'user_activity' is a list of floats"):
        feature_spec(INFO, ("user_profile", "user_activity"), both)


def test_a_feature_named_like_a_bag_s_weights_is_refused():
    info = INFO.model_copy(update={"context": {"x_weights": "string"}})
    fields = (declare.field("x", Array(String), encoding="bag"), declare.field("x_weights", Array(Float64)))
    with pytest.raises(FeatureSpecError, match="'x_weights' is declared twice"):
        feature_spec(info, ("user_profile",), declared(*fields))


def test_ranges_become_numbers():
    feature = one(declare.field("x", Float64, encoding="bucket", minimum=0, maximum=0.5))
    assert (feature.minimum, feature.maximum) == (0.0, 0.5)
    assert one(declare.field("x", Float64, encoding="bucket", minimum=-1)).maximum is None


def test_the_shop_s_ranges():
    spec = feature_spec(INFO, ALL)
    assert (spec.named("price").minimum, spec.named("price").maximum) == (0, None)
    assert (spec.named("item_ctr_7d").minimum, spec.named("item_ctr_7d").maximum) == (0, 1)
    counts = [f for f in spec.stored if f.name.endswith(("s_7d", "_days"))]
    assert len(counts) == 7
    assert all(f.minimum == 0 and f.maximum is None for f in counts)


def test_a_view_keyed_by_group():
    spec = feature_spec(INFO, ("ali_ccp_user",))
    assert spec.keys == ("user_id", "item_id", "group_id")
    assert spec.views[0].entity == "group_id"
    bag = spec.named("f109_14")
    assert (bag.dtype, bag.encoding, bag.combiner, bag.max_values, bag.weighted) == ("strings", "bag", "mean", 32, True)
    assert "f109_14_weights" in spec.views[0].fields
    assert spec.named("f109_14_weights") is None
    assert feature_spec(INFO, ("user_profile",)).keys == ("user_id", "item_id")


BAGS = DatasetInfo(
    name="ali",
    source="test",
    context={
        "position": "int", "f206": "string", "f210": "strings", "f210_weights": "floats", "f301": "string",
        "tags": "strings",
    },
    item_context=("f206", "f210", "f301", "position"),
)  # fmt: skip


def test_context_of_items_and_of_the_request():
    spec = feature_spec(BAGS, ())
    assert {f.name: f.source for f in spec.context} == {
        "position": "context", "f206": "item_context", "f210": "item_context", "f301": "item_context",
        "tags": "context",
    }  # fmt: skip
    assert [f.name for f in spec.item_context] == ["f206", "f210", "f301"]
    assert spec.named("f210").weighted
    assert not spec.named("tags").weighted
    assert spec.named("tags").encoding == "bag"
    assert [f.name for f in spec.features if f.tower == "ctr"] == ["position", "f301"]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"item_context": ("f206", "f999")}, "item_context of dataset 'ali' names 'f999', which is no context column"),
        ({"context": {"f210_weights": "floats"}, "item_context": ()}, "declare 'f210', the list of strings"),
        ({"context": {"f210": "string", "f210_weights": "floats"}, "item_context": ()}, "declare 'f210'"),
        ({"context": {"scores": "floats"}, "item_context": ()}, "context column 'scores' is a list of floats"),
        ({"item_context": ("f210_weights",)}, "names 'f210_weights' and not 'f210'"),
        ({"context": {"f301": "strings"}, "item_context": ()}, "'f301' is strings and encoded as id"),
    ],
)
def test_context_that_is_refused(changes, sentence):
    with pytest.raises(FeatureSpecError, match=re.escape(sentence)):
        feature_spec(BAGS.model_copy(update=changes), ())


def test_position_cannot_come_from_a_view():
    info = INFO.model_copy(update={"context": {"hour": "int"}})
    with pytest.raises(FeatureSpecError, match="only the CTR tower"):
        feature_spec(info, ("user_profile",), declared(declare.field("position", Int64, encoding="id")))


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
    was = feature_spec(INFO, ("user_profile",), declared(declare.field("grade", String, encoding="id")))
    now = declared(declare.field("grade", Int64, encoding="id"))
    with pytest.raises(FeatureSpecError, match=r"'grade' was string .* and is now int"):
        check_in_use(feature_spec(INFO, ("user_profile",), now), [was], now)


def test_a_changed_encoding_is_no_retyping():
    was = feature_spec(INFO, ("user_profile",), declared(declare.field("grade", Int64, encoding="id")))
    now = declared(declare.field("grade", Int64, encoding="bucket"))
    spec = feature_spec(INFO, ("user_profile",), now)
    assert check_in_use(spec, [was], now) == spec


def test_a_view_the_data_lost_is_refused():
    with pytest.raises(FeatureSpecError, match="no longer brings view 'user_profile'"):
        check_in_use(feature_spec(INFO, ("item_profile",)), [feature_spec(INFO, ALL)])


def test_a_context_column_the_log_lost_is_refused():
    info = INFO.model_copy(update={"context": {"position": "int"}})
    with pytest.raises(FeatureSpecError, match="no longer has context column 'hour'"):
        check_in_use(feature_spec(info, ()), [feature_spec(INFO, ())])


def test_weights_that_a_model_in_use_reads_cannot_go():
    bag, weights = declare.field("x", Array(String), encoding="bag"), declare.field("x_weights", Array(Float64))
    weighted, plain = declared(bag, weights), declared(bag)
    was, now = (feature_spec(INFO, ("user_profile",), views_) for views_ in (weighted, plain))
    with pytest.raises(FeatureSpecError, match="'x_weights' of view 'user_profile' was removed"):
        check_in_use(now, [was], plain)
    with pytest.raises(FeatureSpecError, match="bag 'x' has weights now"):
        check_in_use(was, [now], weighted)
    assert check_in_use(was, [was], weighted) == was
    less = {name: dtype for name, dtype in BAGS.context.items() if name != "f210_weights"}
    lost = feature_spec(BAGS.model_copy(update={"context": less}), ())
    with pytest.raises(FeatureSpecError, match="no longer has context column 'f210_weights'"):
        check_in_use(lost, [feature_spec(BAGS, ())])


def test_context_that_changes_sides_is_refused():
    other = feature_spec(BAGS.model_copy(update={"item_context": ("f206", "f210")}), ())
    with pytest.raises(FeatureSpecError, match=r"'f301' was string from 'context' .* now string from 'item_context'"):
        check_in_use(feature_spec(BAGS, ()), [other])


def test_another_range_is_no_retyping():
    was = feature_spec(INFO, ("user_profile",), declared(declare.field("grade", Int64, encoding="id", minimum=0)))
    now = declared(declare.field("grade", Int64, encoding="id", minimum=1))
    spec = feature_spec(INFO, ("user_profile",), now)
    assert check_in_use(spec, [was], now) == spec
