"""The encoded artifact as tensors, resident on the training device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from components.contracts.errors import DataError
from components.scoring.encoder import Encoder


@dataclass(frozen=True)
class Rows:
    """A split: ids [B, I] of any integers, dense float32 [B, 2D], the bags' weights float32 [B, W], click and
    conversion float32 [B], zero or one. I, D and W may be 0."""

    ids: Tensor
    dense: Tensor
    weights: Tensor
    click: Tensor
    conversion: Tensor

    def __len__(self) -> int:
        return len(self.click)

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        """What a network reads, in its order."""
        return self.ids, self.dense, self.weights

    def take(self, rows: Tensor | slice) -> Rows:
        if isinstance(rows, slice):
            return self._each(lambda tensor: tensor[rows])
        return self._each(lambda tensor: tensor.index_select(0, rows))

    def cpu(self) -> Rows:
        return self._each(lambda tensor: tensor.cpu())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Rows:
        return Rows(*map(change, (self.ids, self.dense, self.weights, self.click, self.conversion)))


@dataclass(frozen=True)
class Rates:
    """Base rates of a split, from counts with half a row added, so that both stay strictly between 0 and 1."""

    ctr: float
    cvr: float

    @staticmethod
    def of(rows: Rows) -> Rates:
        clicks, conversions = float(rows.click.sum()), float(rows.conversion.sum())
        return Rates((clicks + 0.5) / (len(rows) + 1), (conversions + 0.5) / (clicks + 1))


ARRAYS = ("ids", "dense", "weights", "click", "conversion")


def load(encoded: Path, split: str, encoder: Encoder, device: torch.device) -> Rows:
    """Reads one split of an encoded artifact. Ids stay int32 as they are on disk: they are most of the memory.

    Raises:
        DataError: if the split is empty, or an index lies outside its vocabulary (encoder and arrays do not match).
    """
    folder = encoded / split
    arrays = {}
    for name in ARRAYS:
        path = folder / f"{name}.npy"
        if not path.is_file():
            raise DataError(f"{path} does not exist: run the encode stage again")
        arrays[name] = np.load(path, allow_pickle=False)
    if not len(arrays["click"]):
        raise DataError(f"{folder} has no rows: give the log more days, or the split more time (--set split...)")
    sizes = np.repeat(encoder.sizes, encoder.widths).astype(np.int64)
    ids, weights = arrays["ids"], arrays["weights"]
    if (
        ids.shape[1] != len(sizes)
        or (ids < 0).any()
        or (ids >= sizes).any()
        or weights.shape != (len(ids), encoder.weights_columns)
    ):
        raise DataError(f"{folder}: ids.npy or weights.npy does not fit the encoder: run the encode stage again")
    floats = (arrays[name].astype(np.float32, copy=False) for name in ARRAYS[1:])
    return Rows(*(torch.from_numpy(array).to(device) for array in (ids, *floats)))
