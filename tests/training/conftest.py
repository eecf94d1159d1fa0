"""A small encoded artifact with learnable clicks and conversions, and a network over it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.contracts.files import write_manifest
from components.contracts.spec import Feature, FeatureSpec
from components.scoring.encoder import Encoder
from components.training.train import TrainConfig, TrainingConfig

SPEC = FeatureSpec(
    features=(
        Feature(name="user_id", source="id", dtype="string", encoding="id", min_count=1, dimension=4),
        Feature(name="item_id", source="id", dtype="string", encoding="id", min_count=1, dimension=4),
        Feature(name="position", source="context", dtype="int", encoding="id", min_count=1, tower="ctr", dimension=4),
        Feature(name="speed", source="context", dtype="float", encoding="bucket", buckets=4, dimension=2),
        Feature(name="age", source="context", dtype="float", encoding="numeric"),
    )
)


def impressions(rows: int, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Raw columns, click and conversion; users and items differ in both."""
    rng = np.random.default_rng(seed)
    user, item = rng.integers(0, 40, rows), rng.integers(0, 20, rows)
    columns = {
        "user_id": np.array([f"u{n}" for n in user], object),
        "item_id": np.array([f"i{n}" for n in item], object),
        "position": rng.integers(1, 6, rows),
        "speed": rng.normal(size=rows),
        "age": np.where(rng.random(rows) < 0.1, np.nan, rng.normal(size=rows)),
    }
    a = -0.5 + 2.0 * (user % 2) - 2.0 * (item % 3 == 0) - 0.2 * columns["position"]
    b = -0.5 + 2.0 * (item % 2) - 1.0 * (user % 3 == 0)
    click = rng.random(rows) < 1 / (1 + np.exp(-a))
    conversion = click & (rng.random(rows) < 1 / (1 + np.exp(-b)))
    return columns, click, conversion


def write_encoded(folder: Path, spec: FeatureSpec = SPEC, rows: int = 4000) -> Path:
    folder.mkdir(parents=True)
    encoder = Encoder.fit(spec, impressions(rows, 0)[0])
    encoder.save(folder)
    for seed, split in enumerate(("train", "valid")):
        columns, click, conversion = impressions(rows, seed)
        encoded = encoder.transform(columns)
        (folder / split).mkdir()
        arrays = {**vars(encoded), "click": click, "conversion": conversion}
        for name, array in arrays.items():
            np.save(folder / split / f"{name}.npy", array)
    ranges = {"kind": "hash", "train": ["0", "0.6"], "valid": ["0.6", "0.8"], "test": ["0.8", "1"]}
    write_manifest(folder, rows={"total": 2 * rows, "train": rows, "valid": rows}, ranges=ranges)
    return folder


def config(**training: Any) -> TrainConfig:
    small = {"batch_size": 128, "min_steps": 1, "hidden": (8,), **training}
    return TrainConfig(
        training=TrainingConfig(**small), dataset="shop", as_of="2026-01-10T00:00:00Z", data_fingerprint="f", code="c"
    )


@pytest.fixture(scope="session")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Not to be changed: copy it first."""
    return write_encoded(tmp_path_factory.mktemp("training") / "encoded")


@pytest.fixture
def make_config() -> Any:
    return config


@pytest.fixture
def make_encoded() -> Any:
    return write_encoded


@pytest.fixture
def raw() -> Any:
    return impressions
