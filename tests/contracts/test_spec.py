"""What may not be a feature is refused when the spec is made, before anything is trained on it."""

import pytest

from components.contracts.errors import FeatureSpecError
from components.contracts.spec import Feature, FeatureSpec, View, union


def feature(name="hour", source="context", dtype="int", encoding="id", **more):
    return Feature(name=name, source=source, dtype=dtype, encoding=encoding, **more)


@pytest.mark.parametrize(
    "name",
    [
        "click",
        "conversion",
        "is_click",
        "label",
        "conversion_7",
        "click_timestamp",
        "event_timestamp",
        "Click",
        "split",
    ],
)
def test_a_feature_named_like_a_label_is_refused(name):
    with pytest.raises(FeatureSpecError, match="label or a bookkeeping"):
        FeatureSpec(features=(feature(name),))


@pytest.mark.parametrize("name", ["user_clicks_7d", "item_ctr_7d", "item_conversions_7d", "user_id", "clickbait_score"])
def test_counts_of_past_events_are_no_labels(name):
    FeatureSpec(features=(feature(name),))


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ((), "empty"),
        ((feature(), feature()), "declared twice"),
        ((feature(dtype="string", encoding="bucket"),), "cannot be encoded as bucket"),
        ((feature(dtype="float", encoding="id"),), "is a float and no id"),
        ((feature("position"),), "only the CTR tower"),
        ((feature(source="nowhere"),), "which is not declared"),
    ],
)
def test_impossible_declarations_are_refused(bad, says):
    with pytest.raises(FeatureSpecError, match=says):
        FeatureSpec(features=bad)


def user_view(*fields):
    return View(name="user", entity="user_id", ttl_seconds=60.0, fields=fields)


def test_union_adds_what_only_the_champion_needs():
    run = FeatureSpec(features=(feature(), feature("a", "user")), views=(user_view("a"),))
    champion = FeatureSpec(features=(feature(), feature("b", "user")), views=(user_view("b"),))
    both = union(run, (champion,))
    assert [f.name for f in both.features] == ["hour", "a", "b"]
    assert both.views[0].fields == ("a", "b")


def test_union_refuses_a_retyped_feature():
    run = FeatureSpec(features=(feature(dtype="string"),))
    champion = FeatureSpec(features=(feature(dtype="int"),))
    with pytest.raises(FeatureSpecError, match="give the new one another name"):
        union(run, (champion,))
