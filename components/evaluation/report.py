"""The report: one HTML file that needs nothing else, made from evaluation.json (and the run record, once it exists)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from components.contracts.decision import Candidate, Evaluation, GateResult
from components.contracts.parity import PARITY, FeatureParity
from components.evaluation import plots
from components.evaluation.data_section import data_section
from components.evaluation.gates import GATES
from components.evaluation.metrics import headline

TEMPLATE = "report.html"

AUCS = (("ctr_auc", "CTR"), ("cvr_auc_clicked", "CVR, over clicked"), ("ctcvr_auc", "CTCVR"))
LOSSES = (("ctr_log_loss", "CTR"), ("cvr_log_loss_clicked", "CVR, over clicked"), ("ctcvr_log_loss", "CTCVR"))
RATIOS = (
    ("ctr_calibration", "pCTR"),
    ("cvr_calibration_clicked", "pCVR, over clicked"),
    ("ctcvr_calibration", "pCTCVR"),
)
TRUTH = (
    ("entire_space_cvr_auc", "AUC, expected", 4),
    ("entire_space_cvr_log_loss", "log loss to truth (nats)", 5),
    ("entire_space_cvr_excess", "of it above the truth's own (nats)", 5),
    ("entire_space_cvr_ratio", "mean predicted / mean true", 3),
)
GATE_WORDS = {
    "minimum_quality": "Minimum quality",
    "calibration": "Calibration",
    "parity": "Parity of ONNX and eager",
    "as_of_order": "As-of order",
    "overlap": "No overlap with the champion's data",
    "not_identical": "Not identical to the champion",
    "non_inferiority": "Non-inferiority to the champion",
    "online_parity": "Features online as offline",
    "bento": "Bento answers like the model",
}


def render(evaluation: Evaluation, run: Mapping[str, Any] | None = None) -> str:
    """The page as text; the same for the same input.

    Args:
        run: the run record (record.json), whose status, later gates and stages are then shown as well.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    decision, sections, (comparisons, figures) = evaluation.decision, _sections(evaluation), _figures(evaluation)
    return environment.get_template(TEMPLATE).render(
        evaluation=evaluation,
        decision=decision,
        verdict=verdict(evaluation, run),
        gates=[_gate(gate) for gate in decision.gates],
        columns=_columns(evaluation),
        sections=[section for section in sections if not section["more"]],
        more=[section for section in sections if section["more"]],
        calibration=_calibration(evaluation),
        ineligible=[candidate for candidate in evaluation.candidates if not candidate.eligible],
        data=data_section(evaluation.quality),
        rows=_rows(evaluation),
        ranges=_ranges(evaluation),
        comparisons=comparisons,
        figures=figures,
        run=run,
        parity=_parity(run),
        stages=_stages(run),
    )


def verdict(evaluation: Evaluation, run: Mapping[str, Any] | None = None) -> dict[str, str]:
    """One sentence, and the state it stands for: good (promoted), open (fit to promote), bad (refused, failed)."""
    decision = evaluation.decision
    closed = [_word(gate.gate) for gate in decision.gates if gate.applies and not gate.passed]
    against = f"champion version {decision.champion_version}" if decision.champion_version is not None else None
    if run and run.get("status") == "failed":
        reason = "; ".join(str(reason) for reason in run.get("reasons", [])) or "see the stages below"
        return {"state": "bad", "word": "Failed", "sentence": f"The run failed: {reason}"}
    if run and run.get("promoted"):
        replaced = f" in place of version {decision.champion_version}" if against else ", the first one"
        return {
            "state": "good",
            "word": "Promoted",
            "sentence": f"{decision.winner} is champion version {run.get('version')}{replaced}.",
        }
    if decision.winner is None:
        return {"state": "bad", "word": "Refused", "sentence": "No candidate was eligible, so nothing was promoted."}
    if closed or not decision.promote:
        kept = f"; {against} keeps serving" if against else "; nothing serves yet"
        gates = f"closed gate{'s' if len(closed) > 1 else ''}: {', '.join(closed)}"
        which = gates if closed else "; ".join(decision.reasons)
        return {"state": "bad", "word": "Refused", "sentence": f"{decision.winner} is not promoted, {which}{kept}."}
    compared = f"in comparison with {against}" if against else "and there is no champion yet"
    return {
        "state": "open",
        "word": "Gates open",
        "sentence": f"{decision.winner} passed every gate {compared}; features online and the Bento are tested next.",
    }


def _word(gate: str) -> str:
    return GATE_WORDS.get(gate, gate.replace("_", " ").capitalize())


def _gate(gate: GateResult) -> dict[str, str]:
    state = ("open" if gate.passed else "closed") if gate.applies else "not applied"
    protects = next((known.protects for known in GATES if known.name == gate.gate), "")
    return {"name": _word(gate.gate), "state": state, "reason": gate.reason, "protects": protects}


def _models(evaluation: Evaluation) -> list[Candidate]:
    champion = [evaluation.champion] if evaluation.champion else []
    return [model for model in (*evaluation.candidates, *champion) if model.eligible]


def _columns(evaluation: Evaluation) -> list[dict[str, Any]]:
    names = [candidate.name for candidate in evaluation.candidates]
    columns = [
        {
            "name": model.name,
            "winner": model is not evaluation.champion and model.name == evaluation.decision.winner,
            "colour": plots.colour(names.index(model.name)) if model is not evaluation.champion else "currentColor",
        }
        for model in _models(evaluation)
    ]
    return [*columns, {"name": "oracle", "winner": False, "colour": ""}] if evaluation.oracle else columns


def _sections(evaluation: Evaluation) -> list[dict[str, Any]]:
    """The table of models side by side: titled groups of rows, a cell a column of `_columns`."""
    models, truth = _models(evaluation), evaluation.oracle
    if not models:
        return []

    def group(
        title: str, kind: str, keys: tuple[tuple[str, str], ...], digits: int, suffix: str, more: bool = False
    ) -> dict[str, Any]:
        rows = []
        for key, label in keys:
            cells = [_number(getattr(getattr(model, kind), key, None), digits) for model in models]
            if truth:
                cells.append(
                    _number(truth.get(f"{key}{suffix}", truth.get(key) if key.startswith("cvr") else None), digits)
                )
            rows.append({"label": label, "cells": cells})
        return {"title": title, "rows": rows, "more": more}

    groups = [
        group("AUC, reference position (how serving ranks)", "test", AUCS, 4, ""),
        group("Log loss, logged position (nats)", "test_logged", LOSSES, 5, "_logged"),
        group("Predicted / observed, logged position", "test_logged", RATIOS, 3, "_none"),
        group("AUC, logged position", "test_logged", AUCS, 4, "_logged", more=True),
        group("Predicted / observed, reference position", "test", RATIOS, 3, "_none", more=True),
        group("Validation log loss (nats)", "validation", LOSSES, 5, "_none", more=True),
    ]
    chooses = [_number(model.validation_loss, 5) for model in models] + ["–"] * bool(truth)
    groups[-1]["rows"].append({"label": "CTCVR, cross-fitted calibration (chooses)", "cells": chooses})
    if truth:
        # Inserted from the back: shares right after the AUCs, exact truth after log loss and calibration.
        shares = []
        for key, label in AUCS:
            if truth.get(key, 0.5) > 0.5:
                cells = [_share(getattr(model.test, key, None), truth[key]) for model in models]
                shares.append({"label": label, "cells": [*cells, "100%"]})
        exact = [
            {
                "label": label,
                "cells": [
                    *(_number(model.truth.get(key), digits) for model in models),
                    _number(truth.get(key), digits),
                ],
            }
            for key, label, digits in TRUTH
        ]
        groups.insert(
            3, {"title": "pCVR over all impressions, against the simulator's truth", "rows": exact, "more": False}
        )
        groups.insert(1, {"title": "Share of the oracle's AUC above chance", "rows": shares, "more": False})
    return groups


def _calibration(evaluation: Evaluation) -> dict[str, Any] | None:
    """How pCVR of each model was calibrated, and its figures on the clicks it was fitted on, before and after."""
    rows = []
    for model in _models(evaluation):
        found, before, after = model.calibration, model.uncalibrated, model.validation
        if found is None:
            continue
        how = {"none": "none", "platt": f"Platt: {found.parameters}", "isotonic": f"isotonic: {found.parameters}"}
        figures = (
            _number(before.get("cvr_calibration_clicked"), 3),
            _number(after.cvr_calibration_clicked if after else None, 3),
            _number(before.get("cvr_log_loss_clicked"), 5),
            _number(after.cvr_log_loss_clicked if after else None, 5),
        )
        on = found.fitted_on if found.kind != "none" else "–"
        rows.append([model.name, how[found.kind], on, *figures])
    header = ["Model", "Calibration", "Fitted on", "Ratio before", "after", "Log loss before", "after"]
    notes = [f"{m.name}: {m.calibration.note}." for m in _models(evaluation) if m.calibration and m.calibration.note]
    return {"header": header, "rows": rows, "notes": notes} if rows else None


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _share(auc: float | None, best: float) -> str:
    return "–" if auc is None else f"{(auc - 0.5) / (best - 0.5):.0%}"


def _rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    words = {
        "train": "training",
        "valid": "validation (chooses)",
        "test": "test (judges)",
        "gap": "gap between training and validation",
        "immature": "immature (label window still open)",
        "quarantined": "quarantined (bad rows)",
        "invisible": "invisible (not before as-of)",
    }
    counts = evaluation.rows.model_dump()
    total = max(counts["total"], 1)
    return [
        {"label": label, "count": f"{counts[key]:,}", "share": 100 * counts[key] / total}
        for key, label in words.items()
    ]


def _ranges(evaluation: Evaluation) -> list[tuple[str, str]]:
    by_hash = " of the hash space of users" if evaluation.ranges.kind == "hash" else ""
    published = evaluation.ranges.kind == "published"  # train and validation lie in one time and differ by user
    users = (", most of its users", ", its other users") if published else ("", "")
    return [
        (word, f"[{low}, {high}){by_hash}{which}")
        for word, (low, high), which in (
            ("training", evaluation.ranges.train, users[0]),
            ("validation", evaluation.ranges.valid, users[1]),
            ("test", evaluation.ranges.test, ""),
        )
    ]


def _figures(evaluation: Evaluation) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Figures that carry the verdict, shown before the table, and figures that explain it."""
    data = evaluation.plots
    names = [candidate.name for candidate in evaluation.candidates]
    aucs = {candidate.name: headline(candidate) for candidate in evaluation.candidates}
    champion = headline(evaluation.champion) if evaluation.champion else {}
    history = {name: data.get("history", {}).get(name, []) for name in names}
    first = [
        (
            "Against the champion",
            plots.non_inferiority(_comparison(evaluation), data.get("limits", {})),
            "Paired bootstrap over users, same test rows. The gate asks that the whole bar stay left of its margin.",
        ),
        ("Ranking", plots.auc_dots(aucs, champion, evaluation.oracle), ""),
    ]
    then = [
        (
            "Reliability",
            plots.reliability(data.get("reliability", {}), names),
            "Test split, logged position, bins of equal numbers of rows. On the dashed line predictions come true.",
        ),
        ("Training", plots.training_curves(history), ""),
    ]
    # The figures are our own SVG, whose text matplotlib has escaped; everything else on the page is escaped by jinja.
    shown = [
        [{"title": title, "svg": Markup(svg), "caption": caption} for title, svg, caption in drawn if svg]
        for drawn in (first, then)
    ]
    return shown[0], shown[1]


def _comparison(evaluation: Evaluation) -> Mapping[str, Any] | None:
    found = [gate.evidence for gate in evaluation.decision.gates if gate.gate == "non_inferiority"]
    return found[0] if found else None


def _parity(run: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """What the parity stage compared: a row a stored feature, those that differ first. None if it did not run."""
    stage = (run or {}).get("stages", {}).get(PARITY, {})
    found = [FeatureParity.parse(row, where=PARITY) for row in stage.get("facts", {}).get("features", [])]
    if not found:
        return None
    rows = [
        [
            *(row.feature, row.view, f"{row.checked:,}", f"{row.differing:,}", f"{row.share:.2%}"),
            "–" if row.largest is None else f"{row.largest:g}",
            row.example.says if row.example else "",
        ]
        for row in sorted(found, key=lambda row: not row.differing)
    ]
    header = ["Feature", "View", "Checked", "Differing", "Share", "Largest", "Example"]
    return {"header": header, "rows": rows, "differs": any(row.differing for row in found)}


def _stages(run: Mapping[str, Any] | None) -> list[dict[str, str]]:
    if not run:
        return []
    listed = []
    for name, stage in run.get("stages", {}).items():
        seconds = stage.get("seconds")
        status = "reused" if stage.get("cached") else str(stage.get("status", ""))
        listed.append(
            {
                "name": name,
                "status": status,
                "seconds": "" if seconds is None else f"{seconds:.1f}",
                "message": str(stage.get("message") or ""),
            }
        )
    return listed
