"""A reference, from the run it is taken of to the gate it closes."""

import json
import shutil

import pyarrow.parquet as pq
import pytest
from e2e.command import ONE

pytestmark = pytest.mark.e2e


@pytest.fixture
def renamed(shop, tmp_path):
    """The shop after somebody has renamed its devices: every row keeps every rule."""
    folder = tmp_path / "renamed"
    shutil.copytree(shop, folder)
    for file in folder.glob("log/*/*.parquet"):
        table = pq.ParquetFile(file).read()
        column = table.column_names.index("device")
        values = [None if v is None else f"{v}-v2" for v in table.column("device").to_pylist()]
        pq.write_table(table.set_column(column, "device", [values]), file)
    return folder


def test_a_reviewed_reference_passes_later_days_and_closes_the_gate_for_other_data(esmm, shop, renamed, tmp_path):
    reference = tmp_path / "references" / "shop.json"
    earlier = esmm.run(shop, "--recipe", "smoke", *ONE, "--as-of", "2026-01-15T00:00:00Z")
    assert earlier["data"]["drift_measures"] == 0
    said = esmm("profile", "accept", "--out", reference).stdout
    assert "next: review and commit" in said
    profile = json.loads(reference.read_text())
    assert (profile["dataset"], profile["run"]) == ("shop", earlier["run"])

    later = esmm.run(shop, "--recipe", "smoke", *ONE, "--reference", reference)
    assert later["data"]["drift_measures"] > 20
    assert later["data"]["drift_beyond"] == []
    report = (esmm.home / "runs" / later["run"] / "report.html").read_text()
    assert earlier["run"] in report

    closed = esmm("run", "--data", renamed, "--recipe", "smoke", "--reference", reference, code=1)
    assert "the data gate is closed" in closed.stderr
    assert "category shares of log.device" in closed.stderr
    refused = esmm("profile", "accept", "--out", reference, code=1)
    assert "is no good run" in refused.stderr
    assert json.loads(reference.read_text()) == profile
    forced = esmm("profile", "accept", "--out", reference, "--force").stdout
    assert "beyond its limit: category shares of log.device" in forced


@pytest.mark.slow
def test_data_is_not_judged_by_itself(esmm, first, shop, tmp_path):
    reference = tmp_path / "shop.json"
    esmm("profile", "accept", first[1]["run"], "--out", reference)
    again = esmm.run(shop, "--recipe", "smoke", *ONE, "--reference", reference)
    assert again["data"]["drift_measures"] == 0
    assert "taken of this very data" in again["data"]["drift"]


def test_a_reference_that_is_none_is_a_sentence(esmm, shop, tmp_path):
    other = tmp_path / "other.json"
    other.write_text("{}")
    for path in (other, tmp_path / "nowhere.json"):
        done = esmm("run", "--data", shop, "--reference", path, code=2)
        assert str(path) in done.stderr
        assert "Traceback" not in done.stderr


def test_profiles_are_shown(first):
    shown = first[0]("profile", "show").stdout
    assert "dataset shop" in shown
    assert "item_profile" in shown
    assert "median" in shown
