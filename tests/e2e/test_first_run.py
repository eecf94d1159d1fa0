"""From nothing to a served model, and what the run says about itself."""

import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

KEYS = {
    *("run", "status", "promoted", "reasons", "winner", "version", "candidates", "rows", "report", "decision"),
    *("seconds", "cached", "data", "calibration"),
}


def test_it_promotes_and_says_so(first):
    command, result = first
    assert set(result) == KEYS
    assert (result["status"], result["version"]) == ("promoted", 1)
    assert set(result["candidates"]) == {"esmm", "esmm-ns", "base"}
    for metrics in result["candidates"].values():
        assert metrics["ctr_auc"] > 0.55
        assert metrics["ctcvr_auc"] > 0.55
        assert 0.5 < metrics["ctcvr_calibration"] < 2
    (only,) = command.models()
    assert set(only) == {"version", "aliases", "metrics", "bento", "created"}
    assert (only["version"], only["aliases"]) == (1, ["champion"])


def test_every_row_is_accounted_for(first):
    command, result = first
    evaluation = json.loads((command.home / "runs" / result["run"] / "evaluation.json").read_text())
    rows = evaluation["rows"]
    assert rows["total"] == sum(count for name, count in rows.items() if name != "total")
    assert rows["quarantined"] > 0
    assert {name: result["rows"][name] for name in ("train", "valid", "test")} == {
        name: rows[name] for name in ("train", "valid", "test")
    }


def test_the_record_names_what_made_the_model(first):
    command, result = first
    record = command.record(result)
    assert [record["stages"][name]["status"] for name in ("plan", "promote")] == ["succeeded", "succeeded"]
    plan = record["stages"]["plan"]["facts"]
    assert plan["data_fingerprint"]
    assert plan["as_of"]
    assert plan["config"]["training"]["seed"] is not None


def test_the_report_is_one_file(first):
    _, result = first
    page = Path(result["report"]).read_text()
    assert "<script src" not in page
    assert 'src="http' not in page
    assert "esmm-ns" in page


def test_only_truth_free_folders_reach_a_stage_before_evaluation(first):
    command, result = first
    record = command.record(result)
    evaluation = json.loads((command.home / "runs" / result["run"] / "evaluation.json").read_text())
    assert evaluation["oracle"]["ctcvr_auc"] > 0.6
    before = {name: stage for name, stage in record["stages"].items() if name not in ("plan", "evaluate")}
    assert "truth" not in json.dumps(before)


def test_report_finds_it(first):
    command, result = first
    assert command("report").stdout.strip() == result["report"]
    assert command("report", result["run"]).stdout.strip() == result["report"]
    assert "no run" in command("report", "yesterday", code=2).stderr
