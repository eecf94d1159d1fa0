"""Checkpoints of a training, so that one that was killed goes on where it was and ends with the same weights.

    ESMM_HOME/checkpoints/<key>/lock
                               /step-0000000120/state.safetensors, progress.json, manifest.json

The key is a hash of all that determines the result, so another run of the pipeline finds what an interrupted one left,
and a training with another setting does not. A checkpoint is written aside, synced and renamed; the last two are kept;
one whose hashes do not fit is deleted and the one before is used.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from components.contracts.errors import DataError
from components.contracts.files import (
    new_folder,
    read_json,
    read_manifest,
    sha256_json,
    sync,
    write_json,
    write_manifest,
)
from components.contracts.locks import exclusive
from components.contracts.paths import CHECKPOINT_LOCK, Home
from components.training.config import TrainConfig

KEPT = 2
LARGEST_SHARE = 1 / 20
"""Of the time that goes into writing checkpoints by the clock."""
STATE, PROGRESS = "state.safetensors", "progress.json"


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds: tensors on the CPU, and JSON values."""

    folder: Path
    tensors: dict[str, Tensor]
    progress: dict[str, Any]


class Checkpoints:
    """Of one training, in one folder that nobody else writes to.

    Args:
        name: what messages call the training.
        steps: write one every so many steps; None: by the clock alone.
        seconds: write one so long after the last.
    """

    def __init__(self, folder: Path, name: str, steps: int | None, seconds: float) -> None:
        self.folder = folder
        self.name = name
        self.steps = steps
        self.seconds = seconds
        self._written = time.monotonic()
        self._pause = seconds

    def latest(self) -> Saved | None:
        """The newest whole checkpoint, or None. Damaged ones are named on stderr and deleted."""
        for aside in self.folder.glob(".step-*"):
            shutil.rmtree(aside)  # what a kill left half-written
        for path in reversed(self._all()):
            try:
                read_manifest(path)
                return Saved(path, load_file(path / STATE), read_json(path / PROGRESS))
            except DataError as error:
                self._say(f"checkpoint {path.name} is damaged ({error}), the one before is used if there is one")
                shutil.rmtree(path)
        return None

    def due(self, step: int) -> bool:
        """Whether to write one after this step."""
        by_steps = self.steps is not None and step % self.steps == 0
        return by_steps or time.monotonic() - self._written >= self._pause

    def save(self, step: int, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        """Writes a checkpoint and deletes all but the last two.

        On a disk that is full, or fails otherwise, it says so and keeps the last good one: the training is worth more
        than its checkpoint, and goes on.
        """
        began = time.monotonic()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with new_folder(self.folder / f"step-{step:010}") as aside:
                save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, aside / STATE)
                sync(aside / STATE)
                write_json(aside / PROGRESS, progress)
                write_manifest(aside, step=step)
                sync(aside)
            sync(self.folder)
            for old in self._all()[:-KEPT]:
                shutil.rmtree(old)
        except (OSError, SafetensorError) as error:
            # The older one makes room for the next try.
            for old in self._all()[:-1]:
                shutil.rmtree(old, ignore_errors=True)
            kept = ", ".join(path.name for path in self._all()) or "none"
            self._say(
                f"no checkpoint at step {step}: {error}. Kept: {kept}. Training goes on; make room in {self.folder}"
            )
        self._written = time.monotonic()
        self._pause = max(self.seconds, (self._written - began) / LARGEST_SHARE)

    def clear(self) -> None:
        """Deletes them all, lock included: the training has ended and its result is kept elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"))

    def _say(self, text: str) -> None:
        print(f"{self.name}: {text}", file=sys.stderr, flush=True)


@contextmanager
def checkpoints(candidate: str, config: TrainConfig, encoded: str, device: str) -> Iterator[Checkpoints | None]:
    """Those of a training, held by this process alone; None without ESMM_HOME.

    Args:
        encoded: fingerprint of the encoded artifact. device: its type, and how many if several.

    Raises:
        Busy: another process trains the same candidate on the same data with the same settings.
    """
    home = Home.if_set()
    if home is None:
        yield None
        return
    training = config.training
    folder = home.checkpoints / key_of(candidate, config, encoded, device)
    with _alone(folder / CHECKPOINT_LOCK, f"training of {candidate} on the same data with the same settings"):
        yield Checkpoints(folder, candidate, training.checkpoint_steps, training.checkpoint_seconds)


def key_of(candidate: str, config: TrainConfig, encoded: str, device: str) -> str:
    """Hash of all that determines a training's result."""
    training = config.training
    shape = training.candidates[candidate].model_dump(mode="json")
    return sha256_json([candidate, shape, training.determines_result(), encoded, config.code, device])


@contextmanager
def _alone(path: Path, what: str) -> Iterator[None]:
    while True:
        with exclusive(path, what) as descriptor:
            # One that has just ended may have deleted the file between our opening and locking it.
            if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
                yield
                return
