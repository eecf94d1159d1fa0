from __future__ import annotations

from components.contracts.artifacts import ModelInfo, Rows
from components.contracts.decision import Candidate, Decision, Evaluation
from components.contracts.spec import Feature, FeatureSpec
from components.evaluation.evidence import Evidence
from components.evaluation.gates import EvaluationConfig, decide
from components.evaluation.model_card import model_card

SPEC = FeatureSpec(
    features=(
        Feature(name="item_id", source="id", dtype="string", encoding="id"),
        Feature(name="position", source="context", dtype="int", encoding="id", tower="ctr"),
    ),
    reference_position=2,
)


def evaluation(evidence: Evidence, decision: Decision) -> Evaluation:
    found = evidence.logged
    candidate = Candidate(name="esmm", eligible=True, validation=found, test=found, test_logged=found, truth={"x": 0.5})
    return Evaluation(
        decision=decision,
        candidates=(candidate,),
        rows=Rows(),
        ranges=evidence.ranges,
        as_of=evidence.as_of,
        dataset="shop",
        notes=("Labels are final.",),
    )


def test_the_card_says_what_the_model_is_and_what_it_was_judged_on(first: Evidence) -> None:
    assert first.ranges is not None
    info = ModelInfo(
        candidate="esmm", architecture={}, spec=SPEC, ranges=first.ranges, dataset="shop", as_of=first.as_of,
        data_fingerprint="f00d", code="c0de", seed=7,
    )  # fmt: skip
    card = model_card(evaluation(first, decide(first, EvaluationConfig())), info)
    for words in ("# shop: esmm", "Passed every gate.", "`position` (int from context, id, CTR tower only)", "f00d",
                  "position 2", "| ctr_auc | 0.70000 |", "| x | 0.50000 |", "- calibration: open.",
                  "- overlap: not applied.", "Labels are final."):  # fmt: skip
        assert words in card
    refused = model_card(evaluation(first, decide(first, EvaluationConfig(ctr_auc_min=0.9))), info)
    assert "Refused: do not serve it." in refused
    assert "minimum_quality: closed. CTR AUC 0.7000 is below 0.9" in refused


def test_without_a_winner_the_card_gives_the_reasons(first: Evidence) -> None:
    nobody = Decision(promote=False, winner=None, champion_version=None, reasons=("esmm diverged",), gates=())
    assert "- esmm diverged" in model_card(evaluation(first, nobody), None)
