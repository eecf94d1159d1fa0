"""Trains every candidate, alone or under torchrun, and keeps what came out of it: what test_distributed.py compares.

torchrun --nproc-per-node 2 tests/training/ranks.py ENCODED OUT
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

from components.scoring.encoder import Encoder
from components.training.checkpoint import Checkpoints
from components.training.config import CANDIDATES, TrainingConfig
from components.training.data import Rates, Rows, load
from components.training.fit import fit
from components.training.model import FunnelNetwork
from components.training.processes import ALONE, Group, group
from components.training.progress import Fitted
from components.training.sharding import Shards, shard
from components.training.train import build

ROWS = 1000
CONFIG = TrainingConfig(batch_size=111, min_steps=1, hidden=(8,), evaluations=3, device="cpu", precision="fp32")
"""Batches that no two processes share evenly, and a last one of a single row."""
KINDS = ("float32", "float64")
SHARDED = ("base", "escm2-dr", "esmm-ple")
"""Trained with shared out tables, too, and interrupted: own tables, shared ones, and a bottom between."""


def trained(encoded: Path, candidate: str, processes: Group = ALONE) -> dict[str, np.ndarray]:
    """Losses at each evaluation, how far training came, and the final weights; in torch's default type."""
    encoder, device, shape = Encoder.load(encoded), torch.device("cpu"), CANDIDATES[candidate]
    train, valid = (_as_default(load(encoded, split, encoder, device)) for split in ("train", "valid"))
    network = build(encoder, CONFIG, shape, Rates.of(train)).to(torch.get_default_dtype())
    fitted = fit(network, train, valid, CONFIG, shape, candidate, processes=processes)
    return _found(network, fitted)


def sharded(encoded: Path, candidate: str, folder: Path, processes: Group) -> dict[str, np.ndarray]:
    """The same with sharded tables, stopped after the first evaluation and gone on with from its checkpoint."""
    encoder, device, shape = Encoder.load(encoded), torch.device("cpu"), CANDIDATES[candidate]
    train, valid = (load(encoded, split, encoder, device) for split in ("train", "valid"))
    config = CONFIG.model_copy(update={"tables": "sharded"})
    kept = Checkpoints(folder, candidate, steps=None, seconds=3600) if processes.is_first else None
    for share in (0.3, 1.0):
        network = build(encoder, config, shape, Rates.of(train))
        whole = [len(table) for table in network.embedding_parameters()]
        shard(network, processes)
        held = [len(table) for table in network.embedding_parameters()]
        assert held == [-(-rows // processes.size) for rows in whole]
        fitted = fit(network, train, valid, config, shape, candidate, kept, share=share, processes=processes)
    assert fitted.resumed_at == fitted.history[0]["step"]
    Shards(network, processes).make_whole()
    return _found(network, fitted)


def _found(network: FunnelNetwork, fitted: Fitted) -> dict[str, np.ndarray]:
    curves = {f"curve.{key}": np.array([point[key] for point in fitted.history]) for key in fitted.history[0]}
    weights = {f"weight.{name}": tensor.detach().numpy() for name, tensor in network.named_parameters()}
    return curves | weights


def _as_default(rows: Rows) -> Rows:
    floats = (t.to(torch.get_default_dtype()) for t in (rows.dense, rows.weights, rows.click, rows.conversion))
    return Rows(rows.ids, *floats)


def main(encoded: Path, out: Path) -> None:
    torch.set_num_threads(1)
    with group("cpu") as processes:
        for kind in KINDS:
            if kind == "float64":
                torch.set_default_dtype(torch.float64)
                # The network casts to float32 in places, for autocast's sake.
                torch.Tensor.float = torch.Tensor.double  # type: ignore[assignment]
            for candidate in CANDIDATES:
                found = trained(encoded, candidate, processes)
                np.savez(out / f"{candidate}-{kind}-{processes.rank}.npz", **found)
            for candidate in SHARDED if kind == "float32" else ():
                found = sharded(encoded, candidate, out / f"{candidate}-checkpoints", processes)
                np.savez(out / f"{candidate}-sharded-{processes.rank}.npz", **found)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
