"""The three shells, one after the other, as KFP calls them."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from features.made import AS_OF, impressions, spec, view_table, write_clean, write_features
from kfp.dsl import Dataset

from components.contracts.errors import DataError
from components.contracts.files import read_manifest
from components.features import component
from components.features.encode import EncodeConfig
from components.features.materialize import MaterializeConfig
from components.features.retrieve import RetrieveConfig


def test_the_shells(tmp_path, monkeypatch):
    monkeypatch.setenv("ESMM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ESMM_RUN_DIR", str(tmp_path / "run"))
    rows = [{"event": n, "split": ["train", "valid", "test"][n % 3], "user_id": f"u{n}"} for n in range(15)]
    write_clean(tmp_path / "clean", impressions(rows))
    profiles = view_table("user_profile", [{"user_id": f"u{n}", "event": 0, "age_band": n} for n in range(15)])
    write_features(tmp_path / "features", {"user_profile": profiles})
    wanted = spec(("user_profile",))
    uri = {name: Dataset(uri=str(tmp_path / name)) for name in ("clean", "features", "dataset", "encoded", "expected")}
    component.retrieve.python_func(
        RetrieveConfig(dataset="tiny", spec=wanted).to_json(), uri["clean"], uri["features"], uri["dataset"]
    )
    component.encode.python_func(EncodeConfig(spec=wanted).to_json(), uri["dataset"], uri["encoded"])
    config = MaterializeConfig(dataset="tiny", as_of=AS_OF, spec=wanted, clock="frozen")
    component.materialize.python_func(config.to_json(), uri["features"], uri["dataset"], uri["expected"])
    assert read_manifest(tmp_path / "encoded")["rows"]["train"] == 5
    assert pq.read_table(tmp_path / "expected/expected.parquet").num_rows > 0
    for name in ("retrieve", "encode", "materialize"):
        record = json.loads((tmp_path / f"run/{name}.json").read_text())
        assert record["status"] == "succeeded"
        assert record["facts"]


def test_a_failure_is_recorded_in_its_own_words(tmp_path, monkeypatch):
    monkeypatch.setenv("ESMM_RUN_DIR", str(tmp_path / "run"))
    uri = Dataset(uri=str(tmp_path / "nothing"))
    with pytest.raises(DataError):
        component.encode.python_func(EncodeConfig(spec=spec(())).to_json(), uri, uri)
    record = json.loads((tmp_path / "run/encode.json").read_text())
    assert record["status"] == "failed"
    assert "manifest.json does not exist" in record["message"]
