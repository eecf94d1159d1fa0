"""One training step: read the tables, forward, loss, backward, both optimizers. Nothing in it waits for a GPU."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from components.training.checkpoint import Saved
from components.training.config import CandidateConfig, TrainingConfig
from components.training.data import Rows, Split
from components.training.divergence import Watch
from components.training.model import FunnelNetwork, Outputs
from components.training.objective import Objective
from components.training.optimizer import RowwiseAdagrad, dense_optimizer
from components.training.tables import read_rows


@dataclass
class Gradients:
    """What a batch says: of each dense parameter its gradient, of each table the rows read [N] and, of each reading,
    the gradient [N, d]."""

    dense: list[Tensor]
    rows: list[Tensor]
    read: list[Tensor]


class Step:
    """Trains `network` in place, a batch a call.

    The tables are read outside the graph that is differentiated: what was read is its input, so a gradient ends there
    and is applied by row, without a sparse tensor in between.

    `count` is the number of steps done. What a step draws at random follows from the seed and the count alone, so that
    a training resumed at a step goes on as if it had never stopped.
    """

    def __init__(self, network: FunnelNetwork, candidate: CandidateConfig, config: TrainingConfig) -> None:
        self.network = network
        device = next(network.parameters()).device
        self.objective = Objective(candidate, device)
        self.config = config
        self.count = 0
        self.embedded = network.embedded()
        self.tables = RowwiseAdagrad(
            [table for tables in self.embedded for table in tables.tables],
            lr=config.embedding_lr,
            accumulator=config.embedding_accumulator,
        )
        self.dense = network.dense_parameters()
        self.towers = dense_optimizer(self.dense, lr=config.lr)
        self.products = torch.bfloat16 if config.products(device.type) == "bf16" else torch.float32
        self._loss = torch.compile(self.loss, fullgraph=True) if config.compile else self.loss

    def __call__(self, batch: Rows) -> Tensor:
        """One step; the batch's loss in nats, a scalar on the device, detached."""
        loss, gradients = self.gradients(batch)
        self.apply(gradients)
        return loss

    def gradients(self, batch: Rows) -> tuple[Tensor, Gradients]:
        """The loss of a batch, detached, and its gradients; changes no weight."""
        rows, read = self.read(batch)
        loss = self._loss(read, batch, self.draw(len(batch), batch.device))
        return loss.detach(), self.differentiated(loss, rows, read)

    def read(self, batch: Rows) -> tuple[list[Tensor], list[Tensor]]:
        """Of each table the rows that a batch reads, [B, K], and what stands there, [B, K, d]: where gradients end."""
        rows = [found for tables in self.embedded for found in tables.rows(batch.ids)]
        tables = zip(self.tables.tables, rows, strict=True)
        read = [read_rows(table, found).requires_grad_() for table, found in tables]
        return rows, read

    def loss(self, read: Sequence[Tensor], batch: Rows, draw: Tensor | None) -> Tensor:
        """The loss of a batch from what was read of each table: what is differentiated, and compiled."""
        return self.objective(self.outputs(read, batch), batch, draw)

    def outputs(self, read: Sequence[Tensor], batch: Rows) -> Outputs:
        """What the towers say of a batch."""
        device = batch.click.device.type
        with torch.autocast(device, self.products, enabled=self.products != torch.float32):
            return self.outputs_of(read, batch)

    def outputs_of(self, read: Sequence[Tensor], batch: Rows) -> Outputs:
        """As `outputs`, with products in the type of the weights."""
        each = iter(read)
        parts = [tables.assembled([next(each) for _ in tables.tables], batch.weights) for tables in self.embedded]
        return self.network.outputs_of(parts, batch.dense)

    def scored(self, split: Split) -> Iterator[tuple[Tensor, Tensor, Rows]]:
        """Logits of pCTR and pCVR, [B] each, of a split, with the rows they are of: those that this process scores."""
        for part in split.chunks():
            yield (*self.network(*part.inputs), part)

    def differentiated(self, loss: Tensor, rows: Sequence[Tensor], read: Sequence[Tensor]) -> Gradients:
        """The gradients of a loss with respect to the dense parameters and to what was read of the tables."""
        found = torch.autograd.grad(loss, [*self.dense, *read])
        dense, of_read = found[: len(self.dense)], found[len(self.dense) :]
        return Gradients(list(dense), [found.flatten() for found in rows], [found.flatten(0, 1) for found in of_read])

    def apply(self, gradients: Gradients) -> None:
        """Both optimizers."""
        self.tables.step(gradients.rows, gradients.read)
        for parameter, gradient in zip(self.dense, gradients.dense, strict=True):
            parameter.grad = gradient
        self.towers.step()
        self.count += 1

    def state_dict(self) -> dict[str, Tensor]:
        """All that the next step depends on beside the network's weights and the batch: clones, on their device."""
        found = {"count": torch.tensor(self.count), "objective.counts": self.objective.counts.clone()}
        found |= {f"tables.{n}": total.clone() for n, total in enumerate(self.tables.totals)}
        for n, state in self.towers.state_dict()["state"].items():
            found |= {f"towers.{n}.{key}": value.clone() for key, value in state.items()}
        return found

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Goes on where `state_dict` was taken, of a step made alike; everything is copied to where it is used.

        Raises:
            KeyError: a name is missing. RuntimeError: a shape is another one.
        """
        self.count = int(state["count"])
        self.objective.counts.copy_(state["objective.counts"])
        for n, total in enumerate(self.tables.totals):
            total.copy_(state[f"tables.{n}"])
        towers = self.towers.state_dict()
        towers["state"] = {}
        for name, value in state.items():
            kind, _, rest = name.partition(".")
            if kind == "towers":
                number, _, key = rest.partition(".")
                towers["state"].setdefault(int(number), {})[key] = value.clone()
        self.towers.load_state_dict(towers)

    def taken_over(self, saved: Saved | None, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and facts of the checkpoint that the first process found, in every process; None if it found none."""
        del device
        return None if saved is None else (saved.tensors, saved.progress)

    def stay_alike(self, watch: Watch) -> None:
        """Gives every process what the first one has of that in which they can differ: who stops a training has to be
        of one mind."""

    def collected(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """What a checkpoint holds of `Progress.tensors`."""
        return tensors

    def agreed(self, wish: bool, meeting: bool) -> bool:
        """Whether to save now, in every process, if the first has this wish. `meeting`: after a step that all know."""
        del meeting
        return wish

    def draw(self, rows: int, device: torch.device) -> Tensor | None:
        """A uniform number in [0, 1) for each row of the next batch, None where the candidate's loss draws nothing."""
        if not self.objective.draws:
            return None
        generator = torch.Generator(device).manual_seed((self.config.seed << 32) + self.count)
        return torch.rand(rows, generator=generator, device=device)
