"""The run record: what the two uncached shells around the verdict write into the run folder.

`collect` runs after the evaluation, `finish` in the exit handler, whatever happened. Both take what they find: a file
that is missing is a fact about the run, never an error of theirs.
"""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.contracts.artifacts import EVALUATION_JSON
from components.contracts.decision import Decision, Evaluation, GateResult
from components.contracts.errors import DataError, UsageError
from components.contracts.files import read_json, write_json, write_text
from components.contracts.parity import GATE, PARITY
from components.contracts.quality import PROFILE_JSON
from components.contracts.record import FAILED, RUNNING, SUCCEEDED
from components.contracts.times import format_utc
from components.evaluation import report as pages
from components.evaluation.metrics import headline

log = logging.getLogger(__name__)

RECORD_JSON, DECISION_JSON = "record.json", "decision.json"
REPORT_HTML, VALIDATION_HTML = "report.html", "validation.html"
COLLECT = "collect"
"""Name of the shell that copies: `record.json` is the whole run's."""
CHOOSE = "choose"
"""The last stage of a search, which no other run has."""
LATER_GATES = {PARITY: GATE, "smoke_test": "bento"}
"""Stages after the evaluation that end in a gate, in their order, and the gate's name."""

PROMOTED, REFUSED, SWEPT = "promoted", "refused", "swept"
CACHED, SKIPPED = "cached", "skipped"
NOTIFY_VARIABLE = "ESMM_NOTIFY_COMMAND"
NOTIFY_SECONDS = 30.0


def collect(evaluation: Path, report: Path, docs: Path, quarantine: Path, run_dir: Path | None) -> dict[str, Any]:
    """Copies evaluation.json, decision.json, report.html, validation.html and profile.json into the run folder.

    Args:
        evaluation: folder of the evaluate stage; report, docs: HTML files; quarantine: folder of the bad rows.
        run_dir: None outside a run; then nothing is copied.

    Returns:
        Facts: where the quarantined rows lie, and which of the files were there.
    """
    wanted = {
        EVALUATION_JSON: evaluation / EVALUATION_JSON,
        DECISION_JSON: evaluation / DECISION_JSON,
        REPORT_HTML: report,
        VALIDATION_HTML: docs,
        PROFILE_JSON: quarantine / PROFILE_JSON,
    }
    found = {name: source for name, source in wanted.items() if source.is_file()}
    if run_dir is not None:
        run_dir.mkdir(parents=True, exist_ok=True)
        for name, source in found.items():
            shutil.copyfile(source, run_dir / name)
    return {"quarantine": str(quarantine), "copied": sorted(found)}


def finish(run_dir: Path, status: str) -> dict[str, Any]:
    """Writes record.json, the final decision.json and report.html, and notifies.

    Args:
        run_dir: the run's folder; stages have left `<stage>.json` there.
        status: what the pipeline engine says of the run, like "SUCCEEDED" or "FAILED".

    Returns:
        The record. `status` is "promoted", "refused" (both normal ends), "failed", or of a search for a config "swept".
    """
    written = _stage_files(run_dir)
    plan = _facts(written.get("plan"))
    stages = stage_summaries(written, [str(name) for name in plan.get("stages", [])])
    evaluation = _evaluation(run_dir)
    decision = _final_decision(evaluation, written)
    outcome = _outcome(status, stages, decision, written)
    started = [str(stage["started"]) for stage in written.values() if stage.get("started")]
    record: dict[str, Any] = {
        "run": str(plan.get("run") or run_dir.name),
        **outcome,
        "winner": decision.winner if decision else None,
        "champion": decision.champion_version if decision else plan.get("champion"),
        **{key: plan.get(key) for key in ("dataset", "data", "as_of", "recipe", "commit", "config")},
        "code_version": plan.get("code"),
        "data_fingerprint": plan.get("data_fingerprint"),
        "winner_fingerprint": _facts(written.get("evaluate")).get("winner_fingerprint"),
        "candidates": {
            c.name: {"eligible": c.eligible, "reason": c.reason, **headline(c)} for c in evaluation.candidates
        }
        if evaluation
        else {},
        "rows": evaluation.rows.model_dump() if evaluation else {},
        "started": min(started, default=None),
        "ended": format_utc(datetime.now(UTC)),
        "engine": status,
        "stages": stages,
        "decision": decision.model_dump(mode="json") if decision else None,
        "quarantine": _facts(written.get(COLLECT)).get("quarantine"),
    }
    if evaluation is not None and decision is not None:
        write_json(run_dir / DECISION_JSON, record["decision"])
        final = evaluation.model_copy(update={"decision": decision})
        write_text(run_dir / REPORT_HTML, pages.render(final, record))
    write_json(run_dir / RECORD_JSON, record)
    notify(run_dir / RECORD_JSON)
    return record


def stage_summaries(written: Mapping[str, Mapping[str, Any]], planned: list[str]) -> dict[str, dict[str, Any]]:
    """Every planned stage, then any other that left a file: status, seconds, cached, code, message, facts.

    A planned stage without a file was reused from the cache if a later one ran, and never started otherwise.
    """
    ran = [index for index, name in enumerate(planned) if name in written]
    last = max(ran, default=-1)
    summaries: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(planned):
        if name in written:
            summaries[name] = _summary(written[name])
        else:
            cached = index < last
            summaries[name] = {"status": CACHED if cached else SKIPPED, "seconds": None, "cached": cached}
    return summaries | {name: _summary(stage) for name, stage in written.items() if name not in planned}


def _summary(stage: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: stage[key] for key in ("status", "seconds", "code", "message", "facts") if key in stage}
    return {"status": "unknown", "seconds": None, "cached": False, **kept}


def _outcome(
    engine: str, stages: Mapping[str, Mapping[str, Any]], decision: Decision | None, written: Mapping[str, Any]
) -> dict[str, Any]:
    """Status, promoted, version and reasons of the run."""
    failed = {name: stage for name, stage in stages.items() if stage["status"] == FAILED}
    unfinished = {name: stage for name, stage in stages.items() if stage["status"] == RUNNING}
    version = _facts(written.get("promote")).get("version")
    if failed or unfinished or engine.upper() != "SUCCEEDED":
        reasons = [f"{name}: {stage.get('message', 'failed')}" for name, stage in failed.items()]
        reasons += [f"{name}: did not end, its process was stopped" for name in unfinished if not failed]
        reasons = reasons or [f"the pipeline ended as {engine} outside of any stage: see kfp.log in the run folder"]
        first = next(iter(failed.values()), {})
        code = first.get("code") or ("Interrupted" if unfinished else "PipelineFailed")
        return _end(FAILED, reasons, version if stages.get("promote", {}).get("status") == SUCCEEDED else None, code)
    if version is not None:
        return _end(PROMOTED, list(decision.reasons) if decision else [], int(version))
    if stages.get(CHOOSE, {}).get("status") == SUCCEEDED:
        return _end(SWEPT, [], None)
    if decision is None:
        return _end(FAILED, ["the run ended without a decision: see kfp.log in the run folder"], None, "NoDecision")
    if decision.promote:
        reason = "every gate is open, but the run ended without promoting: see kfp.log in the run folder"
        return _end(FAILED, [reason], None, "NotPromoted")
    return _end(REFUSED, list(decision.reasons), None)


def _end(status: str, reasons: list[str], version: int | None, code: str | None = None) -> dict[str, Any]:
    ended = {"status": status, "promoted": version is not None, "reasons": reasons, "version": version}
    return ended if code is None else {**ended, "code": code, "message": "; ".join(reasons)}


def _final_decision(evaluation: Evaluation | None, written: Mapping[str, Any]) -> Decision | None:
    """The evaluation's decision, with the gates of later stages added: parity of features, and the Bento's answers."""
    if evaluation is None:
        return None
    later = [gate for stage, name in LATER_GATES.items() if (gate := _later_gate(written.get(stage), stage, name))]
    closed = tuple(f"{gate.gate}: {gate.reason}" for gate in later if gate.applies and not gate.passed)
    decision = evaluation.decision
    return decision.model_copy(
        update={
            "promote": decision.promote and not closed,
            "reasons": closed or decision.reasons,
            "gates": (*decision.gates, *later),
        }
    )


def _later_gate(stage: Mapping[str, Any] | None, name: str, gate: str) -> GateResult | None:
    """None if the stage did not come to its end. One that did and states no verdict is no evidence, so closed."""
    found = _facts(stage).get("gate")
    if isinstance(found, dict):
        return GateResult.parse(found, where=f"{name}.json")
    if stage is None or stage.get("status") != SUCCEEDED:
        return None
    return GateResult(gate=gate, passed=False, reason=f"no evidence: {name} states no verdict, the gate stays closed")


def _evaluation(run_dir: Path) -> Evaluation | None:
    path = run_dir / EVALUATION_JSON
    try:
        return Evaluation.parse(path.read_bytes(), where=str(path)) if path.is_file() else None
    except UsageError as error:
        log.warning("%s", error)
        return None


def _stage_files(run_dir: Path) -> dict[str, dict[str, Any]]:
    """The stages' own records by name, in order of their start. Other JSON files of the folder are left alone."""
    found: list[dict[str, Any]] = []
    for path in sorted(run_dir.glob("*.json")):
        try:
            content = read_json(path)
        except DataError as error:
            log.warning("%s", error)
            continue
        if isinstance(content, dict) and content.get("stage") == path.stem and "status" in content:
            found.append(content)
    return {str(stage["stage"]): stage for stage in sorted(found, key=lambda stage: str(stage.get("started", "")))}


def _facts(stage: Mapping[str, Any] | None) -> dict[str, Any]:
    facts = (stage or {}).get("facts")
    return facts if isinstance(facts, dict) else {}


def notify(record: Path) -> None:
    """Runs $ESMM_NOTIFY_COMMAND, if set, with the record's path as its last argument. A failure is logged, no more."""
    command = os.environ.get(NOTIFY_VARIABLE, "").strip()
    if not command:
        return
    try:
        done = subprocess.run(
            [*shlex.split(command), str(record)], timeout=NOTIFY_SECONDS, capture_output=True, text=True
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        log.warning("%s could not run: %s", NOTIFY_VARIABLE, error)
        return
    if done.returncode != 0:
        log.warning("%s exited with %d: %s", NOTIFY_VARIABLE, done.returncode, done.stderr.strip()[-500:])
