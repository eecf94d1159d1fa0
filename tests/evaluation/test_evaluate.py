"""The stage itself, on files, with models that are formulas."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tiny_model import reseal

from components.contracts.artifacts import Ranges
from components.contracts.dataset import DatasetInfo, truth_fingerprint, write_info
from components.contracts.decision import ChampionRef, Decision, Evaluation
from components.contracts.errors import CorruptArtifact, DataError
from components.contracts.files import read_manifest, write_json, write_manifest
from components.contracts.quality import DayQuality, Quality
from components.evaluation.evaluate import EvaluateConfig, run

OLD = Ranges(
    kind="time",
    train=("2025-12-01T00:00:00Z", "2025-12-20T00:00:00Z"),
    valid=("2025-12-21T00:00:00Z", "2025-12-23T00:00:00Z"),
    test=("2025-12-23T00:00:00Z", "2025-12-26T00:00:00Z"),
)


SEEN = OLD.model_copy(update={"valid": ("2026-01-12T00:00:00Z", "2026-01-14T00:00:00Z")})


class Verdict:
    """Runs the stage and reads back what it wrote."""

    def __init__(self, shop: Any, models: list[Path], champion: Path | None = None, **changes: Any) -> None:
        self.root = shop.root / f"out-{len(list(shop.root.glob('out-*')))}"
        self.winner, self.report = self.root / "winner", self.root / "report.html"
        settings: dict[str, Any] = {"bootstrap_replicates": 200, "auc_replicates": 20}
        config = EvaluateConfig.parse(
            {
                "evaluation": settings | changes.pop("evaluation", {}),
                "champion": ChampionRef(version=4, source=str(champion)) if champion else None,
                "data": str(shop.data),
                "as_of": "2026-01-17T00:00:00Z",
                "dataset": "shop",
                **changes,
            }
        )
        self.facts = run(
            config, models, shop.dataset, self.winner, self.root / "evaluation", self.report, load=shop.load
        )
        folder = self.root / "evaluation"
        self.evaluation = Evaluation.parse((folder / "evaluation.json").read_bytes())
        self.decision = Decision.parse((folder / "decision.json").read_bytes())
        self.card = (folder / "model_card.md").read_text()
        assert self.decision == self.evaluation.decision
        assert self.facts["promote"] == self.decision.promote
        read_manifest(folder)
        json.dumps(self.facts, allow_nan=False)

    @property
    def closed(self) -> set[str]:
        return {gate.gate for gate in self.decision.gates if gate.applies and not gate.passed}


def test_a_first_run_promotes_the_best_of_validation(shop: Any) -> None:
    history = [{"step": 3, "rows": 300, "train_loss": 1.0, "valid_ctr_log_loss": 0.4, "valid_ctcvr_log_loss": None}]
    models = [
        shop.model("dull", skill=0.2),
        shop.model("esmm", {"history": history}, skill=0.95),
        shop.model("base", skill=0.6),
    ]
    verdict = Verdict(shop, models)
    assert verdict.evaluation.plots["history"] == {"dull": [], "esmm": [{"rows": 300, "ctr_log_loss": 0.4}], "base": []}
    assert verdict.decision.promote, verdict.decision.reasons
    assert verdict.decision.winner == "esmm"
    assert verdict.decision.champion_version is None
    assert [candidate.name for candidate in verdict.evaluation.candidates] == ["dull", "esmm", "base"]
    assert read_manifest(verdict.winner)["fingerprint"] == read_manifest(models[1])["fingerprint"]
    assert verdict.evaluation.rows.test == 24_000
    assert verdict.evaluation.rows.immature == 100
    esmm = verdict.evaluation.candidates[1]
    assert esmm.test is not None
    assert esmm.test_logged is not None
    assert esmm.test != esmm.test_logged
    assert verdict.facts["metrics"]["ctr_auc"] == esmm.test.ctr_auc
    assert "Passed every gate." in verdict.card
    assert verdict.report.read_text().startswith("<!doctype html>")


def test_only_validation_chooses(shop: Any) -> None:
    # With test labels turned upside down, the same candidate is chosen, and refused.
    for file in sorted((shop.dataset / "test").glob("*.parquet")):
        table = pq.read_table(file)
        shuffled = table.set_column(
            table.schema.get_field_index("click"), "click", table["click"].take(list(range(table.num_rows))[::-1])
        )
        conversion = shuffled["conversion"].to_numpy() & shuffled["click"].to_numpy()
        pq.write_table(
            shuffled.set_column(table.schema.get_field_index("conversion"), "conversion", [conversion]), file
        )
    with pytest.raises(CorruptArtifact, match="test/part-0"):
        Verdict(shop, [shop.model("esmm")])
    reseal(shop.dataset)
    verdict = Verdict(shop, [shop.model("esmm", skill=0.95), shop.model("base", skill=0.1)])
    assert verdict.decision.winner == "esmm"
    assert verdict.closed >= {"minimum_quality"}
    assert not verdict.decision.promote


def test_ineligible_candidates_are_recorded_and_do_not_compete(shop: Any) -> None:
    diverged = shop.model("esmm", {"eligible": False, "reason": "loss was not finite at step 12"}, skill=1.0)
    broken = shop.model("nan", broken=True)
    verdict = Verdict(shop, [diverged, broken, shop.model("base", skill=0.7)])
    reasons = {
        candidate.name: candidate.reason for candidate in verdict.evaluation.candidates if not candidate.eligible
    }
    assert reasons["esmm"] == "loss was not finite at step 12"
    assert "not one probability a row" in reasons["nan"]
    assert verdict.decision.winner == "base"
    assert "loss was not finite" in verdict.report.read_text()


def test_no_eligible_candidate_is_a_refusal_with_every_reason(shop: Any) -> None:
    models = [shop.model(name, {"eligible": False, "reason": f"{name} went wrong"}) for name in ("esmm", "base")]
    verdict = Verdict(shop, [*models, shop.model("odd", {"eligible": "yes"})])
    assert not verdict.decision.promote
    assert verdict.decision.winner is None
    assert [word in reason for word, reason in zip(("esmm", "base", "odd"), verdict.decision.reasons, strict=True)]
    assert (verdict.winner / "no-winner.txt").is_file()
    assert read_manifest(verdict.winner)["eligible"] is False
    assert "No candidate was eligible" in verdict.report.read_text()
    assert verdict.facts["metrics"] == {}


def test_a_better_candidate_replaces_the_champion(shop: Any) -> None:
    champion = shop.model("base", ranges=OLD, as_of="2025-12-27T00:00:00Z", skill=0.5)
    verdict = Verdict(shop, [shop.model("esmm", skill=0.95)], champion)
    assert verdict.decision.promote, verdict.decision.reasons
    assert verdict.decision.champion_version == 4
    assert verdict.evaluation.champion is not None
    assert verdict.evaluation.champion.name == "champion v4"
    assert verdict.evaluation.champion.validation is None


def test_a_better_champion_keeps_serving(shop: Any) -> None:
    champion = shop.model("base", ranges=OLD, as_of="2025-12-27T00:00:00Z", skill=0.95)
    verdict = Verdict(shop, [shop.model("esmm", skill=0.5)], champion)
    assert verdict.closed == {"non_inferiority"}
    assert "champion version 4 keeps serving" in verdict.report.read_text()


def test_the_champion_against_itself_is_refused_as_identical(shop: Any) -> None:
    champion = shop.model("esmm", ranges=OLD, as_of="2025-12-27T00:00:00Z", skill=0.95)
    verdict = Verdict(shop, [champion], champion)
    assert verdict.closed == {"not_identical"}
    assert "identical to champion version 4" in verdict.decision.reasons[0]


def test_a_champion_that_saw_the_test_split_closes_the_comparison(shop: Any) -> None:
    champion = shop.model("base", as_of="2026-01-17T00:00:00Z", ranges=SEEN)
    verdict = Verdict(shop, [shop.model("esmm", skill=0.95)], champion)
    assert "overlap" in verdict.closed


@pytest.mark.parametrize("damage", ["gone", "changed", "feature"])
def test_a_champion_that_cannot_be_scored_closes_the_comparison_and_ends_normally(shop: Any, damage: str) -> None:
    champion = shop.model("base", ranges=OLD, as_of="2025-12-27T00:00:00Z", skill=0.5)
    if damage == "gone":
        (champion / "manifest.json").unlink()
    elif damage == "changed":
        (champion / "weights.safetensors").write_text("other")
    else:
        model = json.loads((champion / "model.json").read_text())
        model["spec"]["features"][1]["name"] = "taste_of_last_year"
        write_json(champion / "model.json", model)
        write_manifest(champion)
    verdict = Verdict(shop, [shop.model("esmm", skill=0.95)], champion)
    assert verdict.closed == {"as_of_order", "overlap", "not_identical", "non_inferiority"}
    assert verdict.evaluation.champion is not None
    assert not verdict.evaluation.champion.eligible
    assert "could not be scored" in verdict.report.read_text()


def test_onnx_that_scores_otherwise_than_eager_is_refused(shop: Any) -> None:
    verdict = Verdict(shop, [shop.model("esmm", {"validation": {"ctcvr_log_loss": 0.2}}, skill=0.95)])
    assert verdict.closed == {"parity"}
    silent = Verdict(shop, [shop.model("esmm", {"validation": {}, "onnx_difference": "tiny"}, skill=0.95)])
    assert silent.closed == {"parity"}


def test_badly_calibrated_is_refused(shop: Any) -> None:
    verdict = Verdict(shop, [shop.model("esmm", skill=0.95, shift=1.0)])
    assert verdict.closed >= {"calibration"}


def test_the_winner_is_chosen_on_the_cross_fitted_loss_and_parity_on_the_graphs(shop: Any) -> None:
    """A calibration that learnt validation by heart looks best there: what it says of folds it has not seen decides."""
    models = [
        shop.model("base", {"cross_fitted_ctcvr_log_loss": 0.060}, skill=0.95),
        shop.model("esmm", {"cross_fitted_ctcvr_log_loss": 0.059}, skill=0.9),
    ]
    verdict = Verdict(shop, models)
    base, esmm = verdict.evaluation.candidates
    assert base.validation.ctcvr_log_loss < esmm.validation.ctcvr_log_loss
    assert verdict.decision.winner == "esmm"
    assert esmm.validation_loss == 0.059
    parity = next(gate for gate in verdict.decision.gates if gate.gate == "parity")
    assert parity.evidence["onnx_log_loss"] == esmm.validation.ctcvr_log_loss
    unrecorded = Verdict(shop, [shop.model("base", skill=0.95), shop.model("esmm", skill=0.9)])
    assert unrecorded.decision.winner == "base"


def test_the_report_says_how_pcvr_was_calibrated_and_on_what(shop: Any) -> None:
    before = {"cvr_calibration_clicked": 0.4321, "cvr_log_loss_clicked": 0.54321}
    folder = shop.model("aman", {"uncalibrated": before}, skill=0.95)
    info = json.loads((folder / "model.json").read_text())
    info["calibration"] = {
        "kind": "platt", "scale": 0.9, "bias": 0.8, "clicks": 3210, "conversions": 432, "note": "<why>",
    }  # fmt: skip
    write_json(folder / "model.json", info)
    write_manifest(folder)
    verdict = Verdict(shop, [folder, shop.model("base", skill=0.1)])
    (aman, base) = verdict.evaluation.candidates
    assert aman.uncalibrated == before
    assert base.calibration is not None
    assert base.calibration.kind == "none"
    page = verdict.report.read_text()
    for words in ("Platt: scale 0.9, bias +0.8", "3,210 clicked validation impressions (432 conversions)",
                  ">0.432<", ">0.54321<", "aman: &lt;why&gt;.", "Fitted on clicked impressions"):  # fmt: skip
        assert words in page, words
    assert "Platt scaling (scale 0.9, bias +0.8), fitted on 3,210 clicked validation impressions" in verdict.card


def test_truth_is_used_when_planned_and_puts_the_oracle_on_top(shop: Any) -> None:
    models = [shop.model("esmm", skill=0.9), shop.model("base", skill=0.4, shift=0.5)]
    verdict = Verdict(shop, models, truth_fingerprint=truth_fingerprint(shop.data))
    esmm, base = verdict.evaluation.candidates
    oracle = verdict.evaluation.oracle
    assert esmm.test is not None
    assert oracle["ctr_auc"] >= esmm.test.ctr_auc - 0.01
    assert oracle["entire_space_cvr_auc"] >= esmm.truth["entire_space_cvr_auc"]
    assert base.truth["entire_space_cvr_ratio"] > 1.2
    assert esmm.truth["entire_space_cvr_excess"] < base.truth["entire_space_cvr_excess"]
    assert oracle["ctr_auc_logged"] > oracle["ctr_auc"]
    unplanned = Verdict(shop, models)
    assert unplanned.evaluation.oracle == {}
    assert unplanned.evaluation.candidates[0].truth == {}


def test_truth_that_changed_or_is_incomplete_is_an_error(shop: Any) -> None:
    models = [shop.model("esmm")]
    with pytest.raises(DataError, match="changed since the run was planned"):
        Verdict(shop, models, truth_fingerprint="other")
    file = next((shop.data / "truth").rglob("*.parquet"))
    pq.write_table(pq.read_table(file).slice(1), file)
    with pytest.raises(DataError, match="exactly once"):
        Verdict(shop, models, truth_fingerprint=truth_fingerprint(shop.data))


def test_notes_say_what_to_know_before_believing(make_shop: Callable[..., Any]) -> None:
    shop = make_shop(rows=3000)
    write_info(shop.data, DatasetInfo(name="shop", source="tables"))
    manifest = read_manifest(shop.dataset)
    hashed = Ranges(kind="hash", train=("0.4", "1"), valid=("0.2", "0.4"), test=("0", "0.2"), seed=7)
    write_manifest(shop.dataset, rows=manifest["rows"], ranges=hashed.model_dump())
    notes = " ".join(Verdict(shop, [shop.model("esmm")]).evaluation.notes)
    assert "labels are taken as final" in notes
    assert "seeded hash of the user (seed 7)" in notes
    assert "conversions in the test split" in notes


def test_a_published_split_is_noted_and_its_ranges_told_apart(make_shop: Callable[..., Any]) -> None:
    shop = make_shop(rows=3000)
    before = ("2018-01-01T00:00:00Z", "2018-01-02T00:00:00Z")
    published = Ranges(
        kind="published", train=before, valid=before, test=("2018-01-02T00:00:00Z", "2018-01-03T00:00:00Z"), seed=9
    )
    write_manifest(shop.dataset, rows=read_manifest(shop.dataset)["rows"], ranges=published.model_dump())
    verdict = Verdict(shop, [shop.model("esmm")])
    assert any("as the data's publisher cut it" in note and "seed 9" in note for note in verdict.evaluation.notes)
    page = verdict.report.read_text()
    assert "[2018-01-01T00:00:00Z, 2018-01-02T00:00:00Z), most of its users" in page
    assert "[2018-01-01T00:00:00Z, 2018-01-02T00:00:00Z), its other users" in page
    assert "hash space" not in page


def test_what_is_known_of_the_data_reaches_the_report(make_shop: Callable[..., Any]) -> None:
    shop = make_shop(rows=3000)
    manifest = read_manifest(shop.dataset)
    assert Verdict(shop, [shop.model("esmm")]).evaluation.quality == Quality()
    quality = Quality(
        days=(DayQuality(day="2026-01-06", rows=100, bad=3, reasons={"FUNNEL": 3}),), reference="drift was not judged"
    )
    write_manifest(
        shop.dataset, rows=manifest["rows"], ranges=manifest["ranges"], quality=quality.model_dump(mode="json")
    )
    verdict = Verdict(shop, [shop.model("base")])
    assert verdict.evaluation.quality == quality
    page = verdict.report.read_text()
    assert "3 of 100 rows (3.00%)" in page
    assert 'data-plot="quarantine"' in page
    assert "Drift was not judged." in page


def test_a_changed_candidate_or_an_empty_split_is_an_error(shop: Any) -> None:
    model = shop.model("esmm")
    with pytest.raises(DataError, match="no model"):
        Verdict(shop, [])
    (model / "weights.safetensors").write_text("other")
    with pytest.raises(CorruptArtifact, match="weights"):
        Verdict(shop, [model])
    for file in (shop.dataset / "test").glob("*.parquet"):
        file.unlink()
    reseal(shop.dataset)
    with pytest.raises(DataError, match="no rows"):
        Verdict(shop, [shop.model("base")])


def test_the_same_input_gives_the_same_evaluation_and_report(shop: Any) -> None:
    champion = shop.model("base", ranges=OLD, as_of="2025-12-27T00:00:00Z", skill=0.9)
    models = [shop.model("esmm", skill=0.95)]
    one, two = Verdict(shop, models, champion), Verdict(shop, models, champion)
    assert one.evaluation == two.evaluation
    assert one.report.read_text() == two.report.read_text()
