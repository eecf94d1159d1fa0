"""Layouts of what stages hand to each other. Every artifact is a folder sealed by `files.write_manifest`.

    impressions (ingest), clean (validate)     dt=YYYY-MM-DD/*.parquet: log columns + `split`; labels attributed.
                                               Manifest: maturity, imported (impressions), quality (clean)
    features (ingest)                          <view>/*.parquet, only rows with event and created before as-of
    quarantine (validate)                      *.parquet: the bad rows as they came, + `reason`; profile.json
    dataset (retrieve)                         train|valid|test/part-*.parquet: ids (group_id where a view is keyed by
                                               it), event_timestamp, raw feature values of the union spec, click,
                                               conversion. Manifest: quality
    encoded (encode)                           encoder.json, encoder.npz,
                                               train|valid/{ids,dense,weights,click,conversion}.npy
    model (train)                              model.json, encoder.json, encoder.npz, weights.safetensors, model.onnx,
                                               metrics.json (validation metrics, history, eligibility). The graph's
                                               pcvr is calibrated as model.json says; the weights are the network's
    evaluation (evaluate)                      evaluation.json (decision.py's `Evaluation`), plots' data included
    expected (materialize)                     expected.parquet: user_id, item_id, context, raw features as the
                                               service must see them after the materialization

Those of a search for a config are in `trial.py`.

Counts of rows travel in the manifests under `rows` and accumulate stage by stage.
"""

from __future__ import annotations

from pathlib import Path

from components.contracts.calibration import Calibration
from components.contracts.config import Config
from components.contracts.files import read_json, read_manifest, sha256_json
from components.contracts.spec import FeatureSpec

MODEL_JSON = "model.json"
METRICS_JSON = "metrics.json"
ENCODER_JSON = "encoder.json"
ENCODER_ARRAYS = "encoder.npz"
WEIGHTS = "weights.safetensors"
ONNX = "model.onnx"
EVALUATION_JSON = "evaluation.json"
EXPECTED = "expected.parquet"
EXPECTED_HOME = "home"
"""Beside it, where rows were pushed after as-of: a home whose feature store alone is filled, for the smoke test."""


class Rows(Config):
    """Where every row of the log went. `total` = invisible + immature + quarantined + gap + train + valid + test."""

    total: int = 0
    invisible: int = 0
    immature: int = 0
    quarantined: int = 0
    gap: int = 0
    train: int = 0
    valid: int = 0
    test: int = 0


class Ranges(Config):
    """What a model's data covered, so that a later test split can be checked against it.

    `kind` "time": bounds are ISO-8601 UTC; "hash": bounds are decimal shares of the hash space of users.
    Intervals are half-open [start, end). `seed` belongs to "hash".
    """

    kind: str
    train: tuple[str, str]
    valid: tuple[str, str]
    test: tuple[str, str]
    seed: int = 0


class ModelInfo(Config):
    """`model.json`: all that is needed to encode raw rows and to judge where the model comes from."""

    candidate: str
    architecture: dict[str, int | float | str | list[int]]
    spec: FeatureSpec
    ranges: Ranges
    dataset: str
    as_of: str
    data_fingerprint: str
    code: str
    seed: int
    calibration: Calibration = Calibration()


def read_model(folder: Path, verify: bool = True) -> ModelInfo:
    """Raises CorruptArtifact or DataError if the folder is not exactly what its manifest says."""
    read_manifest(folder, verify=verify)
    return ModelInfo.parse((folder / MODEL_JSON).read_bytes(), where=str(folder / MODEL_JSON))


def model_identity(folder: Path) -> str:
    """Hash of what makes predictions (weights, encoder, spec, calibration); equal for two runs of one training.

    A model that is not calibrated has the identity it had before there was calibration.
    """
    files = read_manifest(folder, verify=False)["files"]
    info = read_json(folder / MODEL_JSON)
    parts = [files.get(name, "") for name in (WEIGHTS, ENCODER_JSON, ENCODER_ARRAYS)]
    function = Calibration.parse(info.get("calibration", {}), where=str(folder / MODEL_JSON)).function
    return sha256_json([*parts, info["spec"], info["architecture"], *([function] if function else [])])
