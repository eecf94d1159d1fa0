"""A made-up shop for the evaluation tests: rows on disk, models that are formulas, evidence in a handful of numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.contracts.artifacts import ModelInfo, Ranges
from components.contracts.decision import Metrics
from components.contracts.files import write_json, write_manifest, write_text
from components.contracts.spec import Feature, FeatureSpec
from components.evaluation.comparison import Comparison, Interval
from components.evaluation.evidence import ChampionEvidence, Evidence, Parity

RANGES = Ranges(
    kind="time",
    train=("2026-01-01T00:00:00Z", "2026-01-10T00:00:00Z"),
    valid=("2026-01-11T00:00:00Z", "2026-01-13T00:00:00Z"),
    test=("2026-01-13T00:00:00Z", "2026-01-16T00:00:00Z"),
)
OLD = Ranges(
    kind="time",
    train=("2025-12-20T00:00:00Z", "2026-01-05T00:00:00Z"),
    valid=("2026-01-06T00:00:00Z", "2026-01-08T00:00:00Z"),
    test=("2026-01-08T00:00:00Z", "2026-01-11T00:00:00Z"),
)
SPEC = FeatureSpec(
    features=(
        Feature(name="user_id", source="id", dtype="string", encoding="id"),
        Feature(name="taste", source="context", dtype="float", encoding="numeric"),
        Feature(name="wealth", source="context", dtype="float", encoding="numeric"),
        Feature(name="position", source="context", dtype="int", encoding="id", tower="ctr"),
    )
)


def info(
    candidate: str = "esmm", ranges: Ranges = RANGES, as_of: str = "2026-01-17T00:00:00Z", **changes: Any
) -> ModelInfo:
    fields = {"spec": SPEC, "data_fingerprint": "data-1", "architecture": {}, "code": "c", "seed": 1} | changes
    return ModelInfo(candidate=candidate, ranges=ranges, as_of=as_of, dataset="shop", **fields)


METRICS = Metrics(
    rows=100_000,
    clicks=5_000,
    conversions=900,
    ctr_auc=0.70,
    cvr_auc_clicked=0.66,
    ctcvr_auc=0.78,
    ctr_log_loss=0.19,
    cvr_log_loss_clicked=0.45,
    ctcvr_log_loss=0.045,
    ctr_calibration=1.02,
    cvr_calibration_clicked=0.97,
    ctcvr_calibration=0.99,
)


def interval(low: float, high: float) -> Interval:
    return Interval(champion=0.05, candidate=0.05, difference=(low + high) / 2, low=low, high=high)


BETTER = Comparison(
    users=5000,
    replicates=1000,
    confidence=0.95,
    ctr_log_loss=interval(-0.01, 0.001),
    ctcvr_log_loss=interval(-0.02, 0.004),
)
FIRST = Evidence(
    winner="esmm",
    as_of="2026-01-17T00:00:00Z",
    ranges=RANGES,
    identity="winner",
    reference=METRICS,
    logged=METRICS,
    parity=Parity(recorded=2e-7, eager_log_loss=0.045, onnx_log_loss=0.045),
)
WITH_CHAMPION = replace(
    FIRST,
    champion=ChampionEvidence(3, info("base", OLD, "2026-01-12T00:00:00Z"), "champion"),
    comparison=BETTER,
)


@pytest.fixture
def first() -> Evidence:
    """A first run in which all is well."""
    return FIRST


@pytest.fixture
def against() -> Evidence:
    """A run against an older, slightly worse champion."""
    return WITH_CHAMPION


@dataclass(frozen=True)
class FakeScores:
    pctr: np.ndarray
    pcvr: np.ndarray

    @property
    def pctcvr(self) -> np.ndarray:
        return self.pctr * self.pcvr


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


CLICK_BIAS, CONVERSION_BIAS = -2.2, -1.6


def true_ctr(taste: np.ndarray, position: np.ndarray) -> np.ndarray:
    return sigmoid(CLICK_BIAS + taste - 0.15 * (position - 1))


def true_cvr(wealth: np.ndarray) -> np.ndarray:
    return sigmoid(CONVERSION_BIAS + wealth)


class FakeModel:
    """The truth, dimmed: `skill` 1 knows it, 0 knows the average only; `shift` moves pCVR in log odds."""

    def __init__(self, folder: Path, skill: float = 1.0, shift: float = 0.0, broken: bool = False) -> None:
        self.info = ModelInfo.parse((folder / "model.json").read_bytes())
        self.skill, self.shift, self.broken = skill, shift, broken

    def score(self, columns: Mapping[str, Any], position: str = "reference") -> FakeScores:
        taste, wealth = np.asarray(columns["taste"], float), np.asarray(columns["wealth"], float)
        at = np.ones(len(taste)) if position == "reference" else np.asarray(columns["position"], float)
        pctr = sigmoid(CLICK_BIAS + self.skill * taste - 0.15 * (at - 1) + 0.25 * (1 - self.skill))
        pcvr = sigmoid(CONVERSION_BIAS + self.skill * wealth + self.shift)
        if self.broken:
            pctr = np.full(len(taste), np.nan)
        return FakeScores(pctr, pcvr)


class Shop:
    """A dataset artifact, its truth and model folders, under one temporary folder."""

    def __init__(self, root: Path, rows: int = 24_000) -> None:
        self.root, self.dataset, self.data = root, root / "dataset", root / "data"
        rng = np.random.default_rng(5)
        for split, start, count in (("valid", 0, rows), ("test", rows, rows)):
            taste, wealth = rng.normal(size=count), rng.normal(size=count)
            position = rng.integers(1, 11, size=count)
            ctr, cvr = true_ctr(taste, position), true_cvr(wealth)
            click = rng.random(count) < ctr
            conversion = click & (rng.random(count) < cvr)
            ids = [f"i{start + n}" for n in range(count)]
            table = pa.table(
                {
                    "impression_id": ids,
                    "user_id": [f"u{n}" for n in rng.integers(0, count // 8, size=count)],
                    "item_id": ["a"] * count,
                    "taste": taste,
                    "wealth": wealth,
                    "position": position,
                    "click": click,
                    "conversion": conversion,
                }
            )
            (self.dataset / split).mkdir(parents=True)
            half = count // 2
            pq.write_table(table.slice(0, half), self.dataset / split / "part-0.parquet")
            pq.write_table(table.slice(half), self.dataset / split / "part-1.parquet")
            if split == "test":
                truth = pa.table(
                    {
                        "impression_id": ids,
                        "p_click": ctr,
                        "p_click_reference": true_ctr(taste, np.ones(count)),
                        "p_conversion_do_click": cvr,
                        "p_conversion_click": cvr,
                    }
                )
                (self.data / "truth" / "dt=2026-01-13").mkdir(parents=True)
                shuffled = truth.take(rng.permutation(count))
                pq.write_table(shuffled, self.data / "truth" / "dt=2026-01-13" / "part.parquet")
        counts = {"total": 2 * rows + 110, "immature": 100, "quarantined": 10, "valid": rows, "test": rows}
        write_manifest(self.dataset, rows=counts, ranges=RANGES.model_dump())
        self.models: dict[Path, dict[str, Any]] = {}

    def model(self, name: str, recorded: dict[str, Any] | None = None, ranges: Ranges = RANGES, **skill: Any) -> Path:
        """A sealed model folder; `recorded` overrides metrics.json, the rest goes to FakeModel or to model.json."""
        as_of = skill.pop("as_of", "2026-01-17T00:00:00Z")
        folder = self.root / "models" / f"{name}-{len(self.models)}"
        made = info(name.split("-v")[0], ranges, as_of)
        write_json(folder / "model.json", made.model_dump(mode="json"))
        write_text(folder / "weights.safetensors", f"weights of {name} {sorted(skill.items())}")
        metrics = {"eligible": True, "reason": "", "onnx_difference": 1e-7} | (recorded or {})
        if "validation" not in metrics:
            metrics["validation"] = {"ctcvr_log_loss": self.validation_loss(FakeModel(folder, **skill))}
        write_json(folder / "metrics.json", metrics)
        write_manifest(folder)
        self.models[folder] = skill
        return folder

    def validation_loss(self, model: FakeModel) -> float:
        """What eager would have measured in training."""
        table = pq.read_table(self.dataset / "valid")
        scores = model.score({name: table[name].to_numpy() for name in ("taste", "wealth", "position")}, "logged")
        p, y = scores.pctcvr, table["conversion"].to_numpy()
        loss = float(-np.mean(np.where(y, np.log(p), np.log1p(-p))))
        return loss if np.isfinite(loss) else 1.0

    def load(self, folder: Path) -> FakeModel:
        return FakeModel(folder, **self.models[folder])


@pytest.fixture
def make_shop(tmp_path: Path) -> Callable[..., Shop]:
    return lambda **options: Shop(tmp_path / "shop", **options)


@pytest.fixture
def shop(make_shop: Callable[..., Shop]) -> Shop:
    return make_shop()
