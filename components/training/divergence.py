"""Notices that a training diverges, without waiting for the device in every step, and keeps the batch it began at."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from components.contracts.errors import TrainingDiverged
from components.training.config import TrainingConfig
from components.training.data import Split
from components.training.sampler import Order

EXPLODED = 100.0
"""A batch's loss above so many times the first batch's, and that many nats at least, is no noise: training starts at
the base rates, and a mean of 100 nats an impression is being sure, at odds of e^100, and wrong."""
BATCH = "diverged.npz"


@dataclass(frozen=True)
class Bad:
    """The first batch whose loss is not finite or too large: step from 1, losses in nats."""

    step: int
    loss: float
    limit: float


class Watch:
    """Remembers, on the device, the first step whose loss is NaN, infinite or above the limit."""

    def __init__(self, device: torch.device) -> None:
        self.limit = torch.zeros((), device=device)
        self.step = torch.zeros((), dtype=torch.long, device=device)
        self.loss = torch.zeros((), device=device)

    def see(self, step: int, loss: Tensor) -> None:
        """`loss` of step number `step`, from 1; in nats, a scalar on the device. Does not wait for it."""
        if step == 1:
            # Infinity would be no limit; NaN is none either, and below fails every comparison.
            self.limit = EXPLODED * loss.clamp(1.0, 1e30)
        first = (self.step == 0) & ~(loss <= self.limit)
        self.step = torch.where(first, step, self.step)
        self.loss = torch.where(first, loss, self.loss)

    def bad(self) -> Bad | None:
        """What was seen so far; waits for the device."""
        step = int(self.step)
        return Bad(step, float(self.loss), float(self.limit)) if step else None

    def state_dict(self) -> dict[str, Tensor]:
        return {"limit": self.limit, "step": self.step, "loss": self.loss}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        device = self.limit.device
        self.limit, self.step, self.loss = (state[name].to(device) for name in ("limit", "step", "loss"))


@dataclass(frozen=True)
class Guard:
    """Ends a training that diverges, and keeps the rows of the batch at which it began.

    Args:
        folder: where to; None: nowhere.
    """

    name: str
    config: TrainingConfig
    train: Split
    order: Order
    folder: Path | None

    def check_losses(self, watch: Watch) -> None:
        """Raises TrainingDiverged if the loss of a batch so far was not finite or above the limit."""
        bad = watch.bad()
        if bad is not None:
            limit = f"{bad.limit:.4g}" if math.isfinite(bad.limit) else "not finite either"
            raise self._diverged(bad.step, f"at step {bad.step} its loss was {bad.loss:.4g} nats (limit: {limit})")

    def check_evaluation(self, point: dict[str, float]) -> None:
        """Raises TrainingDiverged if a figure of an evaluation is not finite."""
        wrong = [key for key, value in point.items() if not math.isfinite(value)]
        if wrong:
            step = int(point["step"])
            raise self._diverged(step, f"{', '.join(wrong)} not finite after step {step}")

    def _diverged(self, step: int, what: str) -> TrainingDiverged:
        config, kept = self.config, ""
        if self.folder is not None:
            path = keep_batch(self.train, self.order, step, self.folder)
            print(f"{self.name}: the batch of step {step} is kept in {path}", file=sys.stderr, flush=True)
            kept = f"; the rows of that step are in {path.name}"
        return TrainingDiverged(
            f"{self.name} diverged: {what} with lr {config.lr:g}, embedding_lr {config.embedding_lr:g}: "
            f"lower the learning rates{kept}"
        )


def keep_batch(train: Split, order: Order, step: int, folder: Path) -> Path:
    """Writes the batch of step number `step`, from 1, to `folder`/diverged.npz.

    Arrays: `rows`, int64, the rows' numbers in the training split; `step`; and the encoded rows as in `data.Rows`.
    """
    rows = order.indices(*divmod(step - 1, order.batches))
    batch = train.take(torch.from_numpy(rows).to(train.device)).cpu()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / BATCH
    np.savez(path, rows=rows, step=np.int64(step), **{name: tensor.numpy() for name, tensor in vars(batch).items()})
    return path
