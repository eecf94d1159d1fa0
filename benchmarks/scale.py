"""What several processes cost: a training step of one, of two, and of two with sharded tables, and the part of it that
they spend exchanging.

One process has two threads, two have one each. So on two cores there is no speed-up to be seen, and over loopback no
network; what is shown is how much goes from one process to the other in a step, and how long that takes.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import Figures, Ratios, figure, show
from benchmarks.scale_worker import KINDS, THREADS
from benchmarks.train_data import BATCH, DIMENSION, EMBEDDING_ROWS, FIELDS
from components.contracts.errors import ServiceError
from components.contracts.files import read_json

STEPS, ROUNDS = 30, 3
RUNS = {"1": (1, "whole"), "2": (2, "whole"), "2_sharded": (2, "sharded")}
"""Processes, and how tables lie in them."""


def measured(processes: int, tables: str, out: Path) -> dict[str, Any]:
    """Raises ServiceError if torchrun fails, with what it said last."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [*command, "-m", "benchmarks.scale_worker", str(out), str(STEPS), tables],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise ServiceError(f"{processes} processes under torchrun ended with {done.returncode}: {done.stderr[-2000:]}")
    found: dict[str, Any] = read_json(out)
    return found


def main(as_json: bool) -> None:
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in RUNS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(ROUNDS):
            for name, (count, tables) in RUNS.items():
                runs[name].append(measured(count, tables, Path(folder) / "found.json"))
    figures: Figures = {}
    ratios: Ratios = {}
    seconds = {name: median(run["step_seconds"] for run in found) for name, found in runs.items()}
    for name, found in runs.items():
        figures[f"step_{name}_ms"] = figure([1e3 * run["step_seconds"] for run in found])
    for name in list(RUNS)[1:]:
        for kind in KINDS:
            of_kind = [run["exchanges"][kind] for run in runs[name]]
            if any(found["received"] for found in of_kind):
                figures[f"{kind}_{name}_ms"] = figure([1e3 * found["seconds"] for found in of_kind])
                figures[f"{kind}_{name}_kb_received"] = figure([found["received"] / 1e3 for found in of_kind])
        shares = [sum(e["seconds"] for e in run["exchanges"].values()) / run["step_seconds"] for run in runs[name]]
        ratios |= {f"scale_{name}_vs_1": seconds["1"] / seconds[name], f"scale_exchange_share_{name}": median(shares)}
    title = (
        f"esmm on 1 and 2 processes, {THREADS} threads in all, gloo over loopback: batch {BATCH}, {FIELDS} fields x "
        f"{DIMENSION}, {EMBEDDING_ROWS['380k']:,} embedding rows; mean of {STEPS} steps, {ROUNDS} rounds"
    )
    show(title, figures, ratios, as_json)
