"""The shell: the record of a run, and the typed interface other stages wire to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from kfp.dsl import HTML, Dataset

from components.contracts.errors import DataGateClosed
from components.validation.component import validate


def call(stage: Any, config: Any) -> None:
    """As Kubeflow calls it: artifacts by URI."""
    outputs = {
        name: Dataset(uri=str(stage.folder / name)) for name in ("impressions", "features", "clean2", "quarantine2")
    }
    validate.python_func(
        config.to_json(), outputs["impressions"], outputs["features"], outputs["clean2"], outputs["quarantine2"],
        HTML(uri=str(stage.folder / "again" / "docs")),
    )  # fmt: skip


def test_interface() -> None:
    spec = validate.component_spec
    assert sorted(spec.inputs or {}) == ["config", "features", "impressions"]
    assert sorted(spec.outputs or {}) == ["clean", "docs", "quarantine"]


def test_runs_and_records(stage: Any, rows: list[Any], config: Any, tmp_path: Path, monkeypatch: Any) -> None:
    stage.run(rows)
    monkeypatch.setenv("ESMM_RUN_DIR", str(tmp_path / "run"))
    call(stage, config)
    record = json.loads((tmp_path / "run" / "validate.json").read_text())
    assert record["status"] == "succeeded"
    assert record["facts"]["gate"] == "open"
    assert record["facts"]["rows"] == len(rows)


def test_a_closed_gate_is_recorded_with_its_sentence(
    stage: Any, rows: list[Any], config: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    with pytest.raises(DataGateClosed):
        stage.run(rows, drop=("hour",))
    monkeypatch.setenv("ESMM_RUN_DIR", str(tmp_path / "run"))
    with pytest.raises(DataGateClosed):
        call(stage, config)
    record = json.loads((tmp_path / "run" / "validate.json").read_text())
    assert (record["status"], record["code"]) == ("failed", "DataGateClosed")
    assert "the log has no column 'hour'" in record["message"]
    assert (tmp_path / "run" / "validation.html").is_file()
