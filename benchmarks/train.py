"""Training: this trainer against DeepCTR-Torch, torch-rechub, a loop by hand, and the machine's own matrix products.

ESMM throughout: the same impressions (`train_data.py`), dimensions, batches and threads, each contender in a process of
its own, in turns within one run. What the peers do and what was done for them: `train_peers.py`.

- `*_rows_per_s`: training on rows that lie in memory, each contender by its own loop, batches cut and all. The ratio is
  our median rate over theirs; ours is with bfloat16 products where the CPU multiplies bfloat16, as on a GPU, else with
  float32. `ready_*`: the peers' loops with batches cut beforehand.
- `train_compiled_vs_*`: ours with `training.compile` besides, where there is a C++ compiler; compiling is not counted.
- `epoch_*_s`: from files to a network trained for a pass and evaluated, each by its own loop and loader.
- `time_to_quality_*_s`: DeepCTR-Torch's one pass, and our training until the CTCVR AUC on test is what that pass
  reached; loading and evaluation left out of both.
- `share_of_products_*`: rows a second over those of a loop that does nothing but the step's matrix products.
- With `full`, quality: each contender trained for a pass over worlds of other seeds; AUC on test, and mean and 95%
  interval of the paired differences between this trainer and whichever peer has the best mean.

    esmm bench train [--json] [--full] [--device cuda]
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean, median
from typing import Literal

import torch

from benchmarks import train_data
from benchmarks.figures import Figures, Ratios, figure, show
from benchmarks.interleave import rates
from benchmarks.paired import paired
from benchmarks.train_data import BATCH, DIMENSION, EMBEDDING_ROWS, FIELDS, HIDDEN
from benchmarks.train_own import flops_a_row
from benchmarks.train_venv import peers_python
from benchmarks.train_worker import PEERS, Worker, is_peer

Device = Literal["cpu", "cuda"]
SEEDS = 5
STEPS = {"esmm_fp32": 40, "esmm_bf16": 60, "esmm_compiled": 60, "by_hand": 40, "products_fp32": 60, "products_bf16": 90}
"""A turn, so that turns take about as long as each other."""
NAMES = {"by_hand": "handwritten", "esmm_bf16": "not"}
"""In ratios."""
TASKS = ("ctr", "cvr", "ctcvr")


@dataclass(frozen=True)
class Plan:
    """What a run measures: sizes, how often, and with whom."""

    rows: dict[str, int]
    embedding_rows: dict[str, int]
    rounds: int = 7
    passes: int = 2
    """Epochs, and trainings to a quality."""
    steps: Mapping[str, int] = field(default_factory=lambda: STEPS)
    peer_steps: tuple[int, ...] = (10, 4)
    """A turn of a peer, and of whoever is not in `steps`, by size of the tables."""
    threads: int = 2
    seeds: int = SEEDS
    peers: tuple[str, ...] = PEERS


DEFAULT = Plan(train_data.ROWS, EMBEDDING_ROWS)


class Bench:
    """The contenders of one run, on one device."""

    def __init__(self, plan: Plan, device: Device) -> None:
        self.plan, self.device = plan, device
        self.ours = ("esmm_fp32", "esmm_bf16") if multiplies_bf16(device) else ("esmm_fp32",)
        self.fastest = self.ours[-1]
        self.compiled = ("esmm_compiled",) if "esmm_bf16" in self.ours and compiles() else ()
        self.products = tuple(name.replace("esmm", "products") for name in self.ours)
        self.python = peers_python() if plan.peers else Path()

    @contextmanager
    def at_work(self, names: tuple[str, ...], size: str, seed: int = 0) -> Iterator[dict[str, Worker]]:
        """A process each, over a world of so many embedding rows."""
        with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
            folder, count = Path(scratch) / "data", self.plan.embedding_rows[size]
            train_data.write(folder, count, seed, self.plan.rows)
            made = {}
            for name in names:
                python = self.python if is_peer(name) else Path(sys.executable)
                worker = Worker(name, python, folder, train_data.sizes_of(count), self.device, self.plan.threads)
                made[name] = stack.enter_context(worker)
            yield made

    def speed(self) -> tuple[Figures, Ratios]:
        """Rows a second of training steps, with tables of each size."""
        figures: Figures = {}
        ratios: Ratios = {}
        for size, peer_steps in zip(self.plan.embedding_rows, self.plan.peer_steps, strict=True):
            peers = (*self.plan.peers, "default_deepctr") if "deepctr" in self.plan.peers else self.plan.peers
            names = (*self.ours, *self.compiled, "by_hand", *self.products, *peers)
            with self.at_work(names, size) as workers:
                turns: dict[str, Callable[[], int]] = {
                    name: partial(worker, "steps", self.plan.steps.get(name, peer_steps))
                    for name, worker in workers.items()
                }
                turns |= {
                    f"ready_{name}": partial(workers[name], "ready_steps", peer_steps) for name in self.plan.peers
                }
                found = rates(turns, self.plan.rounds)
            figures |= {f"{size}_{name}_rows_per_s": figure(values) for name, values in found.items()}
            for bare in self.products:
                gflops = [value * flops_a_row(FIELDS) / 1e9 for value in found[bare]]
                figures[f"{size}_{bare}_gflop_per_s"] = figure(gflops)
            ratios |= self.compared({name: median(values) for name, values in found.items()}, size)
        return figures, ratios

    def compared(self, middle: dict[str, float], size: str) -> Ratios:
        """Ratios of the contenders' median rates."""

        def over(label: str, name: str, rivals: Iterable[str]) -> Ratios:
            return {f"{label}_vs_{NAMES.get(rival, rival)}_{size}": middle[name] / middle[rival] for rival in rivals}

        rivals = [name for name in middle if name not in (*self.ours, *self.compiled, *self.products)]
        ratios = over("train", self.fastest, rivals)
        for name in self.compiled:
            ratios |= over("train_compiled", name, [self.fastest, *rivals])
        ratios |= over("train_fp32", "esmm_fp32", ["by_hand"])
        for name, bare in zip(self.ours, self.products, strict=True):
            ratios[f"share_of_{bare}_{size}"] = middle[name] / middle[bare]
        return ratios

    def passes(self) -> tuple[Figures, Ratios]:
        """Wall time of an epoch with loading and evaluation, and time to DeepCTR-Torch's quality."""
        size = next(iter(self.plan.embedding_rows))
        epochs: dict[str, list[float]] = {}
        times: dict[str, list[float]] = {}
        aucs = []
        with self.at_work((self.fastest, "deepctr"), size) as workers:
            for seed in range(self.plan.passes):
                for name, worker in workers.items():
                    epochs.setdefault(name, []).append(worker("epoch"))
                times.setdefault("deepctr", []).append(workers["deepctr"]("learn", seed))
                aucs.append(workers["deepctr"]("aucs")["ctcvr"])
                times.setdefault(self.fastest, []).append(workers[self.fastest]("learn_until", seed, aucs[-1]))
        figures = {f"epoch_{name}_{size}_s": figure(values) for name, values in epochs.items()}
        figures |= {f"time_to_quality_{name}_{size}_s": figure(values) for name, values in times.items()}
        figures["deepctr_one_epoch_ctcvr_auc"] = figure(aucs)
        pairs = {"epoch": epochs, "time_to_quality": times}
        ratios = {
            f"{label}_vs_deepctr_{size}": median(found["deepctr"]) / median(found[self.fastest])
            for label, found in pairs.items()
        }
        return figures, ratios

    def quality(self) -> Figures:
        """AUC on test after a pass, in `seeds` worlds, and this trainer's differences to the best peer."""
        size = next(iter(self.plan.embedding_rows))
        found: dict[str, list[dict[str, float]]] = {}
        for seed in range(self.plan.seeds):
            with self.at_work((*self.ours, *self.plan.peers), size, seed) as workers:
                for name, worker in workers.items():
                    worker("learn", seed)
                    found.setdefault(name, []).append(worker("aucs"))
        figures: Figures = {}
        for task in TASKS:
            values = {name: [auc[task] for auc in aucs] for name, aucs in found.items()}
            figures |= {f"{name}_{task}_auc": figure(each) for name, each in values.items()}
            best = max(self.plan.peers, key=lambda name: mean(values[name]), default=None)
            if best is None:
                continue
            for name in self.ours:
                difference = paired(values[name], values[best])
                figures[f"{name}_less_{best}_{task}_auc"] = {
                    "median": difference.mean, "min": difference.low, "max": difference.high, "runs": difference.n,
                }  # fmt: skip
        return figures


def multiplies_bf16(device: Device) -> bool:
    """Whether the device has instructions for bfloat16; without them such products are slower than float32's."""
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def compiles() -> bool:
    """Whether there is the C++ compiler that `torch.compile` calls."""
    return shutil.which(os.environ.get("CXX", "g++")) is not None


def train_figures(plan: Plan = DEFAULT, device: Device = "cpu", full: bool = False) -> tuple[Figures, Ratios]:
    """All figures and ratios of a run; with `full` quality over the plan's seeds, too.

    Raises:
        SystemExit: no such device, the peers cannot be installed, or a contender fails.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device cuda, and this machine has no usable GPU")
    bench = Bench(plan, device)
    figures, ratios = bench.speed()
    if "deepctr" in plan.peers:
        more, further = bench.passes()
        figures, ratios = figures | more, ratios | further
    if full:
        figures |= bench.quality()
    return figures, ratios


def main(as_json: bool, full: bool = False, device: Device = "cpu") -> None:
    """Prints the figures."""
    title = (
        f"training ESMM on {device}, {FIELDS} fields x {DIMENSION}, hidden {HIDDEN[0]}-{HIDDEN[1]}, batch {BATCH}, "
        f"{DEFAULT.rows['train']:,} impressions, {DEFAULT.threads} threads, {DEFAULT.rounds} rounds"
    )
    show(title, *train_figures(device=device, full=full), as_json)
