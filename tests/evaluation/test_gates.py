"""Every gate: open on good evidence, closed on bad, closed without evidence, and out of the way on a first run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from components.contracts.artifacts import Ranges
from components.contracts.decision import GateResult
from components.evaluation.evidence import ChampionEvidence, Evidence
from components.evaluation.gates import GATES, EvaluationConfig, decide, gates_table, overlaps

LIMITS = EvaluationConfig()
Change = Callable[[Evidence], Evidence]


def metrics(field: str, **changes: float | int | None) -> Change:
    def change(evidence: Evidence) -> Evidence:
        found = getattr(evidence, field)
        return replace(evidence, **{field: found.model_copy(update=changes)})

    return change


def champion(**changes: object) -> Change:
    def change(evidence: Evidence) -> Evidence:
        assert evidence.champion is not None
        return replace(evidence, champion=replace(evidence.champion, **changes))

    return change


def champion_info(**changes: object) -> Change:
    def change(evidence: Evidence) -> Evidence:
        assert evidence.champion is not None
        assert evidence.champion.info is not None
        return champion(info=evidence.champion.info.model_copy(update=changes))(evidence)

    return change


def evidence(**changes: object) -> Change:
    return lambda found: replace(found, **changes)


def parity(**changes: object) -> Change:
    return lambda found: replace(found, parity=replace(found.parity, **changes))


def compared(**bounds: tuple[float, float]) -> Change:
    def change(found: Evidence) -> Evidence:
        assert found.comparison is not None
        update = {
            name: getattr(found.comparison, name).model_copy(update={"low": low, "high": high})
            for name, (low, high) in bounds.items()
        }
        return replace(found, comparison=found.comparison.model_copy(update=update))

    return change


RANGE = Ranges(kind="time", train=("2026-01-01", "2026-01-14"), valid=("2026-01-01", "2026-01-02"), test=("x", "y"))
HASHED = Ranges(kind="hash", train=("0.4", "1.0"), valid=("0.25", "0.4"), test=("0.0", "0.25"), seed=7)

MUST_FAIL: list[tuple[str, Change, str]] = [
    ("minimum_quality", metrics("logged", rows=100), "100 test impressions, fewer than 2,000"),
    ("minimum_quality", metrics("logged", clicks=10), "10 test clicks"),
    ("minimum_quality", metrics("logged", conversions=3), "3 test conversions"),
    ("minimum_quality", metrics("reference", ctr_auc=0.51), "CTR AUC 0.5100 is below 0.55"),
    ("minimum_quality", metrics("reference", ctcvr_auc=0.5499), "CTCVR AUC 0.5499 is below 0.55"),
    ("minimum_quality", metrics("reference", ctcvr_auc=None), "CTCVR AUC cannot be computed"),
    ("minimum_quality", metrics("logged", ctcvr_log_loss=0.06), "16.84% above the best constant's 0.051354"),
    ("minimum_quality", metrics("logged", ctcvr_log_loss=0.0512), "0.30% below"),
    ("minimum_quality", metrics("logged", conversions=100_000), "not 0.50% below"),
    ("calibration", metrics("logged", ctr_calibration=1.4), "pCTR 1.400 OUTSIDE"),
    ("calibration", metrics("logged", ctr_calibration=0.7), "pCTR 0.700 OUTSIDE"),
    ("calibration", metrics("logged", cvr_calibration_clicked=2.07), "pCVR of clicked 2.070 OUTSIDE"),
    ("calibration", metrics("logged", ctcvr_calibration=0.5), "pCTCVR 0.500 OUTSIDE"),
    ("parity", parity(recorded=1.1e-5), "1.1e-05 (limit 1e-05)"),
    ("parity", parity(onnx_log_loss=0.0451), "0.045100 by ONNX"),
    ("as_of_order", evidence(as_of="2026-01-11T23:59:59Z"), "is older than that of champion version 3"),
    ("overlap", champion_info(ranges=RANGE), "its training range [2026-01-01, 2026-01-14) overlaps"),
    ("not_identical", champion(identity="winner"), "identical to champion version 3"),
    ("non_inferiority", compared(ctcvr_log_loss=(0.001, 0.0101)), "upper bound ABOVE the margin of 1.0%"),
    ("non_inferiority", compared(ctr_log_loss=(-0.01, 0.02)), "CTR -0.45% (-1.00% to +2.00%): upper bound ABOVE"),
]

NO_EVIDENCE: list[tuple[str, Change]] = [
    ("minimum_quality", evidence(reference=None)),
    ("minimum_quality", evidence(logged=None)),
    ("calibration", evidence(logged=None)),
    ("calibration", metrics("logged", ctr_calibration=None)),
    ("calibration", metrics("logged", conversions=0)),
    ("parity", evidence(parity=None)),
    ("parity", parity(recorded=None)),
    ("parity", parity(eager_log_loss=None)),
    ("parity", parity(onnx_log_loss=None)),
    ("as_of_order", champion(info=None)),
    ("as_of_order", champion_info(as_of="yesterday")),
    ("overlap", evidence(ranges=None)),
    ("overlap", evidence(ranges=HASHED)),
    ("overlap", champion_info(ranges=RANGE.model_copy(update={"train": ("x", "y")}))),
    ("overlap", champion_info(ranges=RANGE.model_copy(update={"train": ("2026-01-05", "2026-01-01")}))),
    ("not_identical", champion(identity=None)),
    ("not_identical", evidence(identity=None)),
    ("non_inferiority", evidence(comparison=None)),
    *(
        (name, champion(error="CorruptArtifact: weights are not what they were"))
        for name in ("as_of_order", "overlap", "not_identical", "non_inferiority")
    ),
]


def result(found: Evidence, name: str, limits: EvaluationConfig = LIMITS) -> GateResult:
    return next(gate for gate in decide(found, limits).gates if gate.gate == name)


def test_every_gate_has_a_fixture_that_must_fail_it_and_one_without_evidence() -> None:
    names = {gate.name for gate in GATES}
    assert {name for name, _, _ in MUST_FAIL} == names
    assert {name for name, _ in NO_EVIDENCE} == names


def test_good_evidence_opens_every_gate_and_each_reason_gives_figures(against: Evidence) -> None:
    decision = decide(against, LIMITS)
    assert decision.promote
    assert decision.champion_version == 3
    assert all(gate.passed and gate.applies and gate.reason for gate in decision.gates)
    assert [gate.gate for gate in decision.gates] == [gate.name for gate in GATES]
    assert "esmm is fit to serve" in decision.reasons[0]


@pytest.mark.parametrize(("name", "change", "reason"), MUST_FAIL)
def test_bad_evidence_closes_exactly_that_gate(against: Evidence, name: str, change: Change, reason: str) -> None:
    decision = decide(change(against), LIMITS)
    closed = [gate for gate in decision.gates if not gate.passed]
    assert [gate.gate for gate in closed] == [name]
    assert reason in closed[0].reason
    assert not decision.promote
    assert decision.reasons == (f"{name}: {closed[0].reason}",)


@pytest.mark.parametrize(("name", "change"), NO_EVIDENCE)
def test_no_evidence_closes_the_gate_and_says_so(against: Evidence, name: str, change: Change) -> None:
    found = result(change(against), name)
    assert not found.passed
    assert found.applies
    assert "no evidence" in found.reason
    assert not decide(change(against), LIMITS).promote


def test_an_unreadable_champion_closes_every_comparison_gate_but_no_other(against: Evidence) -> None:
    lost = replace(against, champion=ChampionEvidence(3, error="DataError: the folder is gone"), comparison=None)
    closed = {gate.gate for gate in decide(lost, LIMITS).gates if not gate.passed}
    assert closed == {gate.name for gate in GATES if gate.comparison}
    assert "the folder is gone" in result(lost, "overlap").reason


def test_on_a_first_run_comparison_gates_do_not_apply_and_the_others_do(first: Evidence) -> None:
    decision = decide(first, LIMITS)
    assert decision.promote
    assert decision.champion_version is None
    for gate, found in zip(GATES, decision.gates, strict=True):
        assert found.applies != gate.comparison
        assert found.applies or "no champion yet" in found.reason
    for name in ("minimum_quality", "calibration", "parity"):
        change = next(change for gate, change, _ in MUST_FAIL if gate == name)
        assert not decide(change(first), LIMITS).promote


def test_calibration_limits_are_widened_by_the_noise_of_the_count_and_the_reason_says_to_what(first: Evidence) -> None:
    off = {"ctcvr_calibration": 1.4, "conversions": 100}
    few = result(metrics("logged", **off)(first), "calibration")
    assert few.passed
    assert "0.617 to 1.618 (0.75 to 1.33, widened for 100 conversions)" in few.reason
    many = result(metrics("logged", **(off | {"conversions": 5000}))(first), "calibration")
    assert not many.passed
    strict = result(metrics("logged", **off)(first), "calibration", LIMITS.model_copy(update={"calibration_z": 0.0}))
    assert not strict.passed


def test_equal_as_of_is_not_older(against: Evidence) -> None:
    assert result(evidence(as_of="2026-01-12T00:00:00Z")(against), "as_of_order").passed
    assert result(evidence(as_of="2026-01-12T01:00:00+01:00")(against), "as_of_order").passed


@pytest.mark.parametrize(
    ("train", "valid", "open_"),
    [
        # The test split is [13, 16): ranges that end at its start or start at its end touch it in no point.
        (("2026-01-01", "2026-01-13"), ("2026-01-01", "2026-01-02"), True),
        (("2026-01-16", "2026-01-20"), ("2026-01-20", "2026-01-21"), True),
        (("2026-01-01", "2026-01-13T00:00:00.000001Z"), ("2026-01-01", "2026-01-02"), False),
        (("2026-01-15T23:59:59.999999Z", "2026-01-20"), ("2026-01-20", "2026-01-21"), False),
        (("2026-01-01", "2026-01-02"), ("2026-01-14", "2026-01-15"), False),
        (("2026-01-01", "2026-01-30"), ("2026-01-30", "2026-01-31"), False),
    ],
)
def test_overlap_is_half_open(against: Evidence, train: tuple[str, str], valid: tuple[str, str], open_: bool) -> None:
    theirs = Ranges(kind="time", train=train, valid=valid, test=("2026-01-01", "2026-01-01"))
    found = result(champion_info(ranges=theirs)(against), "overlap")
    assert found.passed is open_
    assert "no evidence" not in found.reason


def hashed(theirs: Ranges) -> Change:
    return lambda found: champion_info(ranges=theirs)(replace(found, ranges=HASHED))


def test_hash_splits_compare_only_with_the_same_seed(against: Evidence) -> None:
    assert result(hashed(HASHED)(against), "overlap").passed
    other_seed = result(hashed(HASHED.model_copy(update={"seed": 8}))(against), "overlap")
    assert not other_seed.passed
    assert "nobody can say" in other_seed.reason
    wider = result(hashed(HASHED.model_copy(update={"train": ("0.2", "1.0")}))(against), "overlap")
    assert "training range" in wider.reason
    assert not wider.passed


def test_published_splits_compare_by_time_and_only_with_the_same_seed(against: Evidence) -> None:
    """Train and validation of a published split share the time before the test; users tell them apart, by the seed."""

    def put(theirs: Ranges) -> Change:
        return lambda found: champion_info(ranges=theirs)(replace(found, ranges=ours))

    before, test = ("2026-01-01", "2026-01-13"), ("2026-01-13", "2026-01-16")
    ours = Ranges(kind="published", train=before, valid=before, test=test, seed=7)
    assert result(put(ours)(against), "overlap").passed
    longer = ours.model_copy(update={"train": ("2026-01-01", "2026-01-14")})
    assert "training range" in result(put(longer)(against), "overlap").reason
    assert not result(put(longer)(against), "overlap").passed
    for other in (ours.model_copy(update={"seed": 8}), ours.model_copy(update={"kind": "time"})):
        assert "nobody can say" in result(put(other)(against), "overlap").reason
        assert not result(put(other)(against), "overlap").passed
    timeless = ours.model_copy(update={"train": ("0", "0.5")})
    assert "no evidence" in result(put(timeless)(against), "overlap").reason


def test_empty_ranges_overlap_nothing() -> None:
    assert not overlaps(("2026-01-14", "2026-01-14"), ("2026-01-13", "2026-01-16"), RANGE)
    assert not overlaps(("0.5", "0.5"), ("0.0", "1.0"), HASHED)


def test_margin_is_met_at_its_own_value(against: Evidence) -> None:
    assert result(compared(ctcvr_log_loss=(0.0, 0.01))(against), "non_inferiority").passed


def test_the_table_names_each_gate_and_each_limit_is_a_field_of_the_config() -> None:
    table = gates_table()
    assert len(table.splitlines()) == 2 + len(GATES)
    for gate in GATES:
        assert f"`{gate.name}`" in table
        assert set(gate.limits) <= set(EvaluationConfig.model_fields)
    unused = set(EvaluationConfig.model_fields) - {limit for gate in GATES for limit in gate.limits}
    assert unused == {"auc_replicates", "seed"}, "a limit that no gate lists is undocumented"
