"""`esmm features`: what is declared, brought, measured and materialized, each from where it really is."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pytest
from features.made import GROUP_VIEW
from features_command import AS_OF, TABLES, Esmm, by_name, write_dataset

from components.features import catalog
from feature_repo import views
from feature_repo.context import CONTEXT
from pipelines import docs

# -- declared


def test_every_declaration_has_a_description_that_is_a_sentence():
    described = [("view", v.name, v.description) for v in views.VIEWS]
    described += [("field", f.name, f.description) for v in views.VIEWS for f in v.fields]
    described += [("context", name, column.description) for name, column in CONTEXT.items()]
    described += [("feature", e.name, e.description) for e in catalog.entries()]
    for kind, name, text in described:
        assert len(text) > 10, (kind, name, text)
        assert text.endswith("."), (kind, name, text)
        assert text[0].isupper(), (kind, name, text)


def test_feast_is_told_the_descriptions():
    for view in views.build("somewhere", [view.name for view in views.VIEWS]):
        assert view.description
        assert all(field.description for field in view.features), view.name


def test_list_shows_every_feature_with_what_it_is(empty):
    said = empty.said("list")
    for view in views.VIEWS:
        assert f"{view.name}: by {view.entity.join_key}, lives {view.ttl.days} days. {view.description}" in said
        for field in view.fields:
            if not field.name.endswith("_weights"):
                assert field.description in said
    for name, column in CONTEXT.items():
        assert re.search(rf"^ {name} .*{re.escape(column.description)}$", said, re.MULTILINE), name
    assert "brought" not in said
    found = empty.json("list")
    assert [entry["name"] for entry in found] == [entry.name for entry in catalog.entries()]
    assert {entry["brought"] for entry in found} == {None}
    bag = by_name(found)["f109_14"]
    assert (bag["source"], bag["entity"], bag["weights"]) == ("ali_ccp_user", "group_id", "f109_14_weights")
    assert (bag["type"], bag["encoding"]) == ("list of strings, weighted", "bag, combiner mean, max_values 32")


def test_list_of_a_dataset_says_what_it_brings(empty, tmp_path):
    tables = {**TABLES, "weather": pa.table({"x": [1]})}
    context = {"position": "int", "speed": "float", "tags": "strings", "tags_weights": "floats"}
    data = write_dataset(tmp_path / "own", tables, context=context, item_context=("tags",), id_features=("user_id",))
    found = empty.json("list", "--data", data)
    brought = {(entry["source"], entry["name"]) for entry in found if entry["brought"]}
    stored = {(v.name, f.name) for v in views.VIEWS for f in v.fields if v.name in TABLES}
    assert brought == {
        *stored, ("id", "user_id"), ("context", "position"), ("context", "speed"), ("item_context", "tags"),
    }  # fmt: skip
    assert {entry["brought"] for entry in found} == {True, False}
    own = by_name(found)
    assert (own["speed"]["type"], own["speed"]["encoding"]) == ("float", "bucket")
    assert (own["tags"]["type"], own["tags"]["encoding"]) == ("list of strings, weighted", "bag")
    assert own["position"]["type"] == "int"
    said = empty.said("list", "--data", data)
    assert re.search(r"^ country string id yes Country", said, re.MULTILINE)
    assert re.search(r"^ category string id no Category", said, re.MULTILINE)
    assert "view weather is brought, but not declared in feature_repo/views.py: no model reads it" in said


def test_list_without_data_says_what_is_materialized(filled):
    brought = {entry["source"]: entry["brought"] for entry in filled.json("list")}
    assert brought == {
        "id": None, "context": None, "user_profile": True, "user_activity": False, "item_profile": False,
        "item_activity": True, "ali_ccp_user": False,
    }  # fmt: skip
    assert filled.json("list", "--dataset", "tiny") == filled.json("list")
    said = filled.said("list")
    assert " feature type encoding materialized description\n country string id yes Country" in said
    assert " hour as logged id, min_count 1 - Hour" in said


def test_list_of_a_home_with_several_datasets_needs_a_name(filled, grouped, tmp_path):
    esmm = Esmm(Path(shutil.copytree(filled.home.root, tmp_path / "home")))
    assert esmm("materialize", "--data", grouped, "--as-of", AS_OF).exit_code == 0
    assert {entry["brought"] for entry in esmm.json("list")} == {None}
    named = {entry["source"]: entry["brought"] for entry in esmm.json("list", "--dataset", "grouped")}
    assert (named["ali_ccp_user"], named["user_profile"]) == (True, False)


# -- show


def test_show_a_feature_that_is_two(empty):
    found = empty.json("show", "price")
    assert [entry["source"] for entry in found["features"]] == ["context", "item_profile"]
    stored = found["features"][1]
    assert stored["settings"] == {"encoding": "bucket", "minimum": "0"}
    assert stored["effective"] == {"buckets": 16, "dimension": 16}
    assert (stored["ttl_seconds"], stored["entity"], stored["used_by"]) == (365 * 86400, "item_id", [])
    (view,) = found["views"]
    assert (view["name"], view["pattern"]) == ("item_profile", "features/item_profile/*.parquet")
    said = empty.said("show", "price")
    assert "price, feature of view item_profile: Price of the item." in said
    assert "price, context of the request or an item: The item's price" in said
    assert " defaults buckets 16, dimension 16\n" in said
    assert " read by no model in use\n" in said
    assert " materialized nothing: run `esmm materialize`, or `esmm run`" in said


def test_show_a_bag_by_the_name_of_its_weights(empty):
    assert empty.json("show", "f109_14_weights")["features"] == empty.json("show", "f109_14")["features"]
    assert " defaults dimension 16, min_count 5, max_vocabulary 1000000\n" in empty.said("show", "f109_14")


def test_show_names_the_push_source(empty):
    assert empty.json("show", "user_activity")["views"][0]["push_source"] == "user_activity_push"
    assert " pushes to user_activity_push\n" in empty.said("show", "user_activity")
    assert empty.json("show", "user_profile")["views"][0]["push_source"] is None
    assert " pushes none\n" in empty.said("show", "user_profile")


def test_show_what_is_materialized(filled):
    (view,) = filled.json("show", "item_activity")["views"]
    assert view["materialized"] == [
        {"dataset": "tiny", "as_of": AS_OF, "rows": 4, "newest_event": "2026-03-19T00:00:00Z", "lag_seconds": 86400.0}
    ]
    said = filled.said("show", "item_clicks_7d")
    assert "item_activity, view:" in said
    assert " tiny 4 2026-03-20T00:00:00Z 2026-03-19T00:00:00Z 1.0 d" in said


def test_show_who_reads_it(served):
    champion = {"dataset": "tiny", "role": "champion", "version": 2, "run": "run-2"}
    previous = {"dataset": "tiny", "role": "previous", "version": 1, "run": "run-1"}
    found = served.json("show", "item_clicks_7d")
    assert found["features"][0]["used_by"] == found["views"][0]["used_by"] == [champion]
    assert served.json("show", "country")["features"][0]["used_by"] == [previous]
    bare = {"dataset": "bare", "role": "champion", "version": 1, "run": "run-3"}
    assert served.json("show", "device")["features"][0]["used_by"] == [bare, champion, previous]
    assert served.json("show", "user_clicks_7d")["features"][0]["used_by"] == []
    readers = "champion version 1 of bare, champion version 2 of tiny, previous version 1 of tiny"
    assert f" read by {readers}\n" in served.said("show", "user_id")


def test_show_suggests_the_nearest_name(empty):
    assert "no feature or view 'contry': did you mean 'country'? `esmm features list`" in empty.refused(
        2, "show", "contry"
    )
    assert "did you mean 'user_activity'?" in empty.refused(2, "show", "user_activty")
    assert "'zzzz': `esmm features list` shows them all" in empty.refused(2, "show", "zzzz")


# -- stats


def test_stats_count_what_was_known(empty, data):
    found = empty.json("stats", "--data", data, "--as-of", AS_OF)
    assert (found["as_of"], [view["name"] for view in found["views"]]) == (AS_OF, ["user_profile", "item_activity"])
    users, items = found["views"]
    assert (users["rows"], users["entities"], users["newest_event"]) == (4, 3, "2026-03-06T00:00:00Z")
    assert users["versions"] == [pytest.approx(4 / 3), 2]
    assert users["expired"] == 0
    country, _, age, days = users["features"]
    assert (country["missing"], country["distinct"]) == (0.25, 2)
    assert country["top"] == [
        {"value": "fr", "share": pytest.approx(2 / 3)},
        {"value": "de", "share": pytest.approx(1 / 3)},
    ]
    assert country["newest_event"] == "2026-03-06T00:00:00Z"
    assert (age["top"][0], age["numbers"]) == ({"value": "3", "share": pytest.approx(2 / 3)}, None)
    assert days["numbers"] == {
        "minimum": 10, "maximum": 44, "mean": pytest.approx(94 / 3), "quantiles": [10, 10, 40, 44, 44],
    }  # fmt: skip
    # i2 is eight days old; i3's seven days end at that moment.
    assert (items["rows"], items["entities"], items["expired"]) == (4, 4, 0.25)
    rate = by_name(items["features"])["item_ctr_7d"]
    assert (rate["missing"], rate["distinct"], rate["numbers"]["mean"]) == (0.75, 1, 0.1)  # NaN is missing
    none = by_name(items["features"])["item_conversions_7d"]
    assert (none["missing"], none["distinct"], none["numbers"], none["newest_event"]) == (1, 0, None, None)


def test_stats_at_another_time(empty, data):
    (users, items) = empty.json("stats", "--data", data, "--as-of", "2026-03-27T00:00:00Z")["views"]
    assert users["rows"] == 5  # what was created on the 26th
    assert items["expired"] == 1
    (users, items) = empty.json("stats", "--data", data, "--as-of", "2026-03-19T00:00:00Z")["views"]
    assert (items["entities"], items["expired"]) == (2, 0)  # as-of is exclusive; i2 is seven days old to the second
    (_, items) = empty.json("stats", "--data", data, "--as-of", "2026-03-19T00:00:01Z")["views"]
    assert (items["entities"], items["expired"]) == (4, 0.25)
    (users, _) = empty.json("stats", "--data", data, "--as-of", "2026-03-01T00:00:00Z")["views"]
    assert (users["rows"], users["entities"], users["versions"], users["newest_event"]) == (0, 0, [0, 0], None)
    assert "0 rows of 0 entities" in empty.said("stats", "--data", data, "--as-of", "2026-03-01T00:00:00Z")


def test_stats_of_bags(empty, grouped):
    (view,) = empty.json("stats", "--data", grouped, "--feature", GROUP_VIEW)["views"]
    found = by_name(view["features"])
    bag = found["f109_14"]
    assert (bag["missing"], bag["distinct"], bag["a_row"]) == (pytest.approx(1 / 3), 2, [1.5, 2])
    assert [value["value"] for value in bag["top"]] == ["x", "y"]
    assert (bag["weights"]["minimum"], bag["weights"]["mean"], bag["weights"]["maximum"]) == (1, 2, 3)
    assert "f109_14_weights" not in found
    assert (found["f110_14"]["missing"], found["f110_14"]["weights"]) == (1, None)
    assert "x (66.7 %), y (33.3 %), 1.5 values a row (most 2), weights: min 1" in empty.said("stats", "--data", grouped)


def test_stats_of_one_feature_by_default_at_the_end_of_the_log(empty, data):
    found = empty.json("stats", "--data", data, "--feature", "item_clicks_7d")
    assert found["as_of"] == "2026-03-19T23:59:59.136001Z"
    assert [[f["name"] for f in view["features"]] for view in found["views"]] == [["item_clicks_7d"]]
    said = empty.said("stats", "--data", data, "--feature", "item_clicks_7d")
    assert "item_activity: 4 rows of 4 entities (item_id), 1.0 versions each (most 1)" in said
    assert "25.0 % of the entities older than 7 days by then" in said
    assert " item_clicks_7d 25.0 % 3 2026-03-19T00:00:00Z min 5 5% 5 25% 5 50% 6 75% 7 95% 7 max 7 mean 6" in said
    assert "item_ctr_7d" not in said


def test_stats_that_are_refused(empty, data, tmp_path):
    assert "nowhere is no folder: make one with `esmm simulate" in empty.refused(
        1, "stats", "--data", tmp_path / "nowhere"
    )
    assert f"{empty.home.data / 'shop'} is no folder" in empty.refused(1, "stats")
    bare = write_dataset(tmp_path / "bare", {})
    assert "holds no table of a declared view, so there is nothing to measure" in empty.refused(
        1, "stats", "--data", bare
    )
    for code, name, sentence in (
        (2, "contry", "did you mean 'country'?"),
        (2, "device", "'device' is no stored feature (context), so it has no table"),
        (
            1,
            "category",
            "brings no table for view 'item_profile', which 'category' is in: it has item_activity, user_prof",
        ),
    ):
        assert sentence in empty.refused(code, "stats", "--data", data, "--feature", name)
    assert "as-of 'soon' is no ISO-8601 time" in empty.refused(2, "stats", "--data", data, "--as-of", "soon")
    short = {"user_profile": TABLES["user_profile"].drop_columns(["country"])}
    lacking = write_dataset(tmp_path / "short", short)
    assert "has no column 'country', which feature_repo/views.py declares" in empty.refused(
        1, "stats", "--data", lacking
    )


def test_the_reference_page_has_every_description():
    page = (docs.ROOT / "docs" / "feature-reference.md").read_text()
    for entry in catalog.entries():
        assert entry.description in page, entry.name
    for view in views.VIEWS:
        assert view.description in page, view.name


def test_a_changed_declaration_makes_the_reference_page_stale(monkeypatch, capsys):
    docs.main(check=True)
    assert "feature-reference" not in capsys.readouterr().err
    changed = {**CONTEXT, "hour": dataclasses.replace(CONTEXT["hour"], description="The hour.")}
    monkeypatch.setattr(catalog, "CONTEXT", changed)
    assert docs.main(check=True) == 1
    assert "docs/feature-reference.md: generated tables are out of date" in capsys.readouterr().err
