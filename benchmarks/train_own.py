"""The contenders of `esmm bench train` that are ours: this trainer, the loop by hand, and bare matrix products."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import cycle, islice, pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy

from benchmarks.train_data import BATCH, DIMENSION, HIDDEN, Impressions, aucs, read
from components.contracts.spec import Feature, FeatureSpec
from components.training.config import CANDIDATES, TrainingConfig
from components.training.data import Rates, Rows, batches
from components.training.fit import fit, predict
from components.training.model import FunnelNetwork
from components.training.sampler import Order
from components.training.step import Step
from components.training.tables import Layout

EVERY = 2
"""Steps between two looks at the AUC."""


def rows_of(found: Impressions, device: torch.device) -> Rows:
    nothing = torch.zeros(len(found), 0)
    parts = (
        torch.from_numpy(found.ids),
        nothing,
        nothing,
        torch.from_numpy(found.click),
        torch.from_numpy(found.conversion),
    )
    return Rows(*parts).to(device)


class Ours:
    """This trainer, ESMM, float32 or bfloat16 products; all settings but sizes and those given are its defaults."""

    def __init__(
        self, folder: Path, sizes: tuple[int, ...], device: str, precision: str, compiled: bool = False
    ) -> None:
        self.folder, self.sizes, self.device = folder, sizes, torch.device(device)
        self.truth = read(folder, "test")
        self.train, self.test = (rows_of(read(folder, part), self.device) for part in ("train", "test"))
        sizes_of_training = {"batch_size": BATCH, "min_steps": 1, "hidden": HIDDEN, "evaluations": 1}
        self.config = TrainingConfig.parse({**sizes_of_training, "precision": precision, "compile": compiled})
        self.fresh(0)
        self.batches = cycle(self.pass_over(self.train))

    def fresh(self, seed: int) -> None:
        features = tuple(
            Feature(name=f"f{n}", source="context", dtype="int", encoding="id", dimension=DIMENSION)
            for n in range(len(self.sizes))
        )
        layout = Layout.of(FeatureSpec(features=features), self.sizes, (1,) * len(self.sizes))
        torch.manual_seed(seed)
        self.network = FunnelNetwork(layout, HIDDEN, CANDIDATES["esmm"], self.config.embedding_deviation)
        rates = Rates.of(self.train)
        self.network.start_at(rates.ctr, rates.cvr)
        self.network.to(self.device)
        self.step = Step(self.network, CANDIDATES["esmm"], self.config)

    def pass_over(self, train: Rows, seed: int = 0) -> Iterator[Rows]:
        order = Order(len(train), BATCH, seed, self.config.shuffle_block, self.config.shuffle_window)
        return batches(train, order, 0, order.batches)

    def steps(self, count: int) -> int:
        """Steps on batches cut from resident rows as in a training; how many rows that was."""
        done = 0
        for batch in islice(self.batches, count):
            self.step(batch)
            done += len(batch)
        _wait(self.device)
        return done

    def learn(self, seed: int) -> float:
        """One pass of a fresh network; its seconds, evaluation left out."""
        self.fresh(seed)
        started = time.perf_counter()
        for batch in self.pass_over(self.train, seed):
            self.step(batch)
        _wait(self.device)
        return time.perf_counter() - started

    def learn_until(self, seed: int, auc: float, passes: int = 3) -> float:
        """Seconds of training until the CTCVR AUC on test is `auc`, evaluations left out; infinite if it never is."""
        self.fresh(seed)
        seconds, started = 0.0, time.perf_counter()
        for number in range(passes):
            for n, batch in enumerate(self.pass_over(self.train, seed + 1000 * number), 1):
                self.step(batch)
                if n % EVERY == 0:
                    _wait(self.device)
                    seconds += time.perf_counter() - started
                    if aucs(*self.predictions(), self.truth)["ctcvr"] >= auc:
                        return seconds
                    started = time.perf_counter()
        return float("inf")

    def predictions(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """pCTR and pCTCVR of the test rows."""
        pctr, pcvr = (torch.sigmoid(logit.double()).cpu().numpy() for logit in predict(self.network, self.test))
        return pctr, pctr * pcvr

    def epoch(self) -> float:
        """Seconds from files to a network that was trained for a pass and evaluated on the test rows, by `fit`."""
        started = time.perf_counter()
        train, test = (rows_of(read(self.folder, part), self.device) for part in ("train", "test"))
        self.fresh(0)
        fit(self.network, train, test, self.config, CANDIDATES["esmm"], "esmm")
        _wait(self.device)
        return time.perf_counter() - started


class ByHand:
    """What one writes knowing what is slow: one table for all fields, sparse gradients, row-wise Adagrad, float32."""

    def __init__(self, folder: Path, sizes: tuple[int, ...], device: str) -> None:
        self.device = torch.device(device)
        train = rows_of(read(folder, "train"), self.device)
        self.batches = cycle([train.take(slice(at, at + BATCH)) for at in range(0, len(train), BATCH)])
        self.offsets = torch.tensor([0, *sizes[:-1]]).cumsum(0).to(self.device)
        self.table = nn.Embedding(sum(sizes), DIMENSION, sparse=True, device=self.device)
        nn.init.normal_(self.table.weight, std=0.01)
        self.totals = torch.zeros(sum(sizes), device=self.device)
        self.towers = nn.ModuleList(self._tower(len(sizes) * DIMENSION) for _ in range(2)).to(self.device)
        self.adam = torch.optim.Adam(self.towers.parameters(), lr=2e-3)

    @staticmethod
    def _tower(inputs: int) -> nn.Sequential:
        layers = [layer for a, b in pairwise((inputs, *HIDDEN)) for layer in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 1))

    def steps(self, count: int) -> int:
        done = 0
        for batch in islice(self.batches, count):
            x = self.table(batch.ids.long() + self.offsets).flatten(1)
            pctr, pcvr = (torch.sigmoid(tower(x)).squeeze(1) for tower in self.towers)
            loss = binary_cross_entropy(pctr, batch.click) + binary_cross_entropy(pctr * pcvr, batch.conversion)
            self.adam.zero_grad()
            self.table.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self.adam.step()
            self._adagrad()
            done += len(batch)
        _wait(self.device)
        return done

    @torch.no_grad()
    def _adagrad(self, lr: float = 0.1, eps: float = 1e-10) -> None:
        assert self.table.weight.grad is not None
        gradient = self.table.weight.grad.coalesce()
        rows, values = gradient.indices()[0], gradient.values()
        self.totals[rows] += values.square().mean(1)
        self.table.weight.index_add_(0, rows, values * (-lr / (self.totals[rows].sqrt() + eps)).unsqueeze(1))


class Products:
    """Only the matrix products of a step: of every layer of both towers the forward one and the two of its gradient."""

    def __init__(self, folder: Path, sizes: tuple[int, ...], device: str, precision: str) -> None:
        del folder
        self.device = torch.device(device)
        kind = torch.bfloat16 if precision == "bf16" else torch.float32
        self.layers: list[tuple[Tensor, Tensor, Tensor]] = []
        for inputs, outputs in pairwise((len(sizes) * DIMENSION, *HIDDEN)):
            shapes = ((BATCH, inputs), (outputs, inputs), (BATCH, outputs))
            x, weight, gradient = (torch.randn(shape, device=self.device).to(kind) for shape in shapes)
            self.layers += 2 * [(x, weight, gradient)]

    def steps(self, count: int) -> int:
        for _ in range(count):
            for x, weight, gradient in self.layers:
                torch.mm(x, weight.t())
                torch.mm(gradient, weight)
                torch.mm(gradient.t(), x)
        _wait(self.device)
        return count * BATCH


def flops_a_row(fields: int) -> int:
    """Of `Products`: two for each weight, three times."""
    return sum(3 * 2 * 2 * a * b for a, b in pairwise((fields * DIMENSION, *HIDDEN)))


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
