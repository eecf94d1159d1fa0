"""The train stage: one candidate, from the encoded artifact to a sealed model artifact."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

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
from components.contracts.calibration import Calibration
from components.contracts.errors import DataError, TrainingDiverged, UsageError
from components.contracts.files import read_manifest, write_json, write_manifest, write_text
from components.scoring.encoder import Encoder, bags
from components.training.calibration import Calibrated, on_validation
from components.training.checkpoint import Checkpoints, checkpoints
from components.training.config import CandidateConfig, TrainConfig, TrainingConfig
from components.training.data import Rates, Rows, Split, labels_only
from components.training.distributed import is_sharded
from components.training.export import TOLERANCE, onnx_difference, save_onnx, save_weights
from components.training.fit import fit, log_losses, pieces, predict
from components.training.model import FunnelNetwork
from components.training.processes import ALONE, Group
from components.training.progress import Fitted
from components.training.sharding import Shards, shard
from components.training.streaming import open_splits
from components.training.tables import Layout

__all__ = ["CandidateConfig", "TrainConfig", "TrainingConfig", "run"]


def run(candidate: str, config: TrainConfig, encoded: Path, model: Path, processes: Group = ALONE) -> dict[str, Any]:
    """Trains a candidate and writes its model artifact; a candidate that diverges is written too, as ineligible.

    Goes on from the checkpoints of a training of the same that was interrupted, if ESMM_HOME holds any.

    Args:
        candidate: a name in `config.training.candidates`.
        encoded: artifact of the encode stage.
        model: folder to write; equal inputs write equal bytes (on a CPU).
        processes: those that train together (`distributed.py`), each with a call of its own. The first one writes.

    Returns:
        Facts for the run record: rows, steps, seconds, rows a second, validation log losses, eligibility.

    Raises:
        UsageError: unknown candidate, or a device that is not there.
        Busy: another process trains the same candidate on the same data with the same settings.
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
    device = device_of(training)
    where = device.type if processes.size == 1 else f"{device.type} x {processes.size}"
    saved = checkpoints(candidate, config, manifest["fingerprint"], where) if processes.is_first else nullcontext()
    with threads(training.threads), saved as kept:
        train, valid = open_splits(encoded, encoder, device, training)
        network = build(encoder, training, shape, Rates.of(train))
        if is_sharded(training, processes):
            shard(network, processes)
        network.to(device)
        if processes.is_first:
            model.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        study = model if processes.is_first else None
        fitted, reason = _fit(network, train, valid, training, shape, candidate, kept, study, processes)
        seconds = time.monotonic() - began
        if is_sharded(training, processes) and not reason:
            Shards(network, processes).make_whole()
        if not processes.is_first:
            return {"candidate": candidate, "rank": processes.rank, "steps": fitted.steps}
        metrics: dict[str, Any] = {"eligible": not reason, "reason": reason, "history": fitted.history}
        calibration = Calibration()
        if not reason:
            calibration, found = _export(network, training, valid, model)
            metrics |= found | {"best_step": fitted.best_step}
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
            calibration=calibration,
        )
        _seal(model, encoded, info, metrics, rows=manifest.get("rows", {}))
        if kept is not None:
            kept.clear()
    return {
        "candidate": candidate,
        "eligible": metrics["eligible"],
        "reason": metrics["reason"],
        "device": str(device),
        "processes": processes.size,
        "train_rows": len(train),
        "steps": fitted.steps,
        "best_step": fitted.best_step,
        "stopped_early": fitted.stopped_early,
        "resumed_at": fitted.resumed_at,
        "data": "resident" if isinstance(train, Rows) else "streamed",
        "validation": metrics.get("validation", {}),
        "calibration": calibration.says,
        "fit_seconds": round(seconds, 3),
        "seconds": round(time.monotonic() - started, 3),
        "rows_per_second": round(fitted.rows / max(seconds, 1e-9)),
    }


def _seal(model: Path, encoded: Path, info: ModelInfo, metrics: dict[str, Any], rows: dict[str, int]) -> None:
    for name in (ENCODER_JSON, ENCODER_ARRAYS):
        shutil.copyfile(encoded / name, model / name)
    write_text(model / MODEL_JSON, info.model_dump_json(indent=1) + "\n")
    write_json(model / METRICS_JSON, metrics)
    write_manifest(model, candidate=info.candidate, rows=rows)


def build(encoder: Encoder, training: TrainingConfig, shape: CandidateConfig, rates: Rates) -> FunnelNetwork:
    """A fresh network on the CPU. The seed decides its weights; the caller's random state is left as it was."""
    layout = Layout.of(encoder.spec, encoder.sizes, encoder.widths, training.dimension)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(training.seed)
        network = FunnelNetwork(layout, training.hidden, shape, training.embedding_deviation)
    network.start_at(rates.ctr, rates.cvr)
    return network


def _fit(
    network: FunnelNetwork,
    train: Split,
    valid: Split,
    training: TrainingConfig,
    shape: CandidateConfig,
    candidate: str,
    kept: Checkpoints | None,
    study: Path | None,
    processes: Group,
) -> tuple[Fitted, str]:
    """What training did, and why the candidate is out ("" if it is not)."""
    try:
        return fit(network, train, valid, training, shape, candidate, kept, study, processes=processes), ""
    except TrainingDiverged as error:
        return Fitted(), str(error)


def _export(
    network: FunnelNetwork, training: TrainingConfig, valid: Split, model: Path
) -> tuple[Calibration, dict[str, Any]]:
    """Calibrates, writes weights and graph; returns the calibration and their part of metrics.json."""
    # Tables that were sharded are whole on the CPU only.
    near = valid if next(network.parameters()).device == valid.device else valid.cpu()
    a, b = (logits.cpu() for logits in predict(network, near))
    network, on_host, labels = network.cpu(), valid.cpu(), labels_only(valid)
    calibration, held_out = on_validation(b, labels, training.calibration)
    calibrated = Calibrated(network, calibration)
    save_weights(network, model / WEIGHTS)
    save_onnx(calibrated, model / ONNX, on_host.take(slice(0, 2)))
    difference = onnx_difference(calibrated, model / ONNX, on_host)
    same = difference <= TOLERANCE
    reason = (
        "" if same else f"its ONNX graph differs from eager by {difference:.2g} (at most {TOLERANCE:g} is rounding)"
    )
    finite = difference if difference < float("inf") else None
    return calibration, {
        "eligible": same,
        "reason": reason,
        "onnx_difference": finite,
        "validation": measure(a, calibrated.curve.over(b), labels),
        "uncalibrated": measure(a, b, labels),
        "cross_fitted_ctcvr_log_loss": log_losses(a, held_out, labels)["ctcvr_log_loss"],
        "calibration": calibration.model_dump(mode="json"),
    }


def measure(logit_ctr: Tensor, logit_cvr: Tensor, rows: Rows) -> dict[str, float | int | None]:
    """Counts, log losses (nats) and calibration (sum predicted / sum observed) at the logged position, of logits [B].

    Of pCVR over clicked rows only. What has no events to be measured by is None.
    """
    sums = torch.zeros(4, dtype=torch.float64)
    for part in pieces(len(rows)):
        a, b, clicked = logit_ctr[part].double(), logit_cvr[part].double(), rows.click[part] > 0
        pctr, pcvr = torch.sigmoid(a), torch.sigmoid(b)
        losses = binary_cross_entropy_with_logits(b[clicked], rows.conversion[part][clicked].double(), reduction="sum")
        sums += torch.stack([pctr.sum(), pcvr[clicked].sum(), (pctr * pcvr).sum(), losses])
    pctr_sum, pcvr_clicked_sum, pctcvr_sum, clicked_loss = sums.tolist()
    clicks, conversions = (int(label.sum(dtype=torch.float64)) for label in (rows.click, rows.conversion))
    return {
        "rows": len(rows),
        "clicks": clicks,
        "conversions": conversions,
        **log_losses(logit_ctr, logit_cvr, rows),
        "cvr_log_loss_clicked": clicked_loss / clicks if clicks else None,
        "ctr_calibration": pctr_sum / clicks if clicks else None,
        "cvr_calibration_clicked": pcvr_clicked_sum / conversions if conversions else None,
        "ctcvr_calibration": pctcvr_sum / conversions if conversions else None,
    }


def _architecture(
    encoder: Encoder, training: TrainingConfig, shape: CandidateConfig
) -> dict[str, int | float | str | list[int]]:
    layout = Layout.of(encoder.spec, encoder.sizes, encoder.widths, training.dimension)
    columns = sorted((*layout.shared, *layout.ctr_only), key=lambda column: column.index)
    return {
        "embeddings": "shared" if shape.share_embeddings else "own",
        "cvr_loss": shape.cvr_loss,
        "bottom": shape.bottom,
        "hidden": list(training.hidden),
        "dimensions": [column.dimension for column in columns],
        "sizes": [column.size for column in columns],
        "widths": [column.width for column in columns],
        "pooling": ", ".join(f"{feature.name} {feature.combiner}" for feature in bags(encoder.spec)),
    }


def device_of(training: TrainingConfig) -> torch.device:
    """Raises UsageError if there is no such device."""
    if training.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("training.device is 'cuda' and this machine has no usable GPU: set it to 'auto' or 'cpu'")
    chosen = ("cuda" if torch.cuda.is_available() else "cpu") if training.device == "auto" else training.device
    return torch.device(chosen)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """So many CPU threads within."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
