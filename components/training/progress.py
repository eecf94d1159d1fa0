"""What a training carries from step to step beside the network: what a checkpoint holds, and what it reports."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from components.training.divergence import Watch
from components.training.model import FunnelNetwork
from components.training.step import Step


@dataclass
class Fitted:
    """What a training did. `history`: one entry an evaluation; losses in nats, `step` and `rows` since the start.

    `resumed_at`: the step of the checkpoint it began from, 0 if from none.
    """

    history: list[dict[str, float]] = field(default_factory=list)
    best_step: int = 0
    steps: int = 0
    rows: int = 0
    stopped_early: bool = False
    resumed_at: int = 0


class Progress:
    """Counts and sums of a training, and its best weights so far.

    There is no random state: what is drawn follows from the seed, the pass and the step (`sampler.py`, `step.py`).
    """

    def __init__(self, network: FunnelNetwork, step: Step, device: torch.device) -> None:
        self.network = network
        self.step = step
        self.watch = Watch(device)
        self.fitted = Fitted()
        self.best: dict[str, Tensor] = {}
        self.best_loss = math.inf
        self.waited = 0
        """Evaluations since the best."""
        self.loss_sum, self.since = torch.zeros((), device=device), 0
        """Of the batches since the last evaluation, and how many."""

    def take(self, loss: Tensor, rows: int) -> None:
        """Counts a step with its loss, on the device, and its rows."""
        self.fitted.steps += 1
        self.fitted.rows += rows
        self.since += 1
        self.loss_sum += loss
        self.watch.see(self.fitted.steps, loss)

    def train_loss(self) -> float:
        """Mean of the batches since the last call; waits for the device."""
        mean = float(self.loss_sum) / self.since
        self.loss_sum, self.since = torch.zeros_like(self.loss_sum), 0
        return mean

    def judge(self, point: dict[str, float]) -> None:
        """Adds an evaluation; its weights are kept if they are the best so far."""
        self.fitted.history.append(point)
        self.waited += 1
        if point["valid_ctcvr_log_loss"] < self.best_loss:
            self.best_loss, self.waited = point["valid_ctcvr_log_loss"], 0
            self.best = {name: p.detach().clone() for name, p in self.network.named_parameters()}
            self.fitted.best_step = self.fitted.steps

    def use_best(self) -> None:
        """Gives the network the best weights."""
        _copy(self.best, self.network)

    def tensors(self) -> dict[str, Tensor]:
        """With `facts`, all that the rest of the training depends on. Each tensor has memory of its own."""
        parts: dict[str, Mapping[str, Tensor]] = {
            "network": dict(self.network.named_parameters()),
            "step": self.step.state_dict(),
            "best": self.best,
            "watch": self.watch.state_dict(),
            "sum": {"loss": self.loss_sum},
        }
        return {f"{part}.{name}": tensor for part, named in parts.items() for name, tensor in named.items()}

    def facts(self) -> dict[str, Any]:
        best_loss = self.best_loss if self.best else None
        return {"fitted": asdict(self.fitted), "best_loss": best_loss, "waited": self.waited, "since": self.since}

    def restore(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Goes on where `tensors` and `facts` were taken, of a training with the same settings."""

        def part(name: str) -> dict[str, Tensor]:
            return {key.removeprefix(f"{name}."): t for key, t in tensors.items() if key.startswith(f"{name}.")}

        _copy(part("network"), self.network)
        self.step.load_state_dict(part("step"))
        self.watch.load_state_dict(part("watch"))
        device = self.loss_sum.device
        self.best = {name: tensor.to(device) for name, tensor in part("best").items()}
        self.loss_sum = part("sum")["loss"].to(device)
        self.fitted = Fitted(**facts["fitted"])
        self.fitted.resumed_at = self.fitted.steps
        self.best_loss = facts["best_loss"] if self.best else math.inf
        self.waited, self.since = facts["waited"], facts["since"]


@torch.no_grad()
def _copy(weights: Mapping[str, Tensor], network: FunnelNetwork) -> None:
    for name, parameter in network.named_parameters():
        parameter.copy_(weights[name])
