"""What a finished run tells a person (text) and a script (JSON), from the run folder alone; progress meanwhile."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from components.contracts.artifacts import EVALUATION_JSON
from components.contracts.decision import Candidate, Decision, Evaluation
from components.contracts.errors import DataError
from components.contracts.files import read_json
from components.contracts.paths import Home
from components.contracts.quality import Quality
from components.evaluation.metrics import headline

BAR = "{percentage:3.0f}% |{bar}| {n_fmt}/{total_fmt} stages, {elapsed}"
METRICS = (
    "ctr_auc",
    "cvr_auc_clicked",
    "ctcvr_auc",
    "ctr_log_loss",
    "cvr_log_loss_clicked",
    "ctcvr_log_loss",
    "ctr_calibration",
    "cvr_calibration_clicked",
    "ctcvr_calibration",
)


def exit_code(record: dict[str, Any]) -> int:
    """0: a decision was reached, promoted or refused. 1: the data gate closed or a stage failed. 2: bad usage."""
    if record["status"] != "failed":
        return 0
    usage = {"UsageError", "FeatureSpecError"}
    return 2 if any(s.get("code") in usage for s in record["stages"].values()) else 1


def result(run_dir: Path) -> dict[str, Any]:
    """The object that `esmm run --json` prints; paths are None where the run ended before them."""
    record = read_json(run_dir / "record.json")
    evaluation = _evaluation(run_dir)
    stages: dict[str, dict[str, Any]] = record["stages"]
    return {
        "run": record["run"],
        "status": record["status"],
        "promoted": record["promoted"],
        "reasons": record["reasons"],
        "winner": record["winner"],
        "version": record["version"],
        "candidates": {c.name: candidate_metrics(c) for c in evaluation.candidates} if evaluation else {},
        "calibration": calibration(evaluation, record["winner"]) if evaluation else None,
        "rows": rows(evaluation, stages),
        "data": data_quality(evaluation.quality) if evaluation else None,
        "report": _existing(run_dir, "report.html", "validation.html"),
        "decision": _existing(run_dir, "decision.json"),
        "seconds": {name: stage["seconds"] for name, stage in stages.items() if stage.get("seconds") is not None},
        "cached": [name for name, stage in stages.items() if stage.get("cached")],
    }


def candidate_metrics(candidate: Candidate) -> dict[str, float | None]:
    """On test: AUCs at the reference position (how serving ranks), log losses and calibration at the logged one (where
    the labels happened). None for what cannot be computed, and for an ineligible candidate."""
    found = headline(candidate)
    return {name: found.get(name) for name in METRICS}


def calibration(evaluation: Evaluation, winner: str | None) -> str | None:
    """How pCVR of the winner was calibrated, and on what; None without a winner."""
    return next((c.calibration.says for c in evaluation.candidates if c.name == winner and c.calibration), None)


def rows(evaluation: Evaluation | None, stages: dict[str, dict[str, Any]]) -> dict[str, int]:
    """Row accounting, from the evaluation, or from the last stage that counted when there is none."""
    counted: dict[str, int] = evaluation.rows.model_dump() if evaluation else {}
    if not counted:
        for name in ("ingest", "validate", "retrieve"):
            found = stages.get(name, {}).get("facts", {}).get("rows")
            counted |= found if isinstance(found, dict) else {}
    names = {"in": "total", "quarantined": "quarantined", "immature": "immature"}
    names |= {name: name for name in ("train", "valid", "test")}
    return {ours: counted.get(theirs, 0) for ours, theirs in names.items()}


def data_quality(quality: Quality) -> dict[str, Any]:
    """Rows set aside, whether drift was judged and against what, and the estimated share of conversions to come."""
    return {
        "rows": sum(day.rows for day in quality.days),
        "quarantined": sum(day.bad for day in quality.days),
        "drift_measures": len(quality.drift),
        "drift_beyond": [measure.says for measure in quality.drift if not measure.passed],
        "drift": quality.reference,
        "share_to_come": quality.maturity.share_to_come if quality.maturity else None,
    }


def data_line(found: dict[str, Any]) -> str:
    """The same in one line for a person."""
    parts = [f"{found['quarantined']:,} of {found['rows']:,} rows quarantined"]
    if found["drift_measures"]:
        parts.append(f"drift: {len(found['drift_beyond'])} of {found['drift_measures']} measures beyond their limits")
    else:
        parts.append("drift not judged (see the report)")
    if found["share_to_come"] is not None:
        parts.append(f"{found['share_to_come']:.1%} of conversions still to come")
    return "data: " + ", ".join(parts)


def text(result: dict[str, Any], home: Home) -> str:
    """The end of `esmm run`: candidates, decision, report and the next command to type."""
    lines = [""]
    if result["candidates"]:
        lines.append(
            f"{'candidate':12} {'CTR AUC':>8} {'CVR AUC*':>9} {'CTCVR AUC':>10} {'CTCVR loss':>11} {'calibration':>12}"
        )
        for name, m in result["candidates"].items():
            mark = " <- winner" if name == result["winner"] else ""
            lines.append(
                f"{name:12} {_f(m['ctr_auc'], 8)} {_f(m['cvr_auc_clicked'], 9)} {_f(m['ctcvr_auc'], 10)} "
                f"{_f(m['ctcvr_log_loss'], 11, 5)} {_f(m['ctcvr_calibration'], 12, 3)}{mark}"
            )
        lines.append("(test split; AUCs at the reference position; * over clicked impressions only)")
    if result["calibration"]:
        lines.append(f"{result['winner']}: {result['calibration']}")
    lines += gate_lines(result["decision"])
    lines.append("rows: " + ", ".join(f"{name} {count:,}" for name, count in result["rows"].items()))
    if result["data"]:
        lines.append(data_line(result["data"]))
    if result["cached"]:
        lines.append("reused from the cache: " + ", ".join(result["cached"]))
    if result["status"] == "failed":
        lines.append("FAILED")
    elif result["promoted"]:
        lines.append(f"PROMOTED: {result['winner']} is champion, version {result['version']}")
    else:
        lines.append("REFUSED: nothing was promoted")
    lines += [f"  - {reason}" for reason in result["reasons"]]
    home_option = "" if home.root == Path("var").resolve() else f"--home {home.root} "
    esmm = command()
    lines.append(f"report: {result['report'] or '(none)'}")
    if result["status"] == "failed":
        lines.append(
            f"record: {home.runs / result['run'] / 'record.json'}, log: {home.runs / result['run'] / 'kfp.log'}"
        )
    else:
        lines.append(f"next: {esmm} {home_option}serve    then: {esmm} rank --user U --items A,B,C")
    return "\n".join(lines)


def gate_lines(decision: str | None) -> list[str]:
    """A line each for open, closed and not applicable gates, from decision.json."""
    if decision is None:
        return []
    by_state: dict[str, list[str]] = {"closed": [], "open": [], "not applicable": []}
    for gate in Decision.parse(Path(decision).read_bytes(), where=decision).gates:
        state = "not applicable" if not gate.applies else "open" if gate.passed else "closed"
        by_state[state].append(gate.gate)
    return [f"gates {state}: {', '.join(names)}" for state, names in by_state.items() if names]


def command() -> str:
    """How the person reached this command, to be typed again: `esmm`, or its path where it is not on the PATH."""
    used = Path(sys.argv[0])
    if used.name != "esmm" or shutil.which("esmm") == str(used.resolve()):
        return "esmm"
    return os.path.relpath(used) if used.is_relative_to(Path.cwd()) else str(used)


def _f(value: float | None, width: int, digits: int = 4) -> str:
    return f"{'-':>{width}}" if value is None else f"{value:{width}.{digits}f}"


def _existing(folder: Path, *names: str) -> str | None:
    return next((str(folder / name) for name in names if (folder / name).is_file()), None)


def _evaluation(run_dir: Path) -> Evaluation | None:
    path = run_dir / EVALUATION_JSON
    return Evaluation.parse(path.read_bytes(), where=str(path)) if path.is_file() else None


class Progress:
    """A line on stderr when a stage starts or ends and, on a terminal, a bar over the planned stages.

    Called with the run folder while the run goes on.
    """

    def __init__(self) -> None:
        self.shown: dict[str, str] = {}
        self.planned: list[str] = []
        self.bar = tqdm(total=0, unit="stage", file=sys.stderr, disable=None, leave=False, bar_format=BAR)

    def __call__(self, run_dir: Path) -> None:
        for path in sorted(run_dir.glob("*.json"), key=lambda p: p.stat().st_mtime):
            try:
                stage = read_json(path)
            except DataError:
                continue
            if isinstance(stage, dict) and stage.get("stage") and self.shown.get(stage["stage"]) != stage["status"]:
                self.shown[stage["stage"]] = stage["status"]
                self._say(stage)
        self.bar.refresh()
        if (run_dir / "record.json").is_file():
            self.bar.close()

    def _say(self, stage: dict[str, Any]) -> None:
        name, status = stage["stage"], stage["status"]
        if status == "running":
            tqdm.write(f"  ... {name}", file=sys.stderr)
            return
        if status == "succeeded":
            tqdm.write(f"  ok  {name} ({stage['seconds']:.1f} s)", file=sys.stderr)
        else:
            tqdm.write(f"  NOT {name}: {stage['message']}", file=sys.stderr)
        self.planned = stage.get("facts", {}).get("stages") or self.planned
        self.bar.total = len(self.planned)
        # A search plans its rounds, and its trials as it goes.
        self.bar.n = sum(self.shown.get(name, "running") != "running" for name in self.planned)
