"""Splits of the encoded artifact, as a training sees them; and the resident one, whole on the training's device.

The other kind is in `streaming.py`. `fit` does not know which of the two it has: in the same order both give the same
batches, and so the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from components.scoring.encoder import Encoder
from components.training.arrays import NAMES, Arrays
from components.training.sampler import Order, Span

CHUNK = 32_768
LOOKUPS = 1_048_576
"""Rows of one forward pass in an evaluation, and embeddings read in one: what they make fits a cache or two."""


Windows = Generator[tuple["Rows", Tensor], None, None]


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

    @property
    def device(self) -> torch.device:
        return self.click.device

    def take(self, rows: Tensor | slice) -> Rows:
        if isinstance(rows, slice):
            return self._each(lambda tensor: tensor[rows])
        return self._each(lambda tensor: tensor.index_select(0, rows))

    def to(self, device: torch.device) -> Rows:
        """On a device; from pinned memory the copy does not wait."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def cpu(self) -> Rows:
        return self._each(lambda tensor: tensor.cpu())

    def labels(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield self.click, self.conversion

    def chunks(self) -> Iterator[Rows]:
        size = chunk_of(self.ids.shape[1])
        for at in range(0, len(self), size):
            yield self.take(slice(at, at + size))

    def windows(self, order: Order, epoch: int, first: int) -> Windows:
        for window in range(first, order.windows):
            held = np.concatenate([np.arange(span.start, span.stop) for span in order.spans(epoch, window)])
            yield self, torch.from_numpy(held[order.mixed(epoch, window)]).to(self.device)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Rows:
        return Rows(*map(change, (self.ids, self.dense, self.weights, self.click, self.conversion)))


class Split(Protocol):
    """A split, wherever it lies."""

    def __len__(self) -> int:
        """Rows."""

    @property
    def device(self) -> torch.device:
        """Where batches and chunks come to lie."""

    def take(self, rows: Tensor | slice) -> Rows:
        """Some rows by their number: int64 [B], or a slice."""

    def labels(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Click and conversion of all rows in order, float32, in pieces of any size."""

    def chunks(self) -> Iterator[Rows]:
        """All rows in order, in pieces of at most CHUNK rows and about LOOKUPS ids."""

    def windows(self, order: Order, epoch: int, first: int) -> Windows:
        """Of each window of a pass from number `first` on: rows, and which of them to train on in which order."""

    def cpu(self) -> Split:
        """The same on the CPU."""


def batches(split: Split, order: Order, start: int, stop: int) -> Iterator[Rows]:
    """The batches of steps [start, stop), counted from 0 over all passes: those of an uninterrupted training."""
    while start < stop:
        epoch, first = divmod(start, order.batches)
        last = min(order.batches, first + stop - start)
        yield from _batches_of_pass(split, order, epoch, first, last)
        start += last - first


def _batches_of_pass(split: Split, order: Order, epoch: int, first: int, last: int) -> Iterator[Rows]:
    at = order.pieces(first)[0].window
    with closing(split.windows(order, epoch, at)) as windows:
        held, places = next(windows)
        for number in range(first, last):
            parts = []
            for piece in order.pieces(number):
                if piece.window > at:
                    at, (held, places) = piece.window, next(windows)
                parts.append(held.take(places[piece.start : piece.stop]))
            yield parts[0] if len(parts) == 1 else joined(parts)


def joined(parts: list[Rows]) -> Rows:
    """One behind the other."""
    return Rows(*(torch.cat(tensors) for tensors in zip(*(tuple(vars(part).values()) for part in parts), strict=True)))


def labels_only(split: Split) -> Rows:
    """Click and conversion of all rows, on the CPU; of the features no column."""
    click, conversion = (torch.cat(parts).cpu() for parts in zip(*split.labels(), strict=True))
    nothing = torch.zeros(len(click), 0)
    return Rows(nothing.long(), nothing, nothing, click, conversion)


def chunk_of(ids_columns: int) -> int:
    """Rows of a chunk."""
    return max(1, min(CHUNK, LOOKUPS // max(ids_columns, 1)))


@dataclass(frozen=True)
class Rates:
    """Base rates of a split, from counts with half a row added, so that both stay strictly between 0 and 1."""

    ctr: float
    cvr: float

    @staticmethod
    def of(rows: Split) -> Rates:
        clicks = conversions = 0.0
        for click, conversion in rows.labels():
            clicks += float(click.sum(dtype=torch.float64))
            conversions += float(conversion.sum(dtype=torch.float64))
        return Rates((clicks + 0.5) / (len(rows) + 1), (conversions + 0.5) / (clicks + 1))


def load(encoded: Path, split: str, encoder: Encoder, device: torch.device) -> Rows:
    """Reads one split of an encoded artifact. Ids stay int32 as they are on disk: they are most of the memory.

    Raises:
        DataError: if the split is empty, a file is cut off, or an index lies outside its vocabulary (encoder and arrays
            do not match).
    """
    arrays = Arrays.of(encoded / split, encoder)
    whole = [Span(0, len(arrays))]
    return Rows(*(torch.from_numpy(arrays.read(name, whole)).to(device) for name in NAMES))
