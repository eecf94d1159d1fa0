"""Impressions with known truth for `esmm bench train`: 16 fields whose vocabularies add up to so many embedding rows.

Fields are skewed in size, as users, items, shops and hours are, and their values in popularity. Every value has an
effect of its own on clicks and one on conversions, the first two fields also act together; a conversion wants a click.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.metrics import roc_auc_score

FIELDS, DIMENSION, HIDDEN, BATCH = 16, 18, (200, 80), 4096
ROWS = {"train": 320_000, "test": 100_000}
EMBEDDING_ROWS = {"380k": 380_000, "2m": 2_200_000}
SHARES = (450, 250, 100, 60, 40, 30, 20, 15, 10, 8, 6, 4, 3, 2, 1, 1)
"""Of all embedding rows, thousandths by field."""
EFFECT, TOGETHER, LATENT = 0.35, 0.5, 4
"""Standard deviation of a value's effect on a logit; of what the first two fields do together, over so many factors."""
CLICK, CONVERSION = -1.8, -1.8
"""Mean logits: about a fifth of impressions is clicked, and about a fifth of clicks converts."""
ARRAYS = ("ids", "click", "conversion", "p_click", "p_conversion")

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Impressions:
    """ids int32 [N, fields]; click and conversion float32 [N], zero or one; true pCTR and pCVR float32 [N]."""

    ids: NDArray[np.int32]
    click: Floats
    conversion: Floats
    p_click: Floats
    p_conversion: Floats

    def __len__(self) -> int:
        return len(self.click)


def sizes_of(embedding_rows: int) -> tuple[int, ...]:
    """Vocabulary of each field; what rounding leaves goes to the first."""
    sizes = [max(2, embedding_rows * share // sum(SHARES)) for share in SHARES]
    return (sizes[0] + embedding_rows - sum(sizes), *sizes[1:])


def draw(sizes: tuple[int, ...], rows: int, seed: int, part: int) -> Impressions:
    """`rows` impressions of the world that `seed` makes; another `part` gives others of the same world."""
    world, random = np.random.default_rng(seed), np.random.default_rng([seed, part])
    ids = np.empty((rows, len(sizes)), np.int32)
    logits = np.tile(np.array([CLICK, CONVERSION], np.float32), (rows, 1))
    latent = []
    for field, size in enumerate(sizes):
        # A tail: half of what is seen is an eighth of the values.
        ids[:, field] = (random.random(rows) ** 3 * size).astype(np.int32)
        effects = world.normal(0, EFFECT, (size, 2)).astype(np.float32)
        logits += effects[ids[:, field]]
        if field < 2:
            latent.append(world.normal(0, 1, (size, LATENT)).astype(np.float32)[ids[:, field]])
    together = (latent[0] * latent[1]).sum(1) * (TOGETHER / LATENT**0.5)
    p_click, p_conversion = expit(logits[:, 0] + together), expit(logits[:, 1] + together)
    click = random.random(rows) < p_click
    conversion = click & (random.random(rows) < p_conversion)
    return Impressions(ids, click.astype(np.float32), conversion.astype(np.float32), p_click, p_conversion)


def write(folder: Path, embedding_rows: int, seed: int = 0, rows: dict[str, int] = ROWS) -> None:
    """Both parts, an array a file, as an encoded artifact has them."""
    for part, (name, count) in enumerate(rows.items()):
        (folder / name).mkdir(parents=True)
        for array, values in vars(draw(sizes_of(embedding_rows), count, seed, part)).items():
            np.save(folder / name / f"{array}.npy", values)


def read(folder: Path, part: str) -> Impressions:
    return Impressions(*(np.load(folder / part / f"{array}.npy") for array in ARRAYS))


def aucs(pctr: NDArray[Any], pctcvr: NDArray[Any], truth: Impressions) -> dict[str, float]:
    """CTR and CTCVR AUC over all impressions, CVR AUC of pCTCVR / pCTR over those clicked."""
    clicked = truth.click > 0
    ratio = pctcvr[clicked] / np.maximum(pctr[clicked], np.finfo(np.float64).tiny)
    return {
        "ctr": float(roc_auc_score(truth.click, pctr)),
        "cvr": float(roc_auc_score(truth.conversion[clicked], ratio)),
        "ctcvr": float(roc_auc_score(truth.conversion, pctcvr)),
    }
