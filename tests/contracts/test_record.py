"""A stage's own sentence reaches the run record, since kfp.local passes none on."""

import json

import pytest

from components.contracts.errors import DataGateClosed
from components.contracts.record import stage


@pytest.fixture
def run_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("ESMM_RUN_DIR", str(tmp_path))
    return tmp_path


def test_success_keeps_facts_and_seconds(run_dir):
    with stage("ingest") as facts:
        assert json.loads((run_dir / "ingest.json").read_text())["status"] == "running"
        facts["rows"] = 3
    record = json.loads((run_dir / "ingest.json").read_text())
    assert (record["status"], record["facts"]) == ("succeeded", {"rows": 3})
    assert record["seconds"] >= 0


def test_failure_keeps_code_and_message_and_raises_on(run_dir):
    with pytest.raises(DataGateClosed), stage("validate"):
        raise DataGateClosed("day 2026-01-02: 30.0 % bad rows")
    record = json.loads((run_dir / "validate.json").read_text())
    assert (record["status"], record["code"]) == ("failed", "DataGateClosed")
    assert record["message"] == "day 2026-01-02: 30.0 % bad rows"


def test_outside_a_run_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.delenv("ESMM_RUN_DIR", raising=False)
    monkeypatch.chdir(tmp_path)
    with stage("ingest"):
        pass
    assert list(tmp_path.iterdir()) == []
