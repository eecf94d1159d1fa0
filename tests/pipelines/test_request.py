"""A run that cannot be right is refused before anything starts."""

import json

import pytest

from components.contracts.errors import DataError, UsageError
from components.ingestion.sources.simulator import SimulatorConfig, simulate
from pipelines.request import reference_of, request_of


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shop"
    simulate(SimulatorConfig(days=8, users=50, items=30, impressions=2000), folder)
    return folder


def test_the_dataset_names_recipe_and_as_of(shop):
    info, recipe, as_of = request_of(shop, "", "{}", "")
    assert (info.name, info.recipe) == ("shop", "nightly")
    assert recipe.candidates == ("esmm", "esmm-ns", "base")
    assert as_of.startswith("2026-01-1")
    assert request_of(shop, "", "{}", "2026-01-12T02:00:00+02:00")[2] == "2026-01-12T00:00:00Z"


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        (("nightli", "{}", ""), UsageError, "nightly"),
        (("", '{"training": {"sede": 1}}', ""), UsageError, "training.sede"),
        (("", "{}", "soon"), UsageError, "ISO-8601"),
        (("", "{}", "2026-01-05T00:00:00Z"), UsageError, "first logged event"),
    ],
)
def test_bad_requests(shop, arguments, error, says):
    with pytest.raises(error, match=says):
        request_of(shop, *arguments)


def test_no_dataset(tmp_path):
    with pytest.raises(DataError, match="esmm import"):
        request_of(tmp_path, "", "{}", "")


def profile_of(dataset, path):
    content = {"dataset": dataset, "as_of": "2026-01-05T00:00:00Z", "data_fingerprint": "f", "log": {"rows": 1}}
    path.write_text(json.dumps(content))
    return json.dumps({"reference": str(path)})


def test_the_reference_is_read_before_anything_starts(shop, tmp_path):
    path = tmp_path / "reference.json"
    info, recipe, _ = request_of(shop, "", profile_of("shop", path), "")
    assert reference_of(recipe, info).as_of == "2026-01-05T00:00:00Z"
    assert reference_of(request_of(shop, "", "{}", "")[1], info) is None


def test_a_reference_that_cannot_be_one_is_refused(shop, tmp_path):
    with pytest.raises(UsageError, match="esmm profile accept"):
        request_of(shop, "", json.dumps({"reference": str(tmp_path / "none.json")}), "")
    with pytest.raises(UsageError, match="dataset 'other'"):
        request_of(shop, "", profile_of("other", tmp_path / "other.json"), "")
