"""The KFP shells, called as plain functions, with a real ONNX model, the real encoder and the real scorer."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pyarrow.parquet as pq
import pytest
from onnx import TensorProto, helper

from components.contracts.artifacts import ModelInfo, read_model
from components.contracts.decision import ChampionRef, Evaluation
from components.contracts.errors import DataError
from components.contracts.files import read_json, read_manifest, write_json, write_manifest, write_text
from components.evaluation.component import evaluate
from components.evaluation.entrants import judge_champion, load_scorer
from components.evaluation.evaluate import EvaluateConfig
from components.evaluation.record_component import collect, finish
from components.evaluation.scored import load_split
from components.scoring.encoder import Encoder
from components.scoring.raw import columns_from_table
from components.scoring.score import Scorer


def graph(click: tuple[float, float], conversion: tuple[float, float]) -> onnx.ModelProto:
    """pctr = sigmoid(a + b * taste), pcvr = sigmoid(c + d * wealth) ; `dense`: value, flag, value, flag."""
    nodes, weights = [], []
    for name, column, (bias, slope) in (("pctr", 0, click), ("pcvr", 2, conversion)):
        matrix = np.zeros((4, 1), dtype=np.float32)
        matrix[column] = slope
        weights += [helper.make_tensor(f"{name}_w", TensorProto.FLOAT, [4, 1], matrix.ravel())]
        weights += [helper.make_tensor(f"{name}_b", TensorProto.FLOAT, [1], [bias])]
        nodes += [helper.make_node("MatMul", ["dense", f"{name}_w"], [f"{name}_m"])]
        nodes += [helper.make_node("Add", [f"{name}_m", f"{name}_b"], [f"{name}_z"])]
        nodes += [helper.make_node("Sigmoid", [f"{name}_z"], [name])]
    made = helper.make_graph(
        nodes,
        "funnel",
        [helper.make_tensor_value_info("dense", TensorProto.FLOAT, ["rows", 4])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", 1]) for name in ("pctr", "pcvr")],
        weights,
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def real_model(shop: Any, name: str, slope: float) -> Path:
    """A model folder as training leaves it, whose eager validation loss is what its own graph gives."""
    folder: Path = shop.model(name, {"validation": {"ctcvr_log_loss": 1.0}})
    spec = ModelInfo.parse((folder / "model.json").read_bytes()).spec
    table = pq.read_table(shop.dataset / "valid")
    columns = columns_from_table(table, [feature.name for feature in spec.features])
    Encoder.fit(spec, columns).save(folder)
    onnx.save(graph((-2.8, slope), (-1.6, slope)), str(folder / "model.onnx"))
    write_manifest(folder)
    p, y = Scorer(folder).score(columns, "logged").pctcvr, table["conversion"].to_numpy()
    loss = float(-np.mean(np.where(y, np.log(p), np.log1p(-p))))
    write_json(
        folder / "metrics.json",
        {
            "eligible": True,
            "reason": "",
            "onnx_difference": 1e-7,
            "validation": {"ctcvr_log_loss": loss},
            "history": [],
        },
    )
    write_manifest(folder)
    return folder


def artifact(path: Path) -> SimpleNamespace:
    return SimpleNamespace(path=str(path))


class Logged:
    """Stands for KFP's Metrics."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.values: dict[str, float] = {}

    def log_metric(self, name: str, value: float) -> None:
        assert np.isfinite(value)
        self.values[name] = value


@pytest.fixture
def run_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "runs" / "r1"
    folder.mkdir(parents=True)
    monkeypatch.setenv("ESMM_RUN_DIR", str(folder))
    return folder


def test_evaluate_record_and_finish_in_turn(shop: Any, run_dir: Path) -> None:
    config = EvaluateConfig.parse({"data": str(shop.data), "as_of": "2026-01-17T00:00:00Z", "dataset": "shop"})
    out = shop.root / "out"
    models = [artifact(real_model(shop, name, slope)) for name, slope in (("esmm", 0.9), ("base", 0.3))]
    logged = Logged(run_dir.parent / "metrics")
    promote = evaluate.python_func(
        config=config.to_json(),
        models=models,
        dataset=artifact(shop.dataset),
        winner=artifact(out / "winner"),
        evaluation=artifact(out / "evaluation"),
        report=artifact(out / "report"),
        metrics=logged,
    )
    found = Evaluation.parse((out / "evaluation" / "evaluation.json").read_bytes())
    assert promote is True, found.decision.reasons
    assert found.decision.winner == "esmm"
    assert read_model(out / "winner").candidate == "esmm"
    assert logged.values["ctcvr_auc"] > 0.7
    assert logged.values["cvr_auc_clicked"] > 0.65
    written = read_json(run_dir / "evaluate.json")
    assert written["status"] == "succeeded"
    assert written["facts"]["promote"] is True
    assert written["facts"]["winner_fingerprint"] == read_manifest(out / "winner")["fingerprint"]

    write_text(out / "docs", "<p>docs</p>")
    collect.python_func(
        evaluation=artifact(out / "evaluation"),
        report=artifact(out / "report"),
        docs=artifact(out / "docs"),
        quarantine=artifact(out / "quarantine"),
        features=artifact(out / "features"),
        dataset=artifact(out / "dataset"),
        winner=artifact(out / "winner"),
    )
    noted = read_json(run_dir / "collect.json")["facts"]["artifacts"]
    assert noted == {name: str(out / name) for name in ("features", "dataset", "winner")}
    assert {path.name for path in run_dir.iterdir()} == {
        *("evaluate.json", "collect.json", "evaluation.json", "decision.json", "report.html", "validation.html")
    }

    finish.python_func(status=SimpleNamespace(state="SUCCEEDED"))
    summary = read_json(run_dir / "record.json")
    assert summary["code"] == "NotPromoted"  # nothing packaged or promoted it here
    assert summary["candidates"]["esmm"]["ctcvr_auc"] == logged.values["ctcvr_auc"]


def test_a_champion_whose_graph_no_runtime_can_read_closes_the_comparison(shop: Any) -> None:
    champion = real_model(shop, "old", 0.3)
    (champion / "model.onnx").write_bytes(b"no graph")
    write_manifest(champion)
    evidence, candidate, scored = judge_champion(
        ChampionRef(version=2, source=str(champion)), load_scorer, load_split(shop.dataset, "test"), None
    )
    assert scored is None
    assert not candidate.eligible
    assert "model.onnx" in evidence.error


def test_a_failing_evaluation_leaves_its_sentence(shop: Any, run_dir: Path) -> None:
    config = EvaluateConfig.parse({"data": str(shop.data), "as_of": "2026-01-17T00:00:00Z", "dataset": "shop"})
    out = artifact(shop.root / "out")
    with pytest.raises(DataError):
        evaluate.python_func(
            config.to_json(), [], artifact(shop.dataset), out, out, out, Logged(run_dir.parent / "metrics")
        )
    failed = json.loads((run_dir / "evaluate.json").read_text())
    assert (failed["status"], failed["code"]) == ("failed", "DataError")
    finish.python_func(status=SimpleNamespace(state="FAILED"))
    assert read_json(run_dir / "record.json")["reasons"] == [f"evaluate: {failed['message']}"]


def test_shells_outside_a_run_write_no_record(shop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ESMM_RUN_DIR", raising=False)
    finish.python_func(status=SimpleNamespace(state="SUCCEEDED"))
    names = ("evaluation", "report", "docs", "quarantine", "features", "dataset", "winner")
    collect.python_func(*[artifact(tmp_path / name) for name in names])
    assert not list(tmp_path.rglob("record.json"))
