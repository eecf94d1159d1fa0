"""Training throughput: this trainer against the loop one would write by hand.

The peer is the usual one: an `nn.Embedding` a field, one dense Adam over everything, the same towers, the same
batches, losses on probabilities. Same data, same threads, in turns. Dense Adam pays for every row of every table at
every step, row-wise Adagrad for the rows of the batch alone, so the gap grows with the tables. Only speed is measured
here; what one pass learns is in the pipeline's report.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from statistics import median

import torch
from torch import Tensor, nn

from benchmarks.figures import Figures, Ratios, figure, show
from benchmarks.interleave import rates
from components.contracts.spec import Feature, FeatureSpec
from components.training.config import CANDIDATES, TrainingConfig
from components.training.data import Rows
from components.training.fit import fit
from components.training.model import FunnelNetwork, Layout

FIELDS, DIMENSION, HIDDEN = 16, 16, (80, 40)
BATCH, ROWS, ROUNDS = 1024, 100_000, 5
TABLES = {"80k": 80_000, "800k": 800_000}
"""Embedding rows over all fields."""


def data(embedding_rows: int) -> tuple[Rows, tuple[int, ...]]:
    """Random ids with a popularity tail, labels at the simulated shop's rates; and the vocabulary of each field."""
    generator = torch.Generator().manual_seed(0)
    size = embedding_rows // FIELDS
    ids = (torch.rand(ROWS, FIELDS, generator=generator) ** 2 * size).long()
    click = (torch.rand(ROWS, generator=generator) < 0.12).float()
    conversion = click * (torch.rand(ROWS, generator=generator) < 0.1).float()
    nothing = torch.zeros(ROWS, 0)
    return Rows(ids, nothing, nothing, click, conversion), (size,) * FIELDS


def ours(rows: Rows, sizes: tuple[int, ...]) -> Callable[[], int]:
    """One pass of this trainer, with its evaluation at the end on a thousand rows."""
    features = tuple(
        Feature(name=f"f{n}", source="context", dtype="int", encoding="id", dimension=DIMENSION) for n in range(FIELDS)
    )
    layout = Layout.of(FeatureSpec(features=features), sizes, (1,) * FIELDS)
    config = TrainingConfig(batch_size=BATCH, min_steps=1, hidden=HIDDEN, evaluations=1)

    def work() -> int:
        network = FunnelNetwork(layout, HIDDEN, share_embeddings=True)
        fit(network, rows, rows.take(slice(0, 1000)), config, CANDIDATES["esmm"], "esmm")
        return len(rows)

    return work


class Plain(nn.Module):
    """ESMM as tutorials write it."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(size, DIMENSION) for size in sizes)
        self.towers = nn.ModuleList(self._tower() for _ in range(2))

    @staticmethod
    def _tower() -> nn.Sequential:
        widths = (FIELDS * DIMENSION, *HIDDEN)
        layers = [layer for a, b in pairwise(widths) for layer in (nn.Linear(a, b), nn.ReLU())]
        return nn.Sequential(*layers, nn.Linear(widths[-1], 1))

    def forward(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.cat([table(ids[:, n]) for n, table in enumerate(self.tables)], dim=1)
        pctr, pcvr = (torch.sigmoid(tower(x)).squeeze(1) for tower in self.towers)
        return pctr, pctr * pcvr


def plain(rows: Rows, sizes: tuple[int, ...]) -> Callable[[], int]:
    """One pass of the loop by hand."""

    def work() -> int:
        network = Plain(sizes)
        optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
        loss_of = nn.BCELoss()
        for part in torch.split(torch.randperm(len(rows)), BATCH):
            batch = rows.take(part)
            pctr, pctcvr = network(batch.ids)
            loss = loss_of(pctr, batch.click) + loss_of(pctcvr, batch.conversion)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return len(rows)

    return work


def main(as_json: bool) -> None:
    torch.set_num_threads(1)
    figures: Figures = {}
    ratios: Ratios = {}
    for label, count in TABLES.items():
        rows, sizes = data(count)
        found = rates({"esmm": ours(rows, sizes), "plain_loop": plain(rows, sizes)}, ROUNDS)
        figures |= {f"{name}_{label}_rows_per_s": figure(values) for name, values in found.items()}
        ratios[f"train_vs_plain_{label}"] = median(found["esmm"]) / median(found["plain_loop"])
    title = f"training, {FIELDS} fields x {DIMENSION}, batch {BATCH}, 1 thread, {ROUNDS} rounds"
    show(title, figures, ratios, as_json)
