"""collect and finish, over run folders in every state a run can end in."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from components.contracts.artifacts import Rows
from components.contracts.decision import Candidate, Decision, Evaluation, GateResult
from components.contracts.files import write_json
from components.evaluation.evidence import Evidence
from components.evaluation.gates import EvaluationConfig, decide
from components.evaluation.record import collect, finish
from components.evaluation.report import render

STAGES = [
    *("plan", "ingest", "validate", "retrieve", "encode", "train-esmm", "train-base"),
    *("evaluate", "collect", "parity", "package", "materialize", "smoke_test", "promote"),
]
PLAN = {
    "run": "r1",
    "as_of": "2026-01-17T00:00:00Z",
    "dataset": "shop",
    "commit": "abc",
    "champion": 3,
    "stages": STAGES,
}
CLOCK = iter(range(10_000))


class RunFolder:
    def __init__(self, root: Path, evidence: Evidence) -> None:
        self.path = root / "r1"
        self.path.mkdir()
        metrics = evidence.logged
        self.evaluation = Evaluation(
            decision=decide(evidence, EvaluationConfig()),
            candidates=(Candidate(name="esmm", eligible=True, validation=metrics, test=metrics, test_logged=metrics),),
            rows=Rows(total=10, train=5, valid=2, test=3),
            ranges=evidence.ranges,
            as_of=evidence.as_of,
            dataset="shop",
        )
        self.stage("plan", facts=PLAN)

    def stage(self, name: str, status: str = "succeeded", facts: dict[str, Any] | None = None, **more: Any) -> None:
        started = f"2026-01-17T00:{next(CLOCK) // 60 % 60:02d}:{next(CLOCK) % 60:02d}Z"
        content = {"stage": name, "status": status, "started": started, "seconds": 1.5, "facts": facts or {}, **more}
        write_json(self.path / f"{name}.json", content)

    def stages(self, *names: str) -> None:
        for name in names:
            self.stage(name)

    def judged(self, decision: Decision | None = None) -> None:
        """evaluate and record have run."""
        self.stages("evaluate")
        if decision is not None:
            self.evaluation = self.evaluation.model_copy(update={"decision": decision})
        artifact = self.path.parent / "evaluation"
        write_json(artifact / "evaluation.json", self.evaluation.model_dump(mode="json"))
        write_json(artifact / "decision.json", self.evaluation.decision.model_dump(mode="json"))
        report, docs = self.path.parent / "report", self.path.parent / "docs"
        report.write_text(render(self.evaluation))
        docs.write_text("<p>docs</p>")
        self.stage("collect", facts=collect(artifact, report, docs, Path("/q"), self.path))

    def read(self, name: str) -> Any:
        return json.loads((self.path / name).read_text())


@pytest.fixture
def folder(tmp_path: Path, against: Evidence) -> RunFolder:
    return RunFolder(tmp_path, against)


UPSTREAM = ("ingest", "validate", "retrieve", "encode", "train-esmm", "train-base")


def test_a_promoted_run(folder: RunFolder) -> None:
    folder.stages(*UPSTREAM)
    folder.judged()
    alike = GateResult(gate="online_parity", passed=True, reason="3,800 values are online as offline")
    folder.stage("parity", facts={"gate": alike.model_dump()})
    folder.stages("package", "materialize")
    folder.stage("smoke_test", facts={"gate": GateResult(gate="bento", passed=True, reason="0.0 apart").model_dump()})
    folder.stage("promote", facts={"version": 4})
    record = finish(folder.path, "SUCCEEDED")
    assert (record["status"], record["promoted"], record["version"]) == ("promoted", True, 4)
    assert record["winner"] == "esmm"
    assert record["as_of"] == PLAN["as_of"]
    assert record["quarantine"] == "/q"
    assert record["rows"]["train"] == 5
    assert record["candidates"]["esmm"]["ctr_auc"] == 0.70
    assert [gate["gate"] for gate in record["decision"]["gates"][-2:]] == ["online_parity", "bento"]
    assert folder.read("record.json") == record
    assert folder.read("decision.json") == record["decision"]
    assert "esmm is champion version 4" in (folder.path / "report.html").read_text()
    assert (folder.path / "validation.html").read_text() == "<p>docs</p>"
    assert list(record["stages"])[:3] == ["plan", "ingest", "validate"]
    assert record["stages"]["promote"]["seconds"] == 1.5


def test_a_refused_run_names_each_closed_gate(folder: RunFolder, against: Evidence) -> None:
    folder.stages(*UPSTREAM)
    refused = decide(against, EvaluationConfig(ctr_auc_min=0.9))
    folder.judged(refused)
    record = finish(folder.path, "SUCCEEDED")
    assert (record["status"], record["promoted"], record["version"]) == ("refused", False, None)
    assert record["reasons"] == list(refused.reasons)
    assert record["stages"]["package"] == {"status": "skipped", "seconds": None, "cached": False}


def test_features_that_differ_online_make_the_decision_a_refusal(folder: RunFolder) -> None:
    folder.stages(*UPSTREAM)
    folder.judged()
    gate = GateResult(gate="online_parity", passed=False, reason="'price' of item_profile in 7 of 200 impressions")
    row = {
        "feature": "price", "view": "item_profile", "checked": 200, "differing": 7, "share": 0.035, "largest": 1.5,
        "example": {"impression_id": "m17", "at": "2026-01-16T00:00:00Z", "offline": "3.5", "online": "2.0"},
    }  # fmt: skip
    folder.stage("parity", facts={"passed": False, "gate": gate.model_dump(), "features": [row]})
    record = finish(folder.path, "SUCCEEDED")
    assert (record["status"], record["promoted"], record["version"]) == ("refused", False, None)
    assert record["reasons"] == ["online_parity: 'price' of item_profile in 7 of 200 impressions"]
    assert record["stages"]["package"]["status"] == "skipped"
    decision = Decision.parse(folder.read("decision.json"))
    assert not decision.promote
    assert decision.gates[-1] == gate
    page = (folder.path / "report.html").read_text()
    assert "closed gate: Features online as offline; " in page
    assert "m17 at 2026-01-16T00:00:00Z: 3.5 offline, 2.0 online" in page


@pytest.mark.parametrize("name", ["parity", "smoke_test"])
def test_a_later_stage_without_a_verdict_is_no_evidence(folder: RunFolder, name: str) -> None:
    folder.stages(*UPSTREAM)
    folder.judged()
    folder.stage(name)
    record = finish(folder.path, "SUCCEEDED")
    assert (record["status"], record["promoted"]) == ("refused", False)
    assert f"no evidence: {name} states no verdict" in record["reasons"][0]


def test_a_gate_that_does_not_apply_refuses_nothing(folder: RunFolder) -> None:
    folder.stages(*UPSTREAM)
    folder.judged()
    nothing = GateResult(gate="online_parity", passed=True, applies=False, reason="does not apply: no feature views")
    folder.stage("parity", facts={"gate": nothing.model_dump(), "features": []})
    folder.stage("promote", facts={"version": 1})
    record = finish(folder.path, "SUCCEEDED")
    assert record["status"] == "promoted"
    assert "Features online against offline" not in (folder.path / "report.html").read_text()


def test_a_bento_that_answers_otherwise_makes_the_decision_a_refusal(folder: RunFolder) -> None:
    folder.stages(*UPSTREAM)
    folder.judged()
    folder.stages("package", "materialize")
    gate = GateResult(gate="bento", passed=False, reason="12 answers differ")
    folder.stage("smoke_test", facts={"gate": gate.model_dump()})
    record = finish(folder.path, "SUCCEEDED")
    assert record["status"] == "refused"
    assert record["reasons"] == ["bento: 12 answers differ"]
    decision = Decision.parse(folder.read("decision.json"))
    assert not decision.promote
    assert decision.gates[-1] == gate
    assert "12 answers differ" in (folder.path / "report.html").read_text()


def test_a_failed_stage_gives_its_code_and_message(folder: RunFolder) -> None:
    folder.stages("ingest")
    folder.stage(
        "validate", "failed", code="DataGateClosed", message="2026-01-05 has 30% bad rows", facts={"rows": {"total": 9}}
    )
    record = finish(folder.path, "FAILED")
    assert record["status"] == "failed"
    assert record["code"] == "DataGateClosed"
    assert record["reasons"] == ["validate: 2026-01-05 has 30% bad rows"]
    assert record["stages"]["validate"]["facts"]["rows"] == {"total": 9}
    assert {record["stages"][name]["status"] for name in STAGES[3:] if name != "collect"} == {"skipped"}
    assert not (folder.path / "decision.json").exists()


def test_a_failure_after_the_verdict_is_a_failure_and_the_report_says_so(folder: RunFolder) -> None:
    folder.stages(*UPSTREAM)
    folder.judged()
    folder.stage("package", "failed", code="OSError", message="no space left")
    record = finish(folder.path, "FAILED")
    assert (record["status"], record["promoted"]) == ("failed", False)
    assert "The run failed: package: no space left" in (folder.path / "report.html").read_text()


def test_a_stage_without_a_file_was_cached_if_a_later_one_ran(folder: RunFolder) -> None:
    folder.stages("train-base")
    folder.judged()
    record = finish(folder.path, "SUCCEEDED")
    stages = record["stages"]
    assert {name for name, stage in stages.items() if stage.get("cached")} == {
        *("ingest", "validate", "retrieve", "encode", "train-esmm")
    }
    assert not stages["train-base"]["cached"]
    assert stages["package"]["status"] == "skipped"


def test_a_fully_cached_verdict_is_still_a_verdict(folder: RunFolder, against: Evidence) -> None:
    folder.judged(decide(against, EvaluationConfig(ctr_auc_min=0.9)))
    (folder.path / "evaluate.json").unlink()
    record = finish(folder.path, "SUCCEEDED")
    assert record["status"] == "refused"
    assert record["stages"]["evaluate"] == {"status": "cached", "seconds": None, "cached": True}


def test_a_killed_stage_is_reported_as_such(folder: RunFolder) -> None:
    folder.stages("ingest")
    folder.stage("validate", "running")
    record = finish(folder.path, "FAILED")
    assert record["status"] == "failed"
    assert record["code"] == "Interrupted"
    assert "validate: did not end" in record["reasons"][0]


def test_a_search_that_chose_is_no_decision_and_no_failure(folder: RunFolder) -> None:
    folder.stages("ingest", "validate", "retrieve", "encode", "begin", "suggest-1", "trial-0-rung-0", "tell-1")
    assert finish(folder.path, "SUCCEEDED")["status"] == "failed"
    folder.stage("choose", facts={"best": 0})
    record = finish(folder.path, "SUCCEEDED")
    assert (record["status"], record["promoted"], record["reasons"]) == ("swept", False, [])
    assert record["stages"]["choose"]["facts"] == {"best": 0}
    assert finish(folder.path, "FAILED")["status"] == "failed"


def test_open_gates_without_a_promotion_are_no_success(folder: RunFolder) -> None:
    folder.judged()
    assert finish(folder.path, "SUCCEEDED")["code"] == "NotPromoted"


def test_an_empty_folder_and_a_broken_one_still_get_a_record(tmp_path: Path) -> None:
    empty = tmp_path / "r2"
    empty.mkdir()
    record = finish(empty, "FAILED")
    assert (record["run"], record["status"], record["stages"]) == ("r2", "failed", {})
    assert "outside of any stage" in record["reasons"][0]
    for name, content in (
        ("plan.json", "{"),
        ("evaluation.json", '{"decision": 3}'),
        ("encode.json", "[]"),
        ("x.json", "7"),
    ):
        (empty / name).write_text(content)
    assert finish(empty, "SUCCEEDED")["code"] == "NoDecision"


def test_collect_takes_what_there_is(tmp_path: Path) -> None:
    (tmp_path / "report").write_text("r")
    facts = collect(tmp_path / "none", tmp_path / "report", tmp_path / "nodocs", tmp_path / "q", tmp_path / "run")
    assert facts == {"quarantine": str(tmp_path / "q"), "copied": ["report.html"]}
    assert (tmp_path / "run" / "report.html").read_text() == "r"
    (tmp_path / "q").mkdir()
    (tmp_path / "q" / "profile.json").write_text("{}")
    facts = collect(tmp_path / "none", tmp_path / "report", tmp_path / "nodocs", tmp_path / "q", tmp_path / "run")
    assert facts["copied"] == ["profile.json", "report.html"]
    assert (tmp_path / "run" / "profile.json").read_text() == "{}"
    assert collect(tmp_path / "none", tmp_path / "report", tmp_path, tmp_path, None)["copied"] == ["report.html"]


def test_notification_gets_the_record_and_its_failure_is_only_logged(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    heard = folder.path / "heard by.txt"
    script = f"import sys, pathlib; pathlib.Path({str(heard)!r}).write_text(sys.argv[1] + sys.argv[2])"
    monkeypatch.setenv("ESMM_NOTIFY_COMMAND", shlex.join([sys.executable, "-c", script, "run ended: "]))
    finish(folder.path, "FAILED")
    assert heard.read_text() == f"run ended: {folder.path / 'record.json'}"
    for command, words in (
        ("no-such-command-here", "could not run"),
        ("'", "could not run"),
        ("false", "exited with 1"),
    ):
        caplog.clear()
        monkeypatch.setenv("ESMM_NOTIFY_COMMAND", command)
        with caplog.at_level(logging.WARNING):
            assert finish(folder.path, "FAILED")["status"] == "failed"
        assert words in caplog.text
