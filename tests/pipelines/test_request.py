"""A run that cannot be right is refused before anything starts."""

import pytest

from components.contracts.errors import DataError, UsageError
from components.ingestion.sources.simulator import SimulatorConfig, simulate
from pipelines.request import request_of


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
