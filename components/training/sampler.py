"""The order of rows and batches in a training: a function of four numbers, so that it can be entered anywhere.

Consecutive rows form blocks. The blocks are put into a seeded order and taken a window at a time; the rows of a window
are mixed by a seeded permutation, and the windows, one behind the other, are cut into batches. So reads stay
sequential within a block, no more than a window has to be held, and a set that lies in memory is trained on in the
same order as one that is read from files. A set that fits one window is permuted as a whole.

How large blocks and windows have to be: docs/training.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Piece:
    """A part of a batch: rows [start, stop) of what window number `window` mixed."""

    window: int
    start: int
    stop: int


@dataclass(frozen=True)
class Span:
    """Consecutive rows [start, stop) of a set."""

    start: int
    stop: int


@dataclass(frozen=True)
class Order:
    """The order of `rows` rows in batches of `batch`, the last of a pass shorter.

    Args:
        block: rows that lie together in the set. window: rows that are mixed at a time; rounded down to whole blocks,
            one at least.
    """

    rows: int
    batch: int
    seed: int
    block: int
    window: int

    @property
    def batches(self) -> int:
        """In one pass."""
        return math.ceil(self.rows / self.batch)

    @property
    def windows(self) -> int:
        """In one pass."""
        return math.ceil(self.rows / self.window_rows)

    @cached_property
    def window_rows(self) -> int:
        """Rows of every window but the last, which has what is left."""
        return max(1, self.window // self.block) * self.block

    def pieces(self, number: int) -> list[Piece]:
        """What batch `number` of a pass, from 0, is made of, in order."""
        start, stop = number * self.batch, min((number + 1) * self.batch, self.rows)
        found = []
        while start < stop:
            window, within = divmod(start, self.window_rows)
            end = min(stop - start + within, self.window_rows)
            found.append(Piece(window, within, end))
            start += end - within
        return found

    def spans(self, epoch: int, window: int) -> list[Span]:
        """Which rows a window holds: ascending, adjacent blocks as one span."""
        count = self.window_rows // self.block
        blocks = np.sort(self._blocks(epoch)[window * count : (window + 1) * count])
        found: list[Span] = []
        for block in blocks.tolist():
            start, stop = block * self.block, min((block + 1) * self.block, self.rows)
            if found and found[-1].stop == start:
                found[-1] = Span(found[-1].start, stop)
            else:
                found.append(Span(start, stop))
        return found

    def mixed(self, epoch: int, window: int) -> NDArray[np.int64]:
        """The order of a window's rows: places in its spans laid end to end, int64 [rows of the window]."""
        rows = min(self.window_rows, self.rows - window * self.window_rows)
        return self._random(epoch, window + 1).permutation(rows)

    def indices(self, epoch: int, number: int) -> NDArray[np.int64]:
        """The rows of batch `number` in the set, int64 [rows of the batch], in the order they are trained on."""
        parts = []
        for piece in self.pieces(number):
            held = np.concatenate([np.arange(span.start, span.stop) for span in self.spans(epoch, piece.window)])
            parts.append(held[self.mixed(epoch, piece.window)[piece.start : piece.stop]])
        return np.concatenate(parts)

    def _blocks(self, epoch: int) -> NDArray[np.int64]:
        """The order of blocks. One that is not full comes last, so that every window but the last is."""
        full, left = divmod(self.rows, self.block)
        order = self._random(epoch, 0).permutation(full)
        return np.append(order, full) if left else order

    def _random(self, epoch: int, stream: int) -> np.random.Generator:
        return np.random.default_rng((self.seed % 2**64, epoch, stream))
