"""What evaluation concludes: metrics, gates and the decision, as written to evaluation.json and decision.json."""

from __future__ import annotations

from typing import Any

from components.contracts.artifacts import Ranges, Rows
from components.contracts.calibration import Calibration
from components.contracts.config import Config
from components.contracts.quality import Quality


class Metrics(Config):
    """One model on one split, at one position. Log losses in nats; calibration = sum predicted / sum observed.

    `cvr_*_clicked` are over *clicked* impressions only; `ctcvr_*` over all. AUC is None when one class is absent.
    """

    rows: int
    clicks: int
    conversions: int
    ctr_auc: float | None
    cvr_auc_clicked: float | None
    ctcvr_auc: float | None
    ctr_log_loss: float
    cvr_log_loss_clicked: float | None
    ctcvr_log_loss: float
    ctr_calibration: float | None
    cvr_calibration_clicked: float | None
    ctcvr_calibration: float | None


class GateResult(Config):
    """One gate's verdict. `applies` False: not part of this decision (first run), which the reason says."""

    gate: str
    passed: bool
    applies: bool = True
    reason: str
    evidence: dict[str, Any] = {}


class ChampionRef(Config):
    """The champion a run was planned against. `source` is its model folder."""

    version: int
    source: str
    run: str = ""


class Decision(Config):
    """decision.json. `promote` is what evaluation concluded; later gates (the Bento) can still refuse."""

    promote: bool
    winner: str | None
    champion_version: int | None
    reasons: tuple[str, ...]
    gates: tuple[GateResult, ...]


class Candidate(Config):
    """One candidate as evaluated. Metrics are None when it is ineligible (the reason says why)."""

    name: str
    eligible: bool
    reason: str = ""
    calibration: Calibration | None = None
    """Of pCVR, as its graph computes it; all metrics are of the calibrated model."""
    uncalibrated: dict[str, float] = {}
    """What training measured before calibration, of pCVR over clicked validation impressions: cvr_log_loss_clicked,
    cvr_calibration_clicked."""
    validation_loss: float | None = None
    """CTCVR log loss on validation in nats, each row calibrated without its fold: the lowest is the winner."""
    validation: Metrics | None = None
    test: Metrics | None = None
    """At the reference position: what serving will do."""
    test_logged: Metrics | None = None
    """At the logged position."""
    truth: dict[str, float] = {}
    """Against the simulator's truth: entire_space_cvr_auc, entire_space_cvr_log_loss, ..."""


class Evaluation(Config):
    """evaluation.json: all the report needs."""

    decision: Decision
    candidates: tuple[Candidate, ...]
    champion: Candidate | None = None
    oracle: dict[str, float] = {}
    """Truth scored as if it were a model: ctr_auc, ctcvr_auc, cvr_auc_clicked at reference position."""
    rows: Rows
    ranges: Ranges
    as_of: str
    dataset: str
    notes: tuple[str, ...] = ()
    quality: Quality = Quality()
    """What ingestion and validation found, from the dataset's manifest."""
    plots: dict[str, Any] = {}
    """Training history and reliability points by candidate, for the report."""
