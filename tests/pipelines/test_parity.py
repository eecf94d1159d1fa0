"""`esmm parity`: which run it looks at, what it prints and what it exits with; and the stage in the DAG."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner, Result
from features.made import GROUPED
from features.parity_made import write_dataset, write_model, write_tables

from components.contracts.columns import REQUIRED
from components.contracts.dataset import write_info
from components.contracts.decision import GateResult
from components.contracts.files import write_json
from components.contracts.parity import Example, FeatureParity
from components.features.parity.stage import Parity
from pipelines.cli import main
from pipelines.cluster import compile_training
from pipelines.parities import lines


class Runs:
    """A home with run folders, as runs leave them."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def add(self, name: str, artifacts: dict[str, Path] | None = None, **record: Any) -> None:
        facts = {"artifacts": {key: str(path) for key, path in artifacts.items()}} if artifacts else {}
        stages = {"collect": {"status": "succeeded", "facts": facts}}
        write_json(
            self.home / "runs" / name / "record.json",
            {"run": name, "status": "refused", "dataset": "tiny", "stages": stages, **record},
        )

    def __call__(self, *arguments: object) -> Result:
        return CliRunner().invoke(main, ["--home", str(self.home), "parity", *map(str, arguments)])


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("parity-command")
    features = write_tables(folder / "features")
    dataset = write_dataset(folder, features)
    return {"features": features, "dataset": dataset, "winner": write_model(folder / "model", dataset)}


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.setenv("ESMM_HOME", "")  # the command sets it for its children: undone after the test
    return Runs(tmp_path / "home")


def test_the_newest_finished_run(runs: Runs, artifacts: dict[str, Path]) -> None:
    runs.add("r1", artifacts, config={"parity": {"sample": 30}})
    runs.add("r2", status="failed")
    done = runs()
    assert done.exit_code == 0, done.output
    assert "run r1, dataset tiny" in done.output
    assert "PASSED: " in done.output
    assert "of 30 impressions are online as offline" in done.output
    (line,) = (line for line in done.output.splitlines() if line.startswith("country"))
    assert line.split()[:5] == ["country", "user_profile", "30", "0", "0.0%"]


def test_one_object_and_a_model_that_is_not_there(runs: Runs, artifacts: dict[str, Path], tmp_path: Path) -> None:
    runs.add("r1", {**artifacts, "winner": tmp_path / "none"})
    done = runs("--run", "r1", "--sample", 12, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["run"], found["dataset"], found["passed"], found["sampled"]) == ("r1", "tiny", True, 12)
    assert not [row for row in found["features"] if row["view"] == "score"]


def test_the_tables_as_they_are_now(runs: Runs, artifacts: dict[str, Path], tmp_path: Path) -> None:
    """A job that writes the history again, with other values, is found in the dataset's own folder."""
    data = tmp_path / "data"
    write_tables(data / "features")
    write_info(data, GROUPED)
    (data / "log" / "dt=2026-03-01").mkdir(parents=True)
    pq.write_table(
        pq.read_table(artifacts["dataset"] / "test").select(
            [name for name in REQUIRED if name not in ("click", "conversion")]
        ),
        data / "log" / "dt=2026-03-01" / "part-0.parquet",
    )
    runs.add("r1", artifacts)
    runs.add("r2", artifacts, dataset="another")
    assert runs("--data", data, "--sample", 40).exit_code == 0
    path = data / "features" / "item_activity" / "part-0.parquet"
    table = pq.read_table(path)
    doubled = [None if value is None else 2 * value for value in table["item_impressions_7d"].to_pylist()]
    pq.write_table(table.set_column(1, "item_impressions_7d", [doubled]), path)
    done = runs("--data", data, "--sample", 40)
    assert done.exit_code == 1
    assert "run r1" in done.output
    assert "DIFFERS: online is not as offline: 'item_impressions_7d' of item_activity" in done.output


def test_what_it_cannot_look_at(runs: Runs, artifacts: dict[str, Path], tmp_path: Path) -> None:
    assert "holds no run yet" in runs().output
    runs.add("r1", status="failed")
    assert "holds no finished run" in runs().output
    assert "notes no artifacts" in runs("--run", "r1").output
    runs.add("r2", {**artifacts, "dataset": tmp_path / "gone"})
    assert "are gone, pruned or moved" in runs().output
    both = runs("--run", "r2", "--data", tmp_path)
    assert (both.exit_code, "give one of the two" in both.output) == (2, True)


def test_the_table_names_what_differs() -> None:
    example = Example(impression_id="m1", at="2026-03-02T00:00:00Z", offline="missing", online="0")
    row = FeatureParity(
        feature="clicks", view="v", checked=200, differing=3, share=0.015, at_expiry=1, largest=None, example=example
    )
    gate = GateResult(gate="online_parity", passed=False, reason="online is not as offline")
    header, line, verdict = lines(Parity(gate=gate, features=(row,), sampled=200, moments=3))
    assert header.split() == ["feature", "view", "checked", "differing", "share", "largest", "example"]
    assert "3 (+1 at expiry)" in line
    assert line.endswith("m1 at 2026-03-02T00:00:00Z: missing offline, 0 online")
    assert verdict == "DIFFERS: online is not as offline"
    nothing = GateResult(gate="online_parity", passed=True, applies=False, reason="does not apply: no views")
    assert lines(Parity(gate=nothing)) == ["does not apply: no views"]


def test_nothing_is_built_or_materialized_before_parity_let_it_through(tmp_path: Path) -> None:
    compile_training(tmp_path / "t.yaml")
    components = next(yaml.safe_load_all((tmp_path / "t.yaml").read_text()))["components"]

    def inside(name: str) -> set[str]:
        tasks = components[name].get("dag", {}).get("tasks", {})
        return set(tasks) | {below for task in tasks.values() for below in inside(task["componentRef"]["name"])}

    (after,) = (name for name in components if {"package", "promote"} <= inside(name) and "parity" not in inside(name))
    assert inside(after) >= {"package", "materialize", "smoke_test".replace("_", "-"), "promote"}
    (holder,) = (
        task
        for component in components.values()
        for task in component.get("dag", {}).get("tasks", {}).values()
        if task["componentRef"]["name"] == after
    )
    assert "parity" in json.dumps(holder["triggerPolicy"])
    (stage,) = (
        component["dag"]["tasks"]["parity"]
        for component in components.values()
        if "parity" in component.get("dag", {}).get("tasks", {})
    )
    assert not stage["cachingOptions"].get("enableCache")
