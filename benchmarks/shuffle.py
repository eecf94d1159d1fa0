"""Does mixing rows within windows of shuffled blocks cost quality? `python -m benchmarks.shuffle ENCODED [--seeds N]`.

One pass of ESMM over the training rows of an encoded artifact (`esmm run` leaves one in its home's
`pipeline/*/encode/encoded`), as they lie and grouped by their first feature; the order of a window against a
permutation of all rows, from the same initial weights. Differences are paired over seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from components.scoring.encoder import Encoder
from components.training.config import CANDIDATES, TrainingConfig
from components.training.data import Rates, Rows, load
from components.training.fit import fit
from components.training.train import build

GRID = ((1024, 131_072), (1024, 65_536), (1024, 16_384), (4096, 65_536), (16_384, 65_536), (1024, 1024))
"""Rows of a block and of a window; the last mixes nothing but the blocks."""
SETTINGS = {"evaluations": 4, "patience": 4}


def losses(encoder: Encoder, train: Rows, valid: Rows, block: int, window: int, seed: int) -> tuple[float, float]:
    """Log losses of CTR and CTCVR on validation, nats, of the best weights."""
    options = {"shuffle_block": block, "shuffle_window": window, "seed": seed}
    config = TrainingConfig.parse(options | SETTINGS)
    network = build(encoder, config, CANDIDATES["esmm"], Rates.of(train))
    fitted = fit(network, train, valid, config, CANDIDATES["esmm"], f"{block} x {window}, seed {seed}")
    best = min(fitted.history, key=lambda point: point["valid_ctcvr_log_loss"])
    return best["valid_ctr_log_loss"], best["valid_ctcvr_log_loss"]


def compared(encoder: Encoder, train: Rows, valid: Rows, seeds: int) -> Iterator[str]:
    """A line for the whole permutation with standard deviations over seeds, and one for each block and window with the
    mean difference to it and its standard error."""
    whole = np.array([losses(encoder, train, valid, 1, len(train), seed) for seed in range(seeds)])
    (ctr, ctcvr), (ctr_sd, ctcvr_sd) = whole.mean(0), whole.std(0, ddof=1)
    yield f"{'all rows':>15}  ctr {ctr:.5f} (sd {ctr_sd:.5f})  ctcvr {ctcvr:.6f} (sd {ctcvr_sd:.6f})"
    for block, window in GRID:
        found = np.array([losses(encoder, train, valid, block, window, seed) for seed in range(seeds)]) - whole
        (ctr, ctcvr), (ctr_se, ctcvr_se) = found.mean(0), found.std(0, ddof=1) / np.sqrt(seeds)
        yield f"{block:6} x {window:6}  ctr {ctr:+.5f} (se {ctr_se:.5f})  ctcvr {ctcvr:+.6f} (se {ctcvr_se:.6f})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shuffle", description="Windows against a permutation.")
    parser.add_argument("encoded", type=Path, help="artifact of the encode stage")
    parser.add_argument("--seeds", type=int, default=5)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    encoder, cpu = Encoder.load(asked.encoded), torch.device("cpu")
    train, valid = (load(asked.encoded, split, encoder, cpu) for split in ("train", "valid"))
    grouped = train.take(torch.argsort(train.ids[:, 0], stable=True))
    for how, rows in (("as they lie", train), ("grouped by the first feature", grouped)):
        print(f"{len(rows):,} rows {how}, {asked.seeds} seeds; block x window: mean difference to a whole permutation")
        for line in compared(encoder, rows, valid, asked.seeds):
            print("  " + line, flush=True)


if __name__ == "__main__":
    main()
