"""What a run tells a script and a person, from the run folder alone."""

import json

import pytest

from components.contracts.paths import Home
from components.contracts.quality import DayQuality, Drift, Maturity, Quality
from pipelines import summary


def record(**changes):
    base = {
        "run": "r1", "status": "failed", "promoted": False, "reasons": ["day 3: 30 % bad rows"], "winner": None,
        "version": None, "stages": {
            "plan": {"status": "succeeded", "seconds": 1.0},
            "ingest": {"status": None, "cached": True},
            "validate": {"status": "failed", "seconds": 2.0, "code": "DataGateClosed", "message": "x", "facts": {}},
        },
    }  # fmt: skip
    return base | changes


def test_a_failed_run_has_no_decision_but_reasons(tmp_path):
    (tmp_path / "record.json").write_text(json.dumps(record()))
    (tmp_path / "validation.html").write_text("<html>")
    result = summary.result(tmp_path)
    assert result["decision"] is None
    assert result["data"] is None
    assert result["report"].endswith("validation.html")
    assert result["seconds"] == {"plan": 1.0, "validate": 2.0}
    assert result["cached"] == ["ingest"]
    text = summary.text(result, Home(tmp_path))
    assert "FAILED" in text
    assert "30 % bad rows" in text


def test_exit_codes():
    assert summary.exit_code(record(status="promoted")) == 0
    assert summary.exit_code(record(status="refused")) == 0
    assert summary.exit_code(record()) == 1
    usage = {"plan": {"status": "failed", "code": "UsageError"}}
    assert summary.exit_code(record(stages=usage)) == 2


@pytest.mark.parametrize(
    ("used", "on_path", "typed"),
    [
        ("{cwd}/.venv/bin/esmm", None, ".venv/bin/esmm"),
        ("{cwd}/.venv/bin/esmm", "{cwd}/.venv/bin/esmm", "esmm"),
        ("/opt/bin/esmm", None, "/opt/bin/esmm"),
        ("/x/pipelines/__main__.py", None, "esmm"),
    ],
)
def test_the_next_command_can_be_typed(tmp_path, monkeypatch, used, on_path, typed):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [used.format(cwd=tmp_path)])
    monkeypatch.setattr("shutil.which", lambda _: on_path and on_path.format(cwd=tmp_path))
    assert summary.command() == typed


def test_gates_are_named_by_state(tmp_path):
    gates = [
        {"gate": "parity", "passed": True, "reason": ""},
        {"gate": "calibration", "passed": False, "reason": ""},
        {"gate": "overlap", "passed": True, "applies": False, "reason": ""},
    ]
    decision = {"promote": False, "winner": "esmm", "champion_version": None, "reasons": [], "gates": gates}
    (tmp_path / "decision.json").write_text(json.dumps(decision))
    lines = summary.gate_lines(str(tmp_path / "decision.json"))
    assert lines == ["gates closed: calibration", "gates open: parity", "gates not applicable: overlap"]


def test_the_winners_calibration_has_a_line(tmp_path):
    calibration = {"kind": "platt", "scale": 0.9, "bias": -0.1, "clicks": 3210, "conversions": 432}
    evaluation = {
        "decision": {"promote": True, "winner": "esmm", "champion_version": None, "reasons": [], "gates": []},
        "candidates": [
            {"name": "base", "eligible": True, "calibration": {}},
            {"name": "esmm", "eligible": True, "calibration": calibration},
        ],
        "rows": {}, "as_of": "", "dataset": "shop",
        "ranges": {"kind": "hash", "train": ["0", "1"], "valid": ["0", "1"], "test": ["0", "1"]},
    }  # fmt: skip
    (tmp_path / "record.json").write_text(json.dumps(record(winner="esmm", status="promoted")))
    (tmp_path / "evaluation.json").write_text(json.dumps(evaluation))
    result = summary.result(tmp_path)
    line = (
        "esmm: pCVR is calibrated by Platt scaling (scale 0.9, bias -0.1), fitted on 3,210 clicked validation "
        "impressions (432 conversions)"
    )
    assert line in summary.text(result, Home(tmp_path)).splitlines()
    (tmp_path / "record.json").write_text(json.dumps(record()))
    assert summary.result(tmp_path)["calibration"] is None


def test_the_data_has_a_line():
    days = (DayQuality(day="2026-01-06", rows=1000, bad=12),)
    drift = [
        Drift(
            table="log", column="a", measure="m", reference=0.0, observed=1.0, limit=0.5, passed=passed, says="x moved"
        )
        for passed in (True, False)
    ]
    plain = summary.data_quality(Quality(days=days, reference="drift was not judged"))
    assert summary.data_line(plain) == "data: 12 of 1,000 rows quarantined, drift not judged (see the report)"
    full = summary.data_quality(
        Quality(days=days, drift=tuple(drift), reference="held against r1", maturity=Maturity(share_to_come=0.054))
    )
    assert full["drift_beyond"] == ["x moved"]
    assert summary.data_line(full) == (
        "data: 12 of 1,000 rows quarantined, drift: 1 of 2 measures beyond their limits, "
        "5.4% of conversions still to come"
    )
