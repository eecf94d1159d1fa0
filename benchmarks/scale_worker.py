"""One process of `esmm bench scale`, started by torchrun: training steps with what the processes exchange timed.

torchrun --nproc-per-node 2 -m benchmarks.scale_worker OUT STEPS TABLES
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path
from statistics import mean
from typing import ClassVar

import torch
from torch import Tensor

from benchmarks.train_data import BATCH, DIMENSION, EMBEDDING_ROWS, FIELDS, HIDDEN, draw, sizes_of
from benchmarks.train_own import rows_of
from components.contracts.files import write_json
from components.contracts.spec import Feature, FeatureSpec
from components.training.config import CANDIDATES, TrainingConfig
from components.training.data import Rows
from components.training.distributed import is_sharded, step_of
from components.training.model import FunnelNetwork
from components.training.processes import Group, group
from components.training.sharding import shard
from components.training.tables import Layout

BATCHES, WARM_UP, THREADS = 8, 5, 2
"""Threads are of all processes together, so that one process and two have the same cores to themselves."""
KINDS = ("logits", "dense", "tables", "reads")


class Measured(Group):
    """A group that counts, by kind, the seconds spent in an exchange and the bytes that it brings here.

    Summing up brings 2 (n - 1) / n times what is summed, as a ring does it. Seconds include waiting for the others.
    """

    kind: ClassVar[str] = "tables"
    seconds: ClassVar[dict[str, float]] = defaultdict(float)
    received: ClassVar[dict[str, float]] = defaultdict(float)

    def gather(self, part: Tensor, sizes: Sequence[int]) -> Tensor:
        with self._kind("logits"):
            return super().gather(part, sizes)

    def sum_(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        with self._kind("dense"):
            return super().sum_(tensors)

    def exchange(self, everything: Tensor, part: Tensor) -> None:
        with self._timed((self.size - 1) * part.numel() * part.element_size()):
            super().exchange(everything, part)

    def add_up(self, flat: Tensor) -> None:
        with self._timed(2 * (self.size - 1) / self.size * flat.numel() * flat.element_size()):
            super().add_up(flat)

    def reduce_scatter(self, mine: Tensor, parts: Tensor) -> None:
        with self._kind("reads"), self._timed((self.size - 1) * mine.numel() * mine.element_size()):
            super().reduce_scatter(mine, parts)

    @contextmanager
    def _kind(self, kind: str) -> Iterator[None]:
        Measured.kind = kind
        yield
        Measured.kind = "tables"

    @contextmanager
    def _timed(self, received: float) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[self.kind] += time.perf_counter() - began
        self.received[self.kind] += received


def network() -> FunnelNetwork:
    features = tuple(
        Feature(name=f"f{n}", source="context", dtype="int", encoding="id", dimension=DIMENSION) for n in range(FIELDS)
    )
    layout = Layout.of(FeatureSpec(features=features), sizes_of(EMBEDDING_ROWS["380k"]), (1,) * FIELDS)
    torch.manual_seed(0)
    return FunnelNetwork(layout, HIDDEN, CANDIDATES["esmm"])


def main(out: Path, steps: int, tables: str) -> None:
    rows = rows_of(draw(sizes_of(EMBEDDING_ROWS["380k"]), BATCH * BATCHES, 0, 0), torch.device("cpu"))
    batches: Iterator[Rows] = cycle([rows.take(slice(n * BATCH, (n + 1) * BATCH)) for n in range(BATCHES)])
    config = TrainingConfig.parse({"batch_size": BATCH, "hidden": HIDDEN, "precision": "fp32", "tables": tables})
    with group("cpu") as found:
        processes = Measured(found.rank, found.size)
        torch.set_num_threads(max(1, THREADS // found.size))
        trained = network()
        if is_sharded(config, processes):
            shard(trained, processes)
        step = step_of(trained, CANDIDATES["esmm"], config, processes)
        for batch in islice(batches, WARM_UP):
            step(batch)
        Measured.seconds.clear()
        Measured.received.clear()
        took = []
        for batch in islice(batches, steps):
            began = time.perf_counter()
            step(batch)
            took.append(time.perf_counter() - began)
        if processes.is_first:
            exchanges = {kind: {"seconds": processes.seconds[kind] / steps} for kind in KINDS}
            for kind in KINDS:
                exchanges[kind]["received"] = processes.received[kind] / steps
            write_json(out, {"step_seconds": mean(took), "exchanges": exchanges})


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
