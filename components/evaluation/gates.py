"""The gates. Each is a pure function from evidence to a decision whose reason gives figures and limits.

A gate that lacks what it decides on raises NoEvidence, and `decide` turns that into a closed gate: silence never opens
one. Gates marked `comparison` apply only where there is a champion. `GATES` is the registry: docs, report and
tests read it, so that a new gate cannot stay undocumented or without a fixture that must fail it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from components.contracts.artifacts import ModelInfo, Ranges
from components.contracts.config import Config
from components.contracts.decision import Decision, GateResult
from components.contracts.errors import NoEvidence, UsageError
from components.contracts.times import parse_utc
from components.evaluation.comparison import Comparison, Interval
from components.evaluation.evidence import ChampionEvidence, Evidence
from components.evaluation.metrics import constant_log_loss

T = TypeVar("T")
Verdict = tuple[bool, str, dict[str, object]]
"""Passed, reason, figures."""


class EvaluationConfig(Config):
    """Limits of the gates, and how the comparison is drawn. Part of the recipe: `--set evaluation.ctr_auc_min=0.6`."""

    min_test_rows: int = 2000
    min_test_clicks: int = 200
    min_test_conversions: int = 50
    ctr_auc_min: float = 0.55
    """At the reference position."""
    ctcvr_auc_min: float = 0.55
    """At the reference position."""
    ctcvr_gain_min: float = 0.005
    """CTCVR log loss, logged position: at least this share below the best constant's. A model of one step has 0.002."""
    ctr_calibration: tuple[float, float] = (0.8, 1.25)
    cvr_calibration: tuple[float, float] = (0.67, 1.5)
    ctcvr_calibration: tuple[float, float] = (0.75, 1.33)
    calibration_z: float = 1.96
    """Calibration limits are widened by this many standard errors of the observed count; the reason says to what."""
    parity_max: float = 1e-5
    """Largest difference of a probability between the ONNX graph and the eager model."""
    parity_log_loss_max: float = 1e-5
    """Largest relative difference of the validation CTCVR log loss, ONNX on raw rows against eager on encoded ones."""
    ctcvr_margin: float = 0.01
    """CTCVR log loss may be worse than the champion's by at most this share, at the bad end of the interval."""
    ctr_margin: float = 0.01
    confidence: float = 0.95
    bootstrap_replicates: int = 1000
    auc_replicates: int = 200
    seed: int = 20260101


@dataclass(frozen=True)
class Gate:
    """One gate. `decide` returns (passed, reason, evidence figures) or raises NoEvidence."""

    name: str
    protects: str
    closes: str
    limits: tuple[str, ...]
    comparison: bool
    decide: Callable[[Evidence, EvaluationConfig], Verdict]


def known(value: T | None, what: str) -> T:
    """Raises NoEvidence where there is nothing to decide on."""
    if value is None:
        raise NoEvidence(f"no evidence: {what}, so the gate stays closed")
    return value


def minimum_quality(evidence: Evidence, limits: EvaluationConfig) -> Verdict:
    """Enough test data to judge by, and a model better than none."""
    reference = known(evidence.reference, "the winner has no test metrics at the reference position")
    logged = known(evidence.logged, "the winner has no test metrics at the logged position")
    failures: list[str] = []
    figures: list[str] = []
    for what, count, minimum in (
        ("test impressions", logged.rows, limits.min_test_rows),
        ("test clicks", logged.clicks, limits.min_test_clicks),
        ("test conversions", logged.conversions, limits.min_test_conversions),
    ):
        if count >= minimum:
            figures.append(f"{count:,} {what} (at least {minimum:,})")
        else:
            failures.append(f"{count:,} {what}, fewer than {minimum:,}")
    for what, value, least in (
        ("CTR AUC", reference.ctr_auc, limits.ctr_auc_min),
        ("CTCVR AUC", reference.ctcvr_auc, limits.ctcvr_auc_min),
    ):
        if value is None:
            failures.append(f"{what} cannot be computed, one class is absent")
        elif value >= least:
            figures.append(f"{what} {value:.4f} (at least {least:g})")
        else:
            failures.append(f"{what} {value:.4f} is below {least:g}")
    constant = constant_log_loss(logged.conversions, logged.rows) if logged.rows else 0.0
    gain = 1 - logged.ctcvr_log_loss / constant if constant > 0 else -math.inf
    side = "below" if gain >= 0 else "above"
    figure = f"CTCVR log loss {logged.ctcvr_log_loss:.6f}, {abs(gain):.2%} {side} the best constant's {constant:.6f}"
    if logged.ctcvr_log_loss < constant and gain >= limits.ctcvr_gain_min:
        figures.append(f"{figure} (at least {limits.ctcvr_gain_min:.2%} below)")
    else:
        failures.append(f"{figure}, not {limits.ctcvr_gain_min:.2%} below")
    return not failures, "; ".join(failures or figures), {"constant_ctcvr_log_loss": constant}


def calibration(evidence: Evidence, limits: EvaluationConfig) -> Verdict:
    """Sum predicted / sum observed of each head within limits, at the logged position, of the model as it is served.

    Its pCVR was calibrated on the validation split, so on the test split the ratio says what that is worth later on.
    With n observed events the ratio is uncertain by about 1/sqrt(n) of itself (Poisson), so the limits are widened by
    the factor exp(calibration_z / sqrt(n)), and the reason states the limit, the widened limit and n.
    """
    logged = known(evidence.logged, "the winner has no test metrics at the logged position")
    parts, failed, figures = [], False, {}
    for what, ratio, events, kind, (low, high) in (
        ("pCTR", logged.ctr_calibration, logged.clicks, "clicks", limits.ctr_calibration),
        ("pCVR of clicked", logged.cvr_calibration_clicked, logged.conversions, "conversions", limits.cvr_calibration),
        ("pCTCVR", logged.ctcvr_calibration, logged.conversions, "conversions", limits.ctcvr_calibration),
    ):
        value = known(ratio if events else None, f"nothing to calibrate {what} against, the test split has no {kind}")
        widening = math.exp(limits.calibration_z / math.sqrt(events))
        bottom, top = low / widening, high * widening
        inside = bottom <= value <= top
        failed |= not inside
        figures[what] = {"ratio": value, "low": bottom, "high": top, "events": events}
        parts.append(
            f"{what} {value:.3f} {'within' if inside else 'OUTSIDE'} {bottom:.3f} to {top:.3f} "
            f"({low:g} to {high:g}, widened for {events:,} {kind})"
        )
    return not failed, "predicted / observed: " + "; ".join(parts), dict(figures)


def parity(evidence: Evidence, limits: EvaluationConfig) -> Verdict:
    """What is served (ONNX, raw rows) is what was trained (eager, encoded rows)."""
    found = known(evidence.parity, "the winner's metrics.json records no comparison of ONNX and eager")
    difference = known(found.recorded, "the winner's metrics.json records no difference between ONNX and eager")
    eager = known(found.eager_log_loss, "the winner's metrics.json records no eager validation log loss")
    onnx = known(found.onnx_log_loss, "the winner's ONNX graph was not scored on the validation split")
    relative = abs(onnx - eager) / eager if eager > 0 else math.inf
    passed = difference <= limits.parity_max and relative <= limits.parity_log_loss_max
    reason = (
        f"ONNX and eager differ by at most {difference:.1e} (limit {limits.parity_max:.0e}); validation CTCVR log loss "
        f"{onnx:.6f} by ONNX from raw rows, {eager:.6f} by eager: {relative:.1e} apart (limit "
        f"{limits.parity_log_loss_max:.0e})"
    )
    return passed, reason, {"difference": difference, "eager_log_loss": eager, "onnx_log_loss": onnx}


def as_of_order(evidence: Evidence, limits: EvaluationConfig) -> Verdict:
    """A run on older data never replaces a champion that saw newer."""
    champion, info = _champion(evidence)
    try:
        older = parse_utc(evidence.as_of) < parse_utc(info.as_of)
    except UsageError as error:
        raise NoEvidence(f"no evidence: {error}, so the gate stays closed") from None
    reason = (
        f"this run's as-of {evidence.as_of} is {'older' if older else 'not older'} than that of champion version "
        f"{champion.version}, {info.as_of}"
    )
    return not older, reason, {"as_of": evidence.as_of, "champion_as_of": info.as_of}


def overlap(evidence: Evidence, limits: EvaluationConfig) -> Verdict:
    """The test split is as new to the champion as it is to the winner."""
    champion, info = _champion(evidence)
    ranges = known(evidence.ranges, "the dataset does not say what its splits cover")
    theirs = info.ranges
    if ranges.kind != theirs.kind:
        raise NoEvidence(
            f"no evidence: this test split is by {ranges.kind} and champion version {champion.version} was split by "
            f"{theirs.kind}, so nobody can say whether it trained on these rows: the gate stays closed"
        )
    # Equal seeds put a user into the same place whatever else the log holds: a longer log needs no new comparison.
    if ranges.kind in ("hash", "published") and ranges.seed != theirs.seed:
        raise NoEvidence(
            f"no evidence: champion version {champion.version} was split with another hash seed, so nobody can say "
            "whether it trained on these users: the gate stays closed"
        )
    shared = [name for name in ("train", "valid") if overlaps(getattr(theirs, name), ranges.test, ranges)]
    figures: dict[str, object] = {"test": ranges.test, "champion_train": theirs.train, "champion_valid": theirs.valid}
    test = f"[{ranges.test[0]}, {ranges.test[1]})"
    if shared:
        covered = " and ".join(f"{_WORD[name]} [{', '.join(getattr(theirs, name))})" for name in shared)
        return (
            False,
            f"champion version {champion.version} has seen the test split {test}: its {covered} overlaps",
            figures,
        )
    return True, f"champion version {champion.version} has not seen the test split {test}", figures


_WORD = {"train": "training range", "valid": "validation range"}


def overlaps(one: tuple[str, str], other: tuple[str, str], ranges: Ranges) -> bool:
    """Whether two half-open ranges [start, end) share a point; the end of one may be the start of the other.

    Raises:
        NoEvidence: if a bound is no number (kind "hash") or no time (any other kind), or a range ends before it starts.
    """

    def bounds(pair: tuple[str, str]) -> tuple[float, float]:
        try:
            low, high = ((float(text) if ranges.kind == "hash" else parse_utc(text).timestamp()) for text in pair)
        except (UsageError, ValueError):
            raise NoEvidence(
                f"no evidence: {pair} is no range of kind {ranges.kind!r}: the gate stays closed"
            ) from None
        if not low <= high:
            raise NoEvidence(f"no evidence: range {pair} ends before it starts: the gate stays closed")
        return low, high

    (a, b), (c, d) = bounds(one), bounds(other)
    return max(a, c) < min(b, d)


def not_identical(evidence: Evidence, limits: EvaluationConfig) -> Verdict:
    """Promoting the same model again would only push the former champion out of reach of a rollback."""
    champion, _ = _champion(evidence)
    ours = known(evidence.identity, "the winner's identity could not be computed")
    theirs = known(champion.identity, f"the identity of champion version {champion.version} could not be computed")
    figures: dict[str, object] = {"identity": ours, "champion_identity": theirs}
    if ours == theirs:
        same = "same weights, encoder, features and calibration"
        return False, f"identical to champion version {champion.version}: {same}", figures
    what = "weights, encoder, features or calibration"
    return True, f"differs from champion version {champion.version} in {what}", figures


def non_inferiority(evidence: Evidence, limits: EvaluationConfig) -> Verdict:
    """Not worse than the champion by more than the margin, on the same rows, even at the bad end of the interval."""
    champion, _ = _champion(evidence)
    found: Comparison = known(evidence.comparison, f"champion version {champion.version} was not scored on these rows")
    parts, failed = [], False
    for what, interval, margin in (
        ("CTCVR", found.ctcvr_log_loss, limits.ctcvr_margin),
        ("CTR", found.ctr_log_loss, limits.ctr_margin),
    ):
        inside = interval.high <= margin
        failed |= not inside
        parts.append(
            f"{what} {_signed(interval)}: upper bound {'within' if inside else 'ABOVE'} the margin of {margin:.1%}"
        )
    reason = (
        f"log loss against champion version {champion.version}, {found.confidence:.0%} interval over "
        f"{found.users:,} users: {'; '.join(parts)}"
    )
    return not failed, reason, found.model_dump(mode="json")


def _signed(interval: Interval) -> str:
    return f"{interval.difference:+.2%} ({interval.low:+.2%} to {interval.high:+.2%})"


def _champion(evidence: Evidence) -> tuple[ChampionEvidence, ModelInfo]:
    champion = known(evidence.champion, "there is no champion to compare with")
    if champion.error:
        raise NoEvidence(
            f"no evidence: champion version {champion.version} could not be scored ({champion.error}), so the "
            "comparison stays closed"
        )
    return champion, known(champion.info, f"champion version {champion.version} has no model.json")


GATES: tuple[Gate, ...] = (
    Gate(
        "minimum_quality",
        "a model that learned nothing, or a verdict from too few events",
        "too few test impressions, clicks or conversions; CTR or CTCVR AUC below its minimum at the reference "
        "position; CTCVR log loss not enough below that of the best constant (one that knows the test split's rate)",
        ("min_test_rows", "min_test_clicks", "min_test_conversions", "ctr_auc_min", "ctcvr_auc_min", "ctcvr_gain_min"),
        False,
        minimum_quality,
    ),
    Gate(
        "calibration",
        "probabilities that rank well but promise too much or too little",
        "predicted / observed of pCTR, calibrated pCVR over clicked or pCTCVR at the logged position is outside its "
        "limits, which are widened by exp(calibration_z / sqrt(events))",
        ("ctr_calibration", "cvr_calibration", "ctcvr_calibration", "calibration_z"),
        False,
        calibration,
    ),
    Gate(
        "parity",
        "serving another model than the one that was trained",
        "the ONNX graph differs from the eager model, or scores the validation split differently from raw rows",
        ("parity_max", "parity_log_loss_max"),
        False,
        parity,
    ),
    Gate(
        "as_of_order",
        "an old or repeated run replacing a newer champion",
        "the run's as-of is earlier than the champion's",
        (),
        True,
        as_of_order,
    ),
    Gate(
        "overlap",
        "a comparison in which the champion has seen the answers",
        "the champion's training or validation range overlaps the test split, or nobody can tell",
        (),
        True,
        overlap,
    ),
    Gate(
        "not_identical",
        "promoting the champion over itself, which would lose the way back",
        "weights, encoder, features and calibration equal the champion's",
        (),
        True,
        not_identical,
    ),
    Gate(
        "non_inferiority",
        "a new model that is worse than the one it replaces",
        "the upper bound of the CTCVR or CTR log-loss difference to the champion, paired by user, exceeds its margin",
        ("ctcvr_margin", "ctr_margin", "confidence", "bootstrap_replicates"),
        True,
        non_inferiority,
    ),
)


def decide(evidence: Evidence, limits: EvaluationConfig) -> Decision:
    """Puts the evidence to every gate. Promotes only if each gate that applies is open."""
    results = tuple(_ask(gate, evidence, limits) for gate in GATES)
    closed = tuple(f"{result.gate}: {result.reason}" for result in results if result.applies and not result.passed)
    against = f"not worse than champion version {evidence.champion.version}" if evidence.champion else "first champion"
    return Decision(
        promote=not closed,
        winner=evidence.winner,
        champion_version=evidence.champion.version if evidence.champion else None,
        reasons=closed or (f"every gate is open: {evidence.winner} is fit to serve, {against}",),
        gates=results,
    )


def _ask(gate: Gate, evidence: Evidence, limits: EvaluationConfig) -> GateResult:
    if gate.comparison and evidence.champion is None:
        reason = "does not apply: there is no champion yet"
        return GateResult(gate=gate.name, passed=True, applies=False, reason=reason)
    try:
        passed, reason, figures = gate.decide(evidence, limits)
    except NoEvidence as error:
        return GateResult(gate=gate.name, passed=False, reason=str(error))
    return GateResult(gate=gate.name, passed=passed, reason=reason, evidence=figures)


def gates_table(limits: EvaluationConfig | None = None) -> str:
    """Markdown table of all gates, for the docs: when each applies, what it protects from, what closes it, limits."""
    values = (limits or EvaluationConfig()).model_dump()
    lines = ["| gate | applies | protects from | closes when | limits |", "|---|---|---|---|---|"]
    for gate in GATES:
        shown = ", ".join(f"`{name}` = {_limit(values[name])}" for name in gate.limits) or "none"
        when = "with a champion" if gate.comparison else "always"
        lines.append(f"| `{gate.name}` | {when} | {gate.protects} | {gate.closes} | {shown} |")
    return "\n".join(lines) + "\n"


def _limit(value: object) -> str:
    return " to ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else f"{value:g}"
