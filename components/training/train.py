"""The train stage: one candidate, from the encoded artifact to a sealed model artifact."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from components.contracts import columns as c
from components.contracts.artifacts import (
    ENCODER_ARRAYS,
    ENCODER_JSON,
    METRICS_JSON,
    MODEL_JSON,
    ONNX,
    WEIGHTS,
    ModelInfo,
    Ranges,
)
from components.contracts.errors import DataError, TrainingDiverged, UsageError
from components.contracts.files import read_manifest, write_json, write_manifest, write_text
from components.scoring.encoder import Encoder, bags
from components.training.config import CandidateConfig, TrainConfig, TrainingConfig
from components.training.data import Rates, Rows, load
from components.training.export import TOLERANCE, onnx_difference, save_onnx, save_weights
from components.training.fit import Fitted, fit, log_losses, predict
from components.training.model import FunnelNetwork, Layout

__all__ = ["CandidateConfig", "TrainConfig", "TrainingConfig", "run"]


def run(candidate: str, config: TrainConfig, encoded: Path, model: Path) -> dict[str, Any]:
    """Trains a candidate and writes its model artifact; a candidate that diverges is written too, as ineligible.

    Args:
        candidate: a name in `config.training.candidates`.
        encoded: artifact of the encode stage.
        model: folder to write; equal inputs write equal bytes (on a CPU).

    Returns:
        Facts for the run record: rows, steps, seconds, rows a second, validation log losses, eligibility.

    Raises:
        UsageError: unknown candidate, or a device that is not there.
        DataError, CorruptArtifact: if `encoded` is not what it claims to be.
    """
    training = config.training
    if candidate not in training.candidates:
        raise UsageError(f"unknown candidate {candidate!r}: choose one of {', '.join(sorted(training.candidates))}")
    started = time.monotonic()
    manifest = read_manifest(encoded)
    if "ranges" not in manifest:
        raise DataError(f"{encoded / 'manifest.json'} states no time ranges: run the encode stage again")
    encoder = Encoder.load(encoded)
    shape = training.candidates[candidate]
    with _threads(training.threads):
        device = _device(training)
        train, valid = (load(encoded, split, encoder, device) for split in (c.TRAIN, c.VALID))
        network = build(encoder, training, shape, Rates.of(train)).to(device)
        began = time.monotonic()
        fitted, reason = _fit(network, train, valid, training, shape, candidate)
        seconds = time.monotonic() - began
        model.mkdir(parents=True, exist_ok=True)
        metrics: dict[str, Any] = {"eligible": not reason, "reason": reason, "history": fitted.history}
        if not reason:
            metrics |= _export(network, encoder, valid, model) | {"best_step": fitted.best_step}
    info = ModelInfo(
        candidate=candidate,
        architecture=_architecture(encoder, training, shape),
        spec=encoder.spec,
        ranges=Ranges.parse(manifest["ranges"], where=str(encoded)),
        dataset=config.dataset,
        as_of=config.as_of,
        data_fingerprint=config.data_fingerprint,
        code=config.code,
        seed=training.seed,
    )
    for name in (ENCODER_JSON, ENCODER_ARRAYS):
        shutil.copyfile(encoded / name, model / name)
    write_text(model / MODEL_JSON, info.model_dump_json(indent=1) + "\n")
    write_json(model / METRICS_JSON, metrics)
    write_manifest(model, candidate=candidate, rows=manifest.get("rows", {}))
    return {
        "candidate": candidate,
        "eligible": metrics["eligible"],
        "reason": metrics["reason"],
        "device": str(device),
        "train_rows": len(train),
        "steps": fitted.steps,
        "best_step": fitted.best_step,
        "stopped_early": fitted.stopped_early,
        "validation": metrics.get("validation", {}),
        "fit_seconds": round(seconds, 3),
        "seconds": round(time.monotonic() - started, 3),
        "rows_per_second": round(fitted.rows / max(seconds, 1e-9)),
    }


def build(encoder: Encoder, training: TrainingConfig, shape: CandidateConfig, rates: Rates) -> FunnelNetwork:
    """A fresh network on the CPU. The seed decides its weights; the caller's random state is left as it was."""
    layout = Layout.of(encoder.spec, encoder.sizes, encoder.widths, training.dimension)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        network = FunnelNetwork(layout, training.hidden, shape.share_embeddings, training.embedding_deviation)
    network.start_at(rates.ctr, rates.cvr)
    return network


def _fit(
    network: FunnelNetwork, train: Rows, valid: Rows, training: TrainingConfig, shape: CandidateConfig, candidate: str
) -> tuple[Fitted, str]:
    """What training did, and why the candidate is out ("" if it is not)."""
    try:
        return fit(network, train, valid, training, shape, candidate), ""
    except TrainingDiverged as error:
        return Fitted(), str(error)


def _export(network: FunnelNetwork, encoder: Encoder, valid: Rows, model: Path) -> dict[str, Any]:
    """Writes weights and graph; returns their part of metrics.json."""
    validation = measure(network, valid)
    network = network.cpu()
    save_weights(network, model / WEIGHTS)
    on_host = valid.cpu()
    save_onnx(network, model / ONNX, on_host)
    difference = onnx_difference(network, model / ONNX, on_host)
    same = difference <= TOLERANCE
    reason = (
        "" if same else f"its ONNX graph differs from eager by {difference:.2g} (at most {TOLERANCE:g} is rounding)"
    )
    finite = difference if difference < float("inf") else None
    return {"eligible": same, "reason": reason, "onnx_difference": finite, "validation": validation}


def measure(network: FunnelNetwork, rows: Rows) -> dict[str, float | int | None]:
    """Counts, log losses (nats) and calibration (sum predicted / sum observed) at the logged position, eager."""
    a, b = predict(network, rows)
    pctr, pcvr = torch.sigmoid(a.double()), torch.sigmoid(b.double())
    clicks, conversions = int(rows.click.sum()), int(rows.conversion.sum())
    return {
        "rows": len(rows),
        "clicks": clicks,
        "conversions": conversions,
        **log_losses(a, b, rows),
        "ctr_calibration": float(pctr.sum()) / clicks if clicks else None,
        "ctcvr_calibration": float((pctr * pcvr).sum()) / conversions if conversions else None,
    }


def _architecture(
    encoder: Encoder, training: TrainingConfig, shape: CandidateConfig
) -> dict[str, int | float | str | list[int]]:
    layout = Layout.of(encoder.spec, encoder.sizes, encoder.widths, training.dimension)
    columns = sorted((*layout.shared, *layout.ctr_only), key=lambda column: column.index)
    return {
        "embeddings": "shared" if shape.share_embeddings else "own",
        "cvr_loss": shape.cvr_loss,
        "hidden": list(training.hidden),
        "dimensions": [column.dimension for column in columns],
        "sizes": [column.size for column in columns],
        "widths": [column.width for column in columns],
        "pooling": ", ".join(f"{feature.name} {feature.combiner}" for feature in bags(encoder.spec)),
    }


def _device(training: TrainingConfig) -> torch.device:
    if training.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("training.device is 'cuda' and this machine has no usable GPU: set it to 'auto' or 'cpu'")
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if training.device == "auto" else training.device
    return torch.device(chosen)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
