"""From a dataset and a recipe to one config a stage: what enters the validate stage's cache key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.contracts.dataset import data_fingerprint
from components.contracts.errors import UsageError
from components.contracts.paths import Home
from components.features.parity.stage import ParityConfig
from components.ingestion.sources.simulator import SimulatorConfig, simulate
from components.validation.profile import ColumnProfile, DayProfile, Profile, TableProfile
from components.validation.validate import ValidateConfig
from pipelines.planning import LARGEST_ARGUMENT, make_plan, with_reference


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "shop"
    simulate(SimulatorConfig(days=8, users=50, items=30, impressions=2000), folder)
    return folder


def profile(columns: int = 1, value: str = "phone", days: int = 1) -> Profile:
    shares = {f"{value}{n}": 0.02 for n in range(50)}
    column = ColumnProfile(nulls=0.0, values=1000, categories=shares)
    return Profile(
        dataset="shop", run="r1", as_of="2026-01-10T00:00:00Z", data_fingerprint="earlier",
        days={f"day{n}": DayProfile(rows=10**6, clicks=10**5, conversions=10**4, volume=10**6) for n in range(days)},
        log=TableProfile(rows=1000, columns={f"c{n}": column for n in range(columns)}),
    )  # fmt: skip


def validate_config(shop: Path, home: Path, **recipe: object) -> ValidateConfig:
    config = make_plan(shop, "", json.dumps(recipe), "", Home(home)).configs["validate"]
    assert isinstance(config, ValidateConfig)
    return config


def test_validate_gets_the_reference_itself_and_the_data_it_is_run_on(shop: Path, tmp_path: Path) -> None:
    file = tmp_path / "reference.json"
    file.write_text(profile().to_text())
    config = validate_config(shop, tmp_path / "home", reference=str(file))
    assert config.reference == profile()
    assert config.data_fingerprint == data_fingerprint(shop)
    assert validate_config(shop, tmp_path / "home").reference is None


def test_the_content_and_not_the_path_is_the_cache_key(shop: Path, tmp_path: Path) -> None:
    texts = []
    for number, changed in enumerate((profile(), profile(), profile(value="web"))):
        file = tmp_path / f"{number}.json"
        file.write_text(changed.to_text())
        texts.append(validate_config(shop, tmp_path / "home", reference=str(file)).to_json())
    assert texts[0] == texts[1] != texts[2]


def test_parity_is_planned_as_the_recipe_says_before_anything_is_shipped(shop: Path, tmp_path: Path) -> None:
    planned = make_plan(shop, "", json.dumps({"parity": {"sample": 40}}), "", Home(tmp_path / "home"))
    config = planned.configs["parity"]
    assert isinstance(config, ParityConfig)
    assert (config.dataset, config.parity.sample, config.parity.tolerance) == ("shop", 40, 0.0)
    assert config.code
    stages = planned.facts["stages"]
    assert stages.index("collect") < stages.index("parity") < stages.index("package") < stages.index("promote")
    assert json.loads(planned.outputs().parity)["parity"]["sample"] == 40


def test_a_large_reference_names_fewer_categories_and_still_fits(shop: Path, tmp_path: Path) -> None:
    config = validate_config(shop, tmp_path / "home")
    large = profile(columns=60, value="a rather long value of a category ")
    assert len(json.dumps(config.model_copy(update={"reference": large}).to_json())) > LARGEST_ARGUMENT
    fitted = with_reference(config.model_copy(update={"reference": large}))
    assert fitted.reference is not None
    column = fitted.reference.log.columns["c0"]
    assert len(json.dumps(fitted.to_json())) <= LARGEST_ARGUMENT
    assert 0 < len(column.categories) < 50
    assert sum(column.categories.values()) + column.others == pytest.approx(1.0)


def test_a_reference_that_cannot_fit_is_refused_with_what_makes_it_large(shop: Path, tmp_path: Path) -> None:
    config = validate_config(shop, tmp_path / "home")
    with pytest.raises(UsageError, match=r"too large .*3,000 days"):
        with_reference(config.model_copy(update={"reference": profile(days=3000)}))
