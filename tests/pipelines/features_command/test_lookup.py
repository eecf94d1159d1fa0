"""`esmm features lookup`: what a service would see, as old as it would be."""

from __future__ import annotations

import shutil
from pathlib import Path

from features_command import AS_OF, Esmm, by_name
from servers import redis_server


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
