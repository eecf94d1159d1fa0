"""Calibration in the model artifact: in the graph, in its JSON, and on rows that nothing was fitted on."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, logit
from sklearn.metrics import roc_auc_score
from training.conftest import config, write_encoded

from components.contracts.artifacts import METRICS_JSON, read_model
from components.contracts.calibration import Calibration
from components.contracts.files import read_json, read_manifest, write_manifest
from components.evaluation.evidence import Evidence
from components.evaluation.gates import EvaluationConfig, calibration
from components.evaluation.metrics import Outcome, Predicted, metrics
from components.scoring.encoder import Encoder
from components.scoring.score import Scorer
from components.training import export
from components.training.calibration import Calibrated, Clicks, isotonic
from components.training.config import CANDIDATES, CandidateConfig
from components.training.data import Rates, load
from components.training.fit import predict
from components.training.train import build, run

AMAN = CandidateConfig(share_embeddings=False, cvr_loss="random_negatives", negative_rate=1.0)
KINDS = {
    "none": Calibration(),
    "platt": Calibration(kind="platt", scale=0.37, bias=-1.4),
    "isotonic": Calibration(kind="isotonic", scale=0.6, knots=((-1.2, -2.0), (-1.0, -1.9), (-0.9, -0.9), (0.4, 0.3))),
}


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough conversions on validation for isotonic."""
    return write_encoded(tmp_path_factory.mktemp("large") / "encoded", rows=12_000)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("candidate", ["esmm", "division"])
def test_every_kind_is_in_the_graph(kind: str, candidate: str, encoded: Path, tmp_path: Path, make_config: Any) -> None:
    encoder, training = Encoder.load(encoded), make_config(embedding_deviation=2.0).training
    rows = load(encoded, "valid", encoder, torch.device("cpu"))
    network = build(encoder, training, CANDIDATES[candidate], Rates(0.3, 0.3))
    model = Calibrated(network, KINDS[kind])
    export.save_onnx(model, tmp_path / "model.onnx", rows)
    # The log odds of DIVISION's ratio carry the rounding of both its parts.
    limit = export.TOLERANCE if candidate == "division" else 1e-6
    assert export.onnx_difference(model, tmp_path / "model.onnx", rows) < limit
    raw, calibrated = predict(network, rows)[1].double().numpy(), predict(model, rows)[1].double().numpy()
    assert raw.max() - raw.min() > 1
    if kind == "none":
        assert (raw == calibrated).all()
        plain = export.Probabilities(Calibrated(network, Calibration()))
        assert not [name for name, _ in plain.named_parameters() if "curve" in name]
    if kind == "platt":
        assert calibrated == pytest.approx(0.37 * raw - 1.4, abs=1e-5)
    if kind == "isotonic":
        assert ((raw < -1.2) | (raw > 0.4)).any()
        assert ((raw > -1.2) & (raw < 0.4)).any()
        assert (np.diff(calibrated[np.argsort(raw)]) >= 0).all()


def test_a_graph_that_lacks_the_calibration_makes_the_candidate_ineligible(
    encoded: Path, tmp_path: Path, make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forgetful(export.Probabilities):
        def forward(self, ids: Any, dense: Any, weights: Any) -> Any:
            return tuple(torch.sigmoid(logit) for logit in self.network.network(ids, dense, weights))

    monkeypatch.setattr(export, "Probabilities", Forgetful)
    facts = run("aman", make_config(), encoded, tmp_path / "model")
    assert not facts["eligible"]
    assert "differs from eager" in facts["reason"]


@pytest.fixture(scope="module")
def aman(encoded: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """AMAN taking every impression without a click for one without a conversion, which puts pCVR far too low."""
    folder = tmp_path_factory.mktemp("aman")
    for wanted in ("none", "auto"):
        settings = config(calibration=wanted, lr=1e-2, candidates={"aman": AMAN})
        run("aman", settings, encoded, folder / wanted)
    return {wanted: folder / wanted for wanted in ("none", "auto")}


def test_a_miscalibrated_network_is_calibrated_on_clicks_nothing_was_fitted_on(aman: dict[str, Path], raw: Any) -> None:
    columns, click, conversion = raw(20_000, 7)
    ratios = {}
    for wanted, folder in aman.items():
        scores = Scorer(folder).score(columns, "logged")
        ratios[wanted] = scores.pcvr[click].sum() / conversion.sum()
    fitted_on = read_model(aman["auto"]).calibration.conversions
    # Both counts of conversions are Poisson, but for what the columns know.
    error = np.sqrt(1 / fitted_on + 1 / conversion.sum())
    assert ratios["none"] < 0.85
    assert abs(ratios["auto"] - 1) < 3 * error < 0.2


def test_weights_are_the_networks_and_pcvr_ranks_as_before(aman: dict[str, Path], raw: Any) -> None:
    weights = [(folder / "weights.safetensors").read_bytes() for folder in aman.values()]
    assert weights[0] == weights[1]
    columns, click, conversion = raw(4000, 7)
    plain, calibrated = (Scorer(aman[wanted]).score(columns, "logged") for wanted in ("none", "auto"))
    found = read_model(aman["auto"]).calibration
    assert found.kind == "platt"
    assert (plain.pctr == calibrated.pctr).all()
    assert logit(calibrated.pcvr) == pytest.approx(found.scale * logit(plain.pcvr) + found.bias, abs=1e-5)
    assert (calibrated.pctcvr == calibrated.pctr * calibrated.pcvr).all()
    aucs = [roc_auc_score(conversion[click], s.pcvr[click]) for s in (plain, calibrated)]
    # The order is the same; float32 may tie two probabilities that were neighbours.
    assert aucs[1] == pytest.approx(aucs[0], abs=1e-6)
    assert aucs[0] > 0.6


def test_metrics_json_tells_raw_from_calibrated_and_what_it_was_fitted_on(aman: dict[str, Path], raw: Any) -> None:
    recorded, info = read_json(aman["auto"] / METRICS_JSON), read_model(aman["auto"])
    _, click, conversion = raw(4000, 1)
    assert recorded["calibration"] == info.calibration.model_dump(mode="json")
    assert (info.calibration.clicks, info.calibration.conversions) == (click.sum(), conversion.sum())
    before, after = recorded["uncalibrated"], recorded["validation"]
    assert before["cvr_calibration_clicked"] < 0.85
    # In the fit, predicted equals observed but for the prior, which is worth about one conversion.
    assert after["cvr_calibration_clicked"] == pytest.approx(1, abs=2 / conversion.sum())
    assert after["cvr_log_loss_clicked"] < before["cvr_log_loss_clicked"] - 0.01
    assert after["ctcvr_log_loss"] < recorded["cross_fitted_ctcvr_log_loss"] < before["ctcvr_log_loss"]
    assert {name: after[name] for name in ("ctr_log_loss", "ctr_calibration", "clicks")} == {
        name: before[name] for name in ("ctr_log_loss", "ctr_calibration", "clicks")
    }
    none = read_json(aman["none"] / METRICS_JSON)
    assert none["validation"] == none["uncalibrated"] == before
    assert none["cross_fitted_ctcvr_log_loss"] == before["ctcvr_log_loss"]


def gate(folder: Path, columns: Any, click: Any, conversion: Any) -> bool:
    scores = Scorer(folder).score(columns, "logged")
    logged = metrics(Predicted(scores.pctr, scores.pcvr, scores.pctcvr), Outcome(click, conversion))
    return calibration(Evidence("aman", "2026-01-10T00:00:00Z", logged=logged), EvaluationConfig())[0]


def test_the_gate_judges_what_is_served_and_calibration_does_not_open_it_for_another_rate(
    aman: dict[str, Path], raw: Any
) -> None:
    """On rows like validation's it opens for the calibrated model alone; where conversions halved, it stays closed."""
    columns, click, conversion = raw(20_000, 7)
    limits = {wanted: gate(folder, columns, click, conversion) for wanted, folder in aman.items()}
    assert limits == {"none": False, "auto": True}
    halved = conversion & (np.random.default_rng(0).random(20_000) < 0.5)
    assert not gate(aman["auto"], columns, click, halved)


def test_isotonic_comes_through_the_stage_and_equal_inputs_give_equal_bytes(
    large: Path, tmp_path: Path, make_config: Any, raw: Any
) -> None:
    for n in "ab":
        run("aman", make_config(calibration="isotonic", max_steps=40), large, tmp_path / n)
    files = read_manifest(tmp_path / "a")["files"]
    assert files == read_manifest(tmp_path / "b")["files"]
    recorded = read_json(tmp_path / "a" / METRICS_JSON)
    assert recorded["eligible"]
    assert recorded["onnx_difference"] < 1e-6
    found = read_model(tmp_path / "a").calibration
    assert found.kind == "isotonic"
    assert found.conversions > 1000
    columns, click, conversion = raw(20_000, 7)
    scores = Scorer(tmp_path / "a").score(columns, "logged")
    assert scores.pcvr[click].sum() / conversion.sum() == pytest.approx(1, abs=0.1)


def test_without_conversions_on_validation_the_model_is_exported_as_it_is_and_says_why(
    encoded: Path, tmp_path: Path, make_config: Any
) -> None:
    copy = tmp_path / "encoded"
    shutil.copytree(encoded, copy)
    labels = copy / "valid" / "conversion.npy"
    np.save(labels, np.zeros_like(np.load(labels)))
    manifest = read_manifest(encoded)
    write_manifest(copy, rows=manifest["rows"], ranges=manifest["ranges"])
    facts = run("esmm", make_config(max_steps=5), copy, tmp_path / "model")
    assert facts["eligible"]
    assert "none of its clicks on validation converted" in facts["calibration"]
    found = read_model(tmp_path / "model").calibration
    assert (found.kind, found.conversions) == ("none", 0)
    assert found.clicks > 0


def test_an_isotonic_fit_is_written_without_loss() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(-2, 1, 20_000)
    found = isotonic(Clicks(logits, rng.random(20_000) < expit(2 * logits + 2), np.arange(20_000) % 5))
    assert found.kind == "isotonic"
    assert Calibration.parse(found.model_dump_json(indent=1)) == found
