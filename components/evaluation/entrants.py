"""The models that compete: what training left in each model folder, and their scores of validation and test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.contracts.artifacts import METRICS_JSON, ModelInfo, model_identity, read_model
from components.contracts.decision import Candidate, ChampionRef
from components.contracts.errors import DataError
from components.contracts.files import read_json
from components.evaluation.comparison import Scored
from components.evaluation.evidence import ChampionEvidence, Parity
from components.evaluation.metrics import entire_space, metrics, reliability
from components.evaluation.scored import Model, Split, score_split
from components.evaluation.truth import Truth

Load = Callable[[Path], Model]


def load_scorer(folder: Path) -> Model:
    """The real thing: onnxruntime on the model folder. Imported here, so that tests with fakes need no runtime."""
    from components.scoring.score import Scorer

    return Scorer(folder)


@dataclass(frozen=True)
class Entrant:
    """A candidate's model folder. `recorded` is metrics.json as training wrote it."""

    name: str
    folder: Path
    info: ModelInfo
    recorded: dict[str, Any]

    @property
    def eligible(self) -> bool:
        return self.recorded.get("eligible") is True

    @property
    def reason(self) -> str:
        given = str(self.recorded.get("reason") or "")
        return given or ("" if self.eligible else "its metrics.json does not call it eligible")


@dataclass(frozen=True)
class Judged:
    """An entrant with its scores."""

    entrant: Entrant
    candidate: Candidate
    scored: Scored


def read_entrant(folder: Path) -> Entrant:
    """Raises DataError if the folder is no model or its metrics.json cannot be read."""
    info = read_model(folder, verify=True)
    recorded = read_json(folder / METRICS_JSON)
    if not isinstance(recorded, dict):
        raise DataError(f"{folder / METRICS_JSON} holds no JSON object: train the candidate again")
    return Entrant(info.candidate, folder, info, recorded)


def ineligible(entrant: Entrant, reason: str = "") -> Candidate:
    return Candidate(name=entrant.name, eligible=False, reason=reason or entrant.reason)


def judge(entrant: Entrant, model: Model, valid: Split, test: Split, truth: Truth | None) -> Judged:
    """Scores one candidate: validation at the logged position (for choosing), test at both (for judging).

    Raises:
        NotProbabilities: if its scores are none.
    """
    scores = score_split(model, valid, ["logged"])["logged"]
    validation = metrics(scores, valid.outcome)
    candidate, scored = _on_test(entrant.name, entrant.info, model, test, truth)
    before = _mapping(entrant.recorded.get("uncalibrated"))
    found = {name: _number(before.get(name)) for name in ("cvr_log_loss_clicked", "cvr_calibration_clicked")}
    cross_fitted = _number(entrant.recorded.get("cross_fitted_ctcvr_log_loss"))
    measured = {
        "validation": validation,
        "validation_loss": validation.ctcvr_log_loss if cross_fitted is None else cross_fitted,
        "uncalibrated": {name: value for name, value in found.items() if value is not None},
    }
    return Judged(entrant, candidate.model_copy(update=measured), scored)


def _on_test(name: str, info: ModelInfo, model: Model, test: Split, truth: Truth | None) -> tuple[Candidate, Scored]:
    scores = score_split(model, test, ["reference", "logged"])
    scored = Scored(logged=scores["logged"], reference=scores["reference"])
    candidate = Candidate(
        name=name,
        eligible=True,
        calibration=info.calibration,
        test=metrics(scored.reference, test.outcome),
        test_logged=metrics(scored.logged, test.outcome),
        truth=entire_space(scored.reference.pcvr, truth.conversion_do_click) if truth else {},
    )
    return candidate, scored


def judge_champion(
    reference: ChampionRef, load: Load, test: Split, truth: Truth | None
) -> tuple[ChampionEvidence, Candidate, Scored | None]:
    """Scores the champion on the same rows, with its own encoder and features.

    A champion that cannot be read or scored is no reason to fail the run, and none to open a gate: the error is
    returned as evidence, and every comparison gate closes on it.
    """
    folder, name = Path(reference.source), f"champion v{reference.version}"
    try:
        info = read_model(folder, verify=True)
        candidate, scored = _on_test(name, info, load(folder), test, truth)
        evidence = ChampionEvidence(reference.version, info, model_identity(folder))
    except (
        Exception
    ) as error:  # onnxruntime's errors share no other base; nothing is lost, it becomes the gates' reason
        message = f"{type(error).__name__}: {error}"
        lost = Candidate(name=name, eligible=False, reason=message)
        return ChampionEvidence(reference.version, error=message), lost, None
    return evidence, candidate, scored


def choose(judged: list[Judged]) -> Judged:
    """The lowest CTCVR log loss on validation; between equals the first by name. The test split has no say.

    The loss is of calibrated models, cross-fitted where training recorded it: what calibration learnt of the noise of
    validation must not choose (docs/adr/0009).
    """
    return min(judged, key=lambda j: (_chooses(j.candidate), j.candidate.name))


def _chooses(candidate: Candidate) -> float:
    return candidate.validation_loss if candidate.validation_loss is not None else float("inf")


def parity_evidence(judged: Judged) -> Parity:
    """What training recorded on export, beside what was measured here through the ONNX graph."""
    recorded = judged.entrant.recorded
    return Parity(
        recorded=_number(recorded.get("onnx_difference")),
        eager_log_loss=_number(_mapping(recorded.get("validation")).get("ctcvr_log_loss")),
        onnx_log_loss=judged.candidate.validation.ctcvr_log_loss if judged.candidate.validation else None,
    )


def history(entrant: Entrant) -> list[dict[str, float]]:
    """Evaluations inside the training pass, for the curves: rows seen and validation log losses, if finite."""
    points = entrant.recorded.get("history") or []
    names = {"rows": "rows", "valid_ctr_log_loss": "ctr_log_loss", "valid_ctcvr_log_loss": "ctcvr_log_loss"}
    kept = [{ours: _number(_mapping(point).get(theirs)) for theirs, ours in names.items()} for point in points]
    return [{key: value for key, value in point.items() if value is not None} for point in kept]


def reliability_points(scored: Scored, test: Split) -> dict[str, list[dict[str, float]]]:
    """Reliability of each head at the logged position; pCVR over clicked rows only."""
    click, conversion = test.outcome.click, test.outcome.conversion
    return {
        "ctr": reliability(scored.logged.pctr, click),
        "cvr_clicked": reliability(scored.logged.pcvr[click], conversion[click], bins=8),
        "ctcvr": reliability(scored.logged.pctcvr, conversion),
    }


def _mapping(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _number(value: object) -> float | None:
    """A finite number, or None: NaN and text are no evidence."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if abs(value) < float("inf") else None
