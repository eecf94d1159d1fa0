"""The shells, one after the other as the pipeline calls them: package, smoke test, promote."""

import json

from kfp.dsl import Dataset, Model
from tiny_model import AS_OF

from components.packaging import component, registry
from components.packaging.bento import PackageConfig
from components.packaging.promote import PromoteConfig
from components.packaging.smoke_test import SmokeTestConfig


def test_package_smoke_test_promote(home, model, expected, evaluation, tmp_path, monkeypatch, no_process_left):
    run = tmp_path / "20260110T000000-dddd"
    monkeypatch.setenv("ESMM_RUN_DIR", str(run))
    winner, answers = Model(uri=str(model)), Dataset(uri=str(expected))
    tag = component.package.python_func(PackageConfig(dataset="shop").to_json(), winner)
    passed = component.smoke_test.python_func(SmokeTestConfig(dataset="shop").to_json(), tag, winner, answers)
    assert passed is True
    config = PromoteConfig(dataset="shop", as_of=AS_OF).to_json()
    assert component.promote.python_func(config, tag, winner, Dataset(uri=str(evaluation()))) == 1
    champion = registry.champion(home, "shop")
    assert (champion.bento, champion.run) == (tag, run.name)
    records = {path.stem: json.loads(path.read_text()) for path in run.glob("*.json")}
    assert {name: record["status"] for name, record in records.items()} == dict.fromkeys(
        ("package", "smoke_test", "promote"), "succeeded"
    )
    assert records["smoke_test"]["facts"]["gate"]["gate"] == "bento"
    assert records["promote"]["facts"]["version"] == 1
