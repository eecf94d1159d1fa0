"""The shell: the same function, called the way the pipeline calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kfp.dsl import Dataset

from components.contracts.dataset import data_fingerprint, read_info
from components.contracts.errors import DataError
from components.contracts.files import read_manifest
from components.ingestion.component import ingest
from components.ingestion.ingest import IngestConfig, default_as_of
from components.ingestion.sources.simulator_world import SimulatorConfig


def call(config: IngestConfig, out: Path) -> None:
    ingest.python_func(config.to_json(), Dataset(uri=str(out / "impressions")), Dataset(uri=str(out / "features")))


def test_shell_writes_artifacts_and_record(
    small_shop: tuple[SimulatorConfig, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, data = small_shop
    monkeypatch.setenv("ESMM_RUN_DIR", str(tmp_path / "run"))
    config = IngestConfig(
        data=str(data), fingerprint=data_fingerprint(data), as_of=default_as_of(data), split=read_info(data).split
    )
    call(config, tmp_path / "out")
    record = json.loads((tmp_path / "run" / "ingest.json").read_text())
    assert record["status"] == "succeeded"
    assert record["facts"]["rows"] == read_manifest(tmp_path / "out" / "impressions")["rows"]
    assert read_manifest(tmp_path / "out" / "features")["views"]

    with pytest.raises(DataError):
        call(config.model_copy(update={"fingerprint": "other"}), tmp_path / "out2")
    record = json.loads((tmp_path / "run" / "ingest.json").read_text())
    assert (record["status"], record["code"]) == ("failed", "DataError")
    assert "changed since the run was planned" in record["message"]
