"""The stage: artifacts written, equal to the byte for equal seeds, refused or marked ineligible when they must be."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from components.contracts.artifacts import model_identity, read_model
from components.contracts.errors import CorruptArtifact, DataError, UsageError
from components.contracts.files import listing, read_json, write_manifest
from components.contracts.spec import Feature, FeatureSpec
from components.scoring.score import Scorer
from components.training import export, train
from components.training.config import CANDIDATES
from components.training.train import run

ROOT = Path(__file__).parents[2]
FILES = ["encoder.json", "encoder.npz", "metrics.json", "model.json", "model.onnx", "weights.safetensors"]
PROGRAM = """
import sys
from pathlib import Path
from components.training.train import TrainConfig, run
run(sys.argv[1], TrainConfig.parse(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4]))
"""


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_a_model_artifact_is_whole_and_scores(
    candidate: str, encoded: Path, tmp_path: Path, make_config: Any, raw: Any
) -> None:
    facts = run(candidate, make_config(), encoded, tmp_path / "below" / "model")
    folder = tmp_path / "below" / "model"
    assert listing(folder) == FILES
    info = read_model(folder)
    assert (info.candidate, info.dataset, info.as_of, info.data_fingerprint, info.code, info.seed) == (
        candidate, "shop", "2026-01-10T00:00:00Z", "f", "c", 0,
    )  # fmt: skip
    assert info.ranges.train == ("0", "0.6")
    assert info.architecture["embeddings"] == ("shared" if CANDIDATES[candidate].share_embeddings else "own")
    assert info.architecture["dimensions"] == [4, 4, 4, 2]
    recorded = read_json(folder / "metrics.json")
    assert recorded["eligible"] is True
    # The log odds of DIVISION's ratio carry the rounding of both its parts.
    assert 0 <= recorded["onnx_difference"] < (export.TOLERANCE if candidate == "division" else 1e-6)
    assert facts["eligible"]
    assert facts["train_rows"] == 4000

    columns, _, conversion = raw(4000, 1)
    scores = Scorer(folder).score(columns, "logged")
    loss = -np.where(conversion, np.log(scores.pctcvr), np.log1p(-scores.pctcvr)).mean()
    assert recorded["validation"]["ctcvr_log_loss"] == pytest.approx(loss, rel=1e-5)
    assert recorded["validation"]["ctcvr_calibration"] == pytest.approx(
        scores.pctcvr.sum() / conversion.sum(), rel=1e-5
    )
    rate = conversion.mean()
    assert loss < -(rate * np.log(rate) + (1 - rate) * np.log(1 - rate)) - 0.02


def test_same_seed_and_data_are_the_same_bytes_in_another_process(
    encoded: Path, tmp_path: Path, make_config: Any
) -> None:
    for n, hash_seed in enumerate(("1", "2")):
        command = [sys.executable, "-c", PROGRAM, "esmm-ns", make_config().to_json(), encoded, tmp_path / str(n)]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([str(c) for c in command], env=environment, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout == ""
    for name in [*FILES, "manifest.json"]:
        assert (tmp_path / "0" / name).read_bytes() == (tmp_path / "1" / name).read_bytes(), name


def test_another_seed_is_another_model(encoded: Path, tmp_path: Path, make_config: Any) -> None:
    for seed in (0, 1):
        run("esmm", make_config(seed=seed, max_steps=2), encoded, tmp_path / str(seed))
    assert model_identity(tmp_path / "0") != model_identity(tmp_path / "1")


def test_no_path_or_time_is_in_the_graph(encoded: Path, tmp_path: Path, make_config: Any) -> None:
    run("esmm", make_config(max_steps=1), encoded, tmp_path / "model")
    data = (tmp_path / "model" / "model.onnx").read_bytes()
    assert b".py" not in data
    assert str(ROOT).encode() not in data


def test_weights_hold_shared_tables_once(encoded: Path, tmp_path: Path, make_config: Any) -> None:
    for candidate, tables in (("esmm", 3), ("esmm-ns", 5)):
        run(candidate, make_config(max_steps=1), encoded, tmp_path / candidate)
        weights = load_file(tmp_path / candidate / "weights.safetensors")
        assert sum("tables" in name for name in weights) == tables


def test_one_step_makes_a_model_that_knows_little_more_than_the_base_rates(
    encoded: Path, tmp_path: Path, make_config: Any, raw: Any
) -> None:
    facts = run("esmm", make_config(max_steps=1), encoded, tmp_path / "model")
    assert facts["steps"] == facts["best_step"] == 1
    columns, click, _ = raw(4000, 1)
    scores = Scorer(tmp_path / "model").score(columns)
    assert scores.pctr.mean() == pytest.approx(click.mean(), abs=0.1)


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_a_candidate_that_diverges_is_recorded_without_weights(
    candidate: str, encoded: Path, tmp_path: Path, make_config: Any
) -> None:
    facts = run(candidate, make_config(lr=1e30), encoded, tmp_path / "model")
    assert not facts["eligible"]
    assert "diverged" in facts["reason"]
    assert listing(tmp_path / "model") == ["diverged.npz", "encoder.json", "encoder.npz", "metrics.json", "model.json"]
    assert read_json(tmp_path / "model" / "metrics.json") == {
        "eligible": False, "reason": facts["reason"], "history": [],
    }  # fmt: skip
    assert read_model(tmp_path / "model").candidate == candidate
    with pytest.raises(DataError, match="not eligible"):
        Scorer(tmp_path / "model")


def test_a_graph_that_differs_from_eager_makes_the_candidate_ineligible(
    encoded: Path, tmp_path: Path, make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wrong(export.Probabilities):
        def forward(self, ids: Any, dense: Any, weights: Any) -> Any:
            pctr, pcvr = super().forward(ids, dense, weights)
            return pctr, pcvr * 0.999

    monkeypatch.setattr(export, "Probabilities", Wrong)
    facts = run("esmm", make_config(max_steps=3), encoded, tmp_path / "model")
    assert not facts["eligible"]
    assert "differs from eager" in facts["reason"]
    recorded = read_json(tmp_path / "model" / "metrics.json")
    assert recorded["eligible"] is False
    assert recorded["onnx_difference"] > 1e-5


@pytest.mark.parametrize(
    "features",
    [
        [("hour", "id")],
        [("hour", "numeric")],
        [("hour", "id"), ("position", "id")],
        [("hour", "numeric"), ("position", "id")],
        [("hour", "bucket"), ("other", "numeric")],
    ],
)
def test_few_features_export_and_score_one_row(
    features: list[tuple[str, str]], tmp_path: Path, make_config: Any
) -> None:
    """An input that nothing reads is left out of the graph, and a batch of one works."""
    spec = FeatureSpec(
        features=tuple(
            Feature(name=n, source="context", dtype="int", encoding=e, tower="ctr" if n == "position" else "shared")
            for n, e in features
        )
    )
    rng = np.random.default_rng(0)
    columns = {name: rng.integers(0, 9, 300) for name, _ in features}
    folder = tmp_path / "encoded"
    encoder = train.Encoder.fit(spec, columns)
    folder.mkdir()
    encoder.save(folder)
    click = rng.random(300) < 0.3
    for split in ("train", "valid"):
        (folder / split).mkdir()
        encoded = encoder.transform(columns)
        arrays = {**vars(encoded), "click": click, "conversion": click & (columns["hour"] > 4)}
        for name, array in arrays.items():
            np.save(folder / split / f"{name}.npy", array)
    write_manifest(folder, ranges={"kind": "hash", "train": ["0", "1"], "valid": ["0", "1"], "test": ["0", "1"]})
    assert run("esmm", make_config(batch_size=32), folder, tmp_path / "model")["eligible"]
    scorer = Scorer(tmp_path / "model")
    whole = scorer.score(columns)
    one = scorer.score({name: column[:1] for name, column in columns.items()})
    assert one.pctr == pytest.approx(whole.pctr[:1], abs=1e-6)
    assert one.pctr.shape == (1,)


def test_unknown_candidate_and_absent_gpu_are_refused(encoded: Path, tmp_path: Path, make_config: Any) -> None:
    with pytest.raises(UsageError, match="'esmn': choose one of aman, base, "):
        run("esmn", make_config(), encoded, tmp_path / "model")
    if not train.torch.cuda.is_available():
        with pytest.raises(UsageError, match="no usable GPU"):
            run("esmm", make_config(device="cuda"), encoded, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_an_encoded_artifact_that_was_tampered_with_is_refused(encoded: Path, tmp_path: Path, make_config: Any) -> None:
    copy = tmp_path / "encoded"
    shutil.copytree(encoded, copy)
    ids = np.load(copy / "train" / "ids.npy")
    ids[0, 0] = 10_000
    np.save(copy / "train" / "ids.npy", ids)
    with pytest.raises(CorruptArtifact, match=r"ids\.npy"):
        run("esmm", make_config(), copy, tmp_path / "model")
    facts = json.loads((copy / "manifest.json").read_text())
    write_manifest(copy, ranges=facts["ranges"])
    with pytest.raises(DataError, match="does not fit the encoder"):
        run("esmm", make_config(), copy, tmp_path / "model")
    write_manifest(copy)
    with pytest.raises(DataError, match="no time ranges"):
        run("esmm", make_config(), copy, tmp_path / "model")


@pytest.mark.parametrize("flipped", FILES)
def test_a_flipped_byte_in_a_model_is_noticed(
    flipped: str, encoded: Path, tmp_path_factory: pytest.TempPathFactory, make_config: Any
) -> None:
    folder = tmp_path_factory.getbasetemp() / "whole_model"
    if not folder.exists():
        run("esmm", make_config(max_steps=1), encoded, folder)
    copy = tmp_path_factory.mktemp("flipped") / "model"
    shutil.copytree(folder, copy)
    data = bytearray((copy / flipped).read_bytes())
    data[len(data) // 2] ^= 1
    (copy / flipped).write_bytes(bytes(data))
    with pytest.raises(CorruptArtifact, match=flipped):
        Scorer(copy)


def test_the_shell_records_what_it_did(
    encoded: Path, tmp_path: Path, make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kfp.dsl import Dataset, Model

    from components.training.component import train as component

    monkeypatch.setenv("ESMM_RUN_DIR", str(tmp_path / "run"))
    component.python_func(
        "base", make_config(max_steps=1).to_json(), Dataset(uri=str(encoded)), Model(uri=str(tmp_path / "model"))
    )
    record = read_json(tmp_path / "run" / "train-base.json")
    assert record["status"] == "succeeded"
    assert record["facts"]["eligible"] is True
