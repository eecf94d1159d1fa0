"""The encoded artifact as tensors, resident on the training device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from components.contracts.errors import DataError


@dataclass(frozen=True)
class Rows:
    """A split: ids int64 [B, F], dense float32 [B, 2D], click and conversion float32 [B], zero or one."""

    ids: Tensor
    dense: Tensor
    click: Tensor
    conversion: Tensor

    def __len__(self) -> int:
        return len(self.click)

    def take(self, rows: Tensor | slice) -> Rows:
        if isinstance(rows, slice):
            return Rows(self.ids[rows], self.dense[rows], self.click[rows], self.conversion[rows])
        return Rows(*(t.index_select(0, rows) for t in (self.ids, self.dense, self.click, self.conversion)))


@dataclass(frozen=True)
class Rates:
    """Base rates of a split, from counts with half a row added, so that both stay strictly between 0 and 1."""

    ctr: float
    cvr: float

    @staticmethod
    def of(rows: Rows) -> Rates:
        clicks, conversions = float(rows.click.sum()), float(rows.conversion.sum())
        return Rates((clicks + 0.5) / (len(rows) + 1), (conversions + 0.5) / (clicks + 1))


def load(encoded: Path, split: str, sizes: tuple[int, ...], device: torch.device) -> Rows:
    """Reads one split of an encoded artifact.

    Raises:
        DataError: if the split is empty, or an index lies outside its vocabulary (encoder and arrays do not match).
    """
    folder = encoded / split
    arrays = {}
    for name in ("ids", "dense", "click", "conversion"):
        path = folder / f"{name}.npy"
        if not path.is_file():
            raise DataError(f"{path} does not exist: run the encode stage again")
        arrays[name] = np.load(path, allow_pickle=False)
    if not len(arrays["click"]):
        raise DataError(f"{folder} has no rows: give the log more days, or the split more time (--set split...)")
    ids = arrays["ids"].astype(np.int64, copy=False)
    if ids.shape[1] != len(sizes) or (ids < 0).any() or (ids >= np.array(sizes, np.int64)).any():
        raise DataError(f"{folder}/ids.npy does not fit the encoder beside it: run the encode stage again")
    dense, click, conversion = (arrays[n].astype(np.float32) for n in ("dense", "click", "conversion"))
    return Rows(*(torch.from_numpy(array).to(device) for array in (ids, dense, click, conversion)))
