"""`esmm features`: what is declared, brought, measured, materialized and served, each from where it really is."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from features.made import GROUP_VIEW, INFO, impressions, spec, view_table
from servers import redis_server
from tiny_model import make_model

from components.contracts import dataset as ds
from components.contracts.packaged import PACKAGED_JSON, Packaged
from components.contracts.paths import Home
from components.features import catalog
from components.packaging import registry
from feature_repo import views
from feature_repo.context import CONTEXT
from pipelines import docs
from pipelines.cli import main

AS_OF = "2026-03-20T00:00:00Z"
VALUES = {"string": np.array(["a", "b"], object), "int": np.array([1, 2]), "float": np.array([0.5, 1.5])}
PROFILES = [
    {"user_id": "u1", "event": 1, "country": "de", "segment": "s", "age_band": 3, "member_days": 40},
    {"user_id": "u1", "event": 5, "country": "fr", "segment": "s", "age_band": 3, "member_days": 44},
    {"user_id": "u2", "event": 2, "country": "fr", "age_band": 4, "member_days": 10},
    {"user_id": "u3", "event": 3},
    {"user_id": "u1", "event": 6, "created": 25, "country": "late", "member_days": 1000},
]
ACTIVITY = [
    {"item_id": "i1", "event": 18, "item_clicks_7d": 7, "item_impressions_7d": 70, "item_ctr_7d": 0.1},
    {"item_id": "i2", "event": 11, "item_clicks_7d": 5, "item_impressions_7d": 50},
    {"item_id": "i3", "event": 12, "item_clicks_7d": 6, "item_impressions_7d": 0, "item_ctr_7d": float("nan")},
    {"item_id": "i4", "event": 18},
    {"item_id": "i1", "event": 30, "item_clicks_7d": 99},
]
GROUPS = [
    {"group_id": "g1", "event": 1, "f121": "a", "f109_14": ["x", "y"], "f109_14_weights": [1.0, 3.0]},
    {"group_id": "g2", "event": 1, "f121": "a", "f109_14": ["x"], "f109_14_weights": [2.0]},
    {"group_id": "g3", "event": 1, "f109_14": [], "f109_14_weights": []},
]
TABLES = {
    "user_profile": view_table("user_profile", PROFILES),
    "item_activity": view_table("item_activity", ACTIVITY),
}
GROUPED = {GROUP_VIEW: view_table(GROUP_VIEW, GROUPS)}


def write_dataset(folder: Path, tables: dict[str, pa.Table], name: str = "tiny", **changes: object) -> Path:
    """A dataset whose log ends just before AS_OF."""
    day = folder / ds.LOG / "dt=2026-03-19"
    day.mkdir(parents=True)
    pq.write_table(impressions([{"event": 18.99999}]), day / "part-0.parquet")
    ds.write_info(folder, INFO.model_copy(update={"name": name, **changes}))
    for view, table in tables.items():
        (folder / ds.FEATURES / view).mkdir(parents=True)
        pq.write_table(table, folder / ds.FEATURES / view / "part-0.parquet")
    return folder


class Esmm:
    """`esmm --home HOME ARGUMENTS` in this process."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)

    def __call__(self, *arguments: object) -> Result:
        return CliRunner().invoke(main, ["--home", str(self.home.root), *map(str, arguments)])

    def said(self, *arguments: object) -> str:
        """Output, each run of blanks as one."""
        done = self("features", *arguments)
        assert done.exit_code == 0, done.output
        return re.sub(r" +", " ", done.stdout)

    def json(self, *arguments: object) -> object:
        done = self("features", *arguments, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def refused(self, code: int, *arguments: object) -> str:
        done = self("features", *arguments)
        assert done.exit_code == code, done.output
        assert done.stdout == ""
        assert done.stderr.startswith("esmm: ")
        assert done.stderr.count("\n") == 1
        return done.stderr


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("ESMM_HOME", "")  # the command sets it for its children: undone after the test
    monkeypatch.delenv("ESMM_PROFILE", raising=False)


@pytest.fixture
def empty(tmp_path):
    return Esmm(tmp_path / "home")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "tiny", TABLES)


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "grouped", GROUPED, "grouped")


@pytest.fixture(scope="module")
def filled(tmp_path_factory, data):
    """A home at which `tiny` is materialized up to AS_OF."""
    esmm = Esmm(tmp_path_factory.mktemp("filled"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESMM_HOME", "")
        done = esmm("materialize", "--data", data, "--as-of", AS_OF)
    assert done.exit_code == 0, done.output
    return esmm


def promote(esmm: Esmm, model: Path, dataset: str, read: tuple[str, ...], clock: str, champion: int | None) -> None:
    """Registers a model that reads these views, with the note that packaging puts into its Bento."""
    run = model.name
    bento = esmm.home.bentoml / "bentos" / f"esmm-{dataset}" / run
    (bento / "src").mkdir(parents=True)
    (bento / "bento.yaml").touch()
    packaged = Packaged(dataset=dataset, run=run, candidate="esmm", as_of=AS_OF, clock=clock)
    (bento / "src" / PACKAGED_JSON).write_text(packaged.to_json())
    reads = spec(read)
    columns = {name: VALUES[dtype] for name, dtype in reads.raw.items()}
    make_model(model, columns=columns, spec=reads, dataset=dataset, as_of=AS_OF)
    registry.promote(
        esmm.home, dataset, model, bento=f"esmm-{dataset}:{run}", metrics={}, expected_champion=champion, as_of=AS_OF,
        run=run,
    )  # fmt: skip


@pytest.fixture(scope="module")
def served(filled, tmp_path_factory):
    """A copy of the home with two models of `tiny`: the champion reads item_activity, its predecessor user_profile.

    The champion of `bare` reads no view.
    """
    root = tmp_path_factory.mktemp("served")
    esmm = Esmm(Path(shutil.copytree(filled.home.root, root / "home")))
    shutil.copytree(esmm.home.feast("tiny"), esmm.home.feast("bare"))
    promote(esmm, root / "run-1", "tiny", ("user_profile",), "frozen", None)
    promote(esmm, root / "run-2", "tiny", ("item_activity",), "wall", 1)
    promote(esmm, root / "run-3", "bare", (), "frozen", None)
    return esmm


def by_name(found, key="name"):
    return {entry[key]: entry for entry in found}


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


# -- lookup


def test_lookup_shows_what_the_service_would_see(filled, data):
    looked = filled.json("lookup", "--data", data, "--user", "u1", "--items", "i1,i2, i4,nothing,i1")
    assert (looked["dataset"], looked["model"], looked["clock"], looked["as_of"]) == ("tiny", None, "frozen", AS_OF)
    cells = {(cell["key"], cell["feature"]): cell for cell in looked["cells"]}
    assert len(cells) == len(looked["cells"]) == 4 + 4 * 4
    country = cells["u1", "country"]
    assert country == {
        "view": "user_profile", "feature": "country", "entity": "user_id", "key": "u1", "value": "fr",
        "event_time": "2026-03-06T00:00:00Z", "age_seconds": 14 * 86400.0, "status": "fresh", "source": "store",
    }  # fmt: skip
    clicks = {key: cells[key, "item_clicks_7d"] for key in ("i1", "i2", "i4", "nothing")}
    assert {key: cell["status"] for key, cell in clicks.items()} == {
        "i1": "fresh", "i2": "expired", "i4": "null", "nothing": "unknown",
    }  # fmt: skip
    assert {key: cell["value"] for key, cell in clicks.items()} == {"i1": 7, "i2": 5, "i4": None, "nothing": None}
    assert (clicks["i2"]["age_seconds"], clicks["nothing"]["age_seconds"]) == (8 * 86400.0, None)
    features = [cell["feature"] for cell in looked["cells"] if cell["key"] == "u1"]
    assert features == ["country", "segment", "age_band", "member_days"]  # as declared
    said = filled.said("lookup", "--data", data, "--user", "u1", "--items", "i1,i2,i4,nothing")
    assert f"dataset tiny: no champion, so every view; materialized up to {AS_OF}; ages measured from {AS_OF}" in said
    assert "\nuser_id u1\n" in said
    assert " user_profile country fr fresh 14.0 d 2026-03-06 00:00:00 store" in said
    assert " item_activity item_clicks_7d 5 expired, so missing 8.0 d 2026-03-12 00:00:00 store" in said
    assert " item_activity item_clicks_7d - null 1.0 d 2026-03-19 00:00:00 store" in said
    assert "\nitem_id nothing: unknown, nothing is stored of it" in said


def test_lookup_by_the_wall_clock(filled):
    looked = filled.json("lookup", "--clock", "wall", "--user", "u1", "--items", "i1")
    (clicks,) = [cell for cell in looked["cells"] if cell["feature"] == "item_clicks_7d"]
    assert (looked["clock"], clicks["status"], clicks["age_seconds"] > 8 * 86400) == ("wall", "expired", True)
    assert "ages measured from now (wall clock)" in filled.said(
        "lookup", "--clock", "wall", "--user", "u1", "--items", "i1"
    )


def test_lookup_reads_what_the_champion_reads_and_ages_as_its_service(served, data):
    asked = ("lookup", "--user", "u1", "--items", "i1", "--dataset", "tiny")
    looked = served.json(*asked)
    assert (looked["model"], looked["clock"]) == (2, "wall")
    assert {cell["view"] for cell in looked["cells"]} == {"item_activity"}
    assert "dataset tiny: champion version 2; materialized" in served.said(*asked)
    # What the dataset or the person says comes before the Bento's note.
    assert served.json(*asked, "--data", data)["clock"] == "frozen"
    assert served.json(*asked, "--clock", "frozen")["clock"] == "frozen"


def test_lookup_of_groups(empty, grouped):
    assert empty("materialize", "--data", grouped, "--as-of", AS_OF).exit_code == 0
    asked = ("lookup", "--data", grouped, "--user", "u1", "--items", "i1")
    assert "no --group was given, so what is kept by group is missing" in empty.said(*asked)
    cells = by_name(empty.json(*asked, "--group", "g1")["cells"], "feature")
    assert (cells["f109_14"]["value"], cells["f109_14_weights"]["value"]) == (["x", "y"], [1.0, 3.0])
    assert (cells["f110_14"]["status"], cells["f121"]["value"]) == ("null", "a")
    said = empty.said(*asked, "--group", "g9")
    assert "group_id g9: unknown, nothing is stored of it" in said
    assert "no --group" not in said


def test_lookups_that_are_refused(empty, filled, data, grouped, tmp_path):
    asked = ("--user", "u1", "--items", "i1")
    nothing = empty.refused(1, "lookup", *asked)
    assert f"nothing is materialized in {empty.home.root}: run `esmm materialize --data DIR`" in nothing
    assert "nothing of dataset 'grouped' is materialized" in filled.refused(1, "lookup", "--data", grouped, *asked)
    assert "; there are tiny: run" in filled.refused(1, "lookup", "--dataset", "shop", *asked)
    mixed = filled.refused(2, "lookup", "--data", data, "--dataset", "shop", *asked)
    assert "--data is dataset 'tiny' and --dataset says 'shop': give one of the two" in mixed
    assert "--items names no item" in filled.refused(2, "lookup", "--user", "u1", "--items", " , ")
    assert "'tiny' has no champion, so nothing says which clock ages are measured by" in filled.refused(
        2, "lookup", *asked
    )
    assert "is no folder" in filled.refused(1, "lookup", "--data", tmp_path / "nowhere", *asked)
    esmm = Esmm(Path(shutil.copytree(filled.home.root, tmp_path / "home")))
    (esmm.home.feast("tiny") / "online.db").unlink()
    assert "esmm materialize" in esmm.refused(1, "lookup", "--data", data, *asked)
    assert esmm("materialize", "--data", grouped, "--as-of", AS_OF).exit_code == 0
    several = esmm.refused(2, "lookup", *asked)
    assert "several datasets are materialized (grouped, tiny): choose one with --dataset" in several


def test_a_champion_without_views_has_nothing_to_look_up(served):
    said = served.refused(1, "lookup", "--dataset", "bare", "--user", "u1", "--items", "i1")
    assert "champion version 1 of 'bare' reads no feature views: the service looks nothing up" in said


# -- Redis


def test_with_redis_all_is_read_from_there(empty, filled, data, tmp_path, monkeypatch):
    with redis_server() as server:
        monkeypatch.setenv("ESMM_PROFILE", "production")
        monkeypatch.setenv("ESMM_REDIS", server.address)
        assert "ESMM_REGISTRY, which is not set" in filled.refused(2, "show", "item_activity")
        monkeypatch.setenv("ESMM_REGISTRY", f"sqlite:///{tmp_path / 'registry.db'}")
        # The note in the home's folder is of another profile.
        assert filled.json("show", "item_activity")["views"][0]["materialized"] == []
        assert filled("materialize", "--data", data, "--as-of", "2026-03-21T00:00:00Z").exit_code == 0
        (stored,) = filled.json("show", "item_activity")["views"][0]["materialized"]
        assert (stored["as_of"], stored["rows"], stored["lag_seconds"]) == ("2026-03-21T00:00:00Z", 4, 2 * 86400.0)
        # Another machine, which knows the store by its address alone.
        asked = ("lookup", "--dataset", "tiny", "--clock", "frozen", "--user", "u1", "--items", "i1,i2,nothing")
        cells = {(cell["key"], cell["feature"]): cell for cell in empty.json(*asked)["cells"]}
        assert (cells["u1", "country"]["value"], cells["u1", "country"]["age_seconds"]) == ("fr", 15 * 86400.0)
        found = [cells[item, "item_clicks_7d"] for item in ("i1", "i2", "nothing")]
        assert [cell["status"] for cell in found] == ["fresh", "expired", "unknown"]
        assert "nothing of dataset 'shop' is materialized" in empty.refused(
            1, "lookup", "--dataset", "shop", *asked[3:]
        )
        server.kill()
        assert "Redis at 127.0.0.1" in filled.refused(1, "show", "item_activity")
        assert "Redis at 127.0.0.1" in empty.refused(1, *asked)


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
