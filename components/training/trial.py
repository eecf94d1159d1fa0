"""A trial of the search: a training that goes up to its rung, from where it stopped, and is measured there."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from components.contracts.artifacts import WEIGHTS
from components.contracts.errors import DataError, TrainingDiverged
from components.contracts.files import read_manifest, sha256_file, sha256_json, write_manifest, write_text
from components.contracts.paths import Home
from components.contracts.times import format_utc
from components.contracts.trial import TRIAL_JSON, Asked, Result, folder_of
from components.scoring.encoder import Encoder
from components.training.calibration import on_validation
from components.training.checkpoint import Checkpoints
from components.training.config import TrainConfig, TrainingConfig
from components.training.data import Rates, Split, labels_only
from components.training.export import save_weights
from components.training.fit import fit, log_losses, predict
from components.training.model import FunnelNetwork
from components.training.streaming import open_splits
from components.training.train import build, device_of, threads

STEPS = "step-*"
"""What `Checkpoints` calls the folder of a checkpoint."""


def run(asked: Asked, encoded: Path, states: Path, state: Path) -> Result:
    """Trains a trial up to its rung and writes its state; one that diverges is written too, as such.

    Equal configs come to equal weights, whether trained in one go or rung by rung, and whatever was killed on the way.

    Args:
        encoded: artifact of the encode stage.
        states: of the trials that may go on. One that is not there, or damaged, is trained from the start: it takes
            longer and comes to the same.
        state: folder to write: trial.json and, below the last rung, the checkpoint to go on from.

    Raises:
        UsageError: a device that is not there, or a config that is none.
        DataError, CorruptArtifact: if `encoded` is not what it claims to be.
    """
    started = datetime.now(UTC)
    config = TrainConfig.parse(asked.config, where=f"the config of trial {asked.trial}")
    fingerprint = read_manifest(encoded)["fingerprint"]
    encoder, device = Encoder.load(encoded), device_of(config.training)
    state.mkdir(parents=True, exist_ok=True)
    with threads(config.training.threads), _work(asked, fingerprint, device) as work:
        _go_on(folder_of(states, asked.trial), work)
        train, valid = open_splits(encoded, encoder, device, config.training)
        network = build(encoder, config.training, config.training.candidates[asked.candidate], Rates.of(train))
        found = _train(asked, config.training, network.to(device), train, valid, work, state)
        newest = max(work.glob(STEPS), default=None)
        if newest is not None and asked.share < 1 and found["value"] is not None:
            shutil.copytree(newest, state / newest.name)
        result = Result(
            trial=asked.trial,
            rung=asked.rung,
            share=asked.share,
            started=format_utc(started),
            ended=format_utc(datetime.now(UTC)),
            **found,
        )
        write_text(state / TRIAL_JSON, result.model_dump_json(indent=1) + "\n")
        write_manifest(state)
    return result


def _train(
    asked: Asked,
    training: TrainingConfig,
    network: FunnelNetwork,
    train: Split,
    valid: Split,
    work: Path,
    state: Path,
) -> dict[str, Any]:
    """What the trial came to: those fields of `Result`."""
    name = f"trial {asked.trial} ({asked.candidate})"
    kept = Checkpoints(work, name, training.checkpoint_steps, training.checkpoint_seconds)
    shape = training.candidates[asked.candidate]
    try:
        fitted = fit(network, train, valid, training, shape, name, kept, study=state, share=asked.share)
    except TrainingDiverged as error:
        return {"value": None, "reason": str(error), "steps": 0, "best_step": 0, "rows": 0}
    return {
        "value": compared_by(network, valid, training),
        "began_at": fitted.resumed_at,
        "steps": fitted.steps,
        "best_step": fitted.best_step,
        "rows": fitted.rows,
        "weights": _hash_of(network),
    }


def compared_by(network: FunnelNetwork, valid: Split, training: TrainingConfig) -> float:
    """CTCVR log loss on validation in nats, as a run compares its candidates: calibrated by the rows of other folds."""
    logit_ctr, logit_cvr = (logits.cpu() for logits in predict(network, valid))
    labels = labels_only(valid)
    _, held_out = on_validation(logit_cvr, labels, training.calibration)
    return log_losses(logit_ctr, held_out, labels)["ctcvr_log_loss"]


def _go_on(before: Path, work: Path) -> None:
    """Puts the checkpoint of the rung below where the training looks for one, unless it had got beyond it."""
    if any(work.glob(STEPS)) or not before.is_dir():
        return
    try:
        read_manifest(before)
    except DataError as error:
        print(f"the trial is trained from the start: {error}", file=sys.stderr, flush=True)
        return
    for checkpoint in before.glob(STEPS):
        shutil.copytree(checkpoint, work / checkpoint.name)


def _hash_of(network: FunnelNetwork) -> str:
    """sha256 of the weights' file, which is that of a model artifact with the same weights."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / WEIGHTS
        save_weights(network, path)
        return sha256_file(path)


@contextmanager
def _work(asked: Asked, encoded: str, device: torch.device) -> Iterator[Path]:
    """A folder for checkpoints, deleted at the end. With ESMM_HOME a killed trial finds its own again."""
    home = Home.if_set()
    if home is None:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
        return
    folder = home.checkpoints / sha256_json([asked.model_dump(mode="json"), encoded, device.type])
    yield folder
    shutil.rmtree(folder, ignore_errors=True)
