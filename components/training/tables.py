"""Embeddings of several features in few tables, and which input columns feed what.

Letters of shapes: B rows, I ids columns, W columns of bags among them, D numeric features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, embedding_bag

from components.contracts.errors import UsageError
from components.contracts.spec import FeatureSpec
from components.scoring.encoder import embedded, numeric


@dataclass(frozen=True)
class Column:
    """One embedded feature: its first ids column, its table rows and its embedding's dimension.

    Of a bag also: how many ids columns it takes, and which is its first one in `weights`.
    """

    index: int
    size: int
    dimension: int
    width: int = 1
    weights: int | None = None

    @property
    def is_bag(self) -> bool:
        return self.weights is not None


@dataclass(frozen=True)
class Layout:
    """Which input columns feed what. `dense_*` are places in `dense`."""

    shared: tuple[Column, ...]
    ctr_only: tuple[Column, ...]
    dense_shared: tuple[int, ...]
    dense_ctr_only: tuple[int, ...]

    @staticmethod
    def of(spec: FeatureSpec, sizes: Sequence[int], widths: Sequence[int], dimension: int | None = None) -> Layout:
        """From the feature spec and the encoder's sizes and widths, one of each an embedded feature.

        `dimension` overrides every feature's own.

        Raises:
            UsageError: if no feature is left for the CVR tower.
        """
        columns: dict[str, list[Column]] = {"shared": [], "ctr": []}
        index = weights = 0
        for feature, size, width in zip(embedded(spec), sizes, widths, strict=True):
            bag = feature.encoding == "bag"
            columns[feature.tower].append(
                Column(index, size, dimension or feature.dimension, width, weights if bag else None)
            )
            index, weights = index + width, weights + (width if bag else 0)
        dense: dict[str, list[int]] = {"shared": [], "ctr": []}
        for index, feature in enumerate(numeric(spec)):
            dense[feature.tower] += [2 * index, 2 * index + 1]
        if not columns["shared"] and not dense["shared"]:
            raise UsageError(
                "every feature feeds the CTR tower only, so nothing is left to predict conversions from: "
                "add an id, a context column or a feature view"
            )
        return Layout(tuple(columns["shared"]), tuple(columns["ctr"]), tuple(dense["shared"]), tuple(dense["ctr"]))


class Tables(nn.Module):
    """Embeddings of several columns in few tables: one table a distinct dimension, columns one behind the other.

    A table is read once for all its columns, and a bag is pooled from what was read. `forward` does all of it; a
    training step goes by `rows`, reads the tables itself and hands what it read to `assembled`, so that a gradient ends
    at the values that were read: a step costs what the batch touches, not what the tables hold.
    """

    def __init__(self, columns: Sequence[Column], deviation: float) -> None:
        super().__init__()
        self.dimensions = sorted({column.dimension for column in columns})
        self.tables = nn.ParameterList()
        self.bags: list[list[Column]] = []
        self.cuts: list[list[int]] = []
        """Of each table: columns of single values, then those of each bag."""
        self.counts_up: list[bool] = []
        """Of each table: whether its ids columns are 0, 1, 2, ..."""
        self.heights: list[int] = []
        """Of each table: its rows, wherever they lie (`sharding.py`)."""
        for n, dimension in enumerate(self.dimensions):
            # Single values first, so that theirs are one piece of what is read.
            group = sorted((c for c in columns if c.dimension == dimension), key=lambda column: column.is_bag)
            bags = [column for column in group if column.is_bag]
            self.bags.append(bags)
            self.cuts.append([len(group) - len(bags), *(bag.width for bag in bags)])
            sizes = torch.tensor([column.size for column in group])
            widths = torch.tensor([column.width for column in group])
            places = torch.cat([torch.arange(column.index, column.index + column.width) for column in group])
            offsets = torch.repeat_interleave(torch.cumsum(sizes, 0) - sizes, widths)
            self.heights.append(int(sizes.sum()))
            fresh = torch.randn(self.heights[n], dimension, out=on_huge_pages(self.heights[n], dimension))
            self.tables.append(nn.Parameter(fresh.mul_(deviation)))
            self.register_buffer(f"places_{n}", places, persistent=False)
            self.counts_up.append(places.tolist() == list(range(len(places))))
            # Half the memory traffic of int64, and the sort over them takes half the passes.
            small = self.heights[n] <= torch.iinfo(torch.int32).max
            self.register_buffer(f"offsets_{n}", offsets.int() if small else offsets, persistent=False)
        self.width = sum(column.dimension for column in columns)

    def forward(self, ids: Tensor, weights: Tensor) -> list[Tensor]:
        """ids [B, I], weights [B, W] -> of each table its single values [B, columns * d], then each bag [B, d]."""
        read = [embedding(rows, table) for rows, table in zip(self.rows(ids), self.tables, strict=True)]
        return self.assembled(read, weights)

    def rows(self, ids: Tensor) -> list[Tensor]:
        """ids [B, I] -> of each table the rows to read, [B, K], K its columns: single ones, then those of its bags."""
        return [self._placed(ids, n) + self.get_buffer(f"offsets_{n}") for n in range(len(self.tables))]

    def _placed(self, ids: Tensor, table: int) -> Tensor:
        # One table that reads all columns as they come is the usual case, and a copy of them saved.
        whole = self.counts_up[table] and ids.shape[1] == self.get_buffer(f"places_{table}").numel()
        return ids if whole else ids.index_select(1, self.get_buffer(f"places_{table}"))

    def assembled(self, read: Sequence[Tensor], weights: Tensor) -> list[Tensor]:
        """What was read of each table, [B, K, d], and weights [B, W] -> as `forward`."""
        parts = []
        for found, bags, cuts in zip(read, self.bags, self.cuts, strict=True):
            single, *several = torch.split(found, cuts, 1) if bags else (found,)
            if cuts[0]:
                parts.append(single.flatten(1))
            parts += [pooled(values, weights, bag) for values, bag in zip(several, bags, strict=True)]
        return parts


def on_huge_pages(*shape: int) -> Tensor:
    """An empty float32 tensor for reads all over it: numpy asks the kernel for huge pages where it allocates much, and
    fewer pages are fewer misses of the address cache (a twentieth of a step's time at two million rows)."""
    return torch.from_numpy(np.empty(shape, np.float32))


def read_rows(table: Tensor, rows: Tensor) -> Tensor:
    """Rows of a table [R, d], by integers of any shape [...] -> [..., d]; not differentiable."""
    flat = rows.flatten()
    with torch.no_grad():
        if table.device.type == "cpu":
            # Bags of one each: the same rows in two thirds of the time, since this kernel prefetches them.
            found = embedding_bag(flat, table, torch.arange(len(flat), dtype=flat.dtype), mode="sum")
        else:
            found = table.index_select(0, flat)
    return found.view(*rows.shape, table.shape[1])


def pooled(found: Tensor, weights: Tensor, bag: Column) -> Tensor:
    """Embeddings [B, K, d] of a bag, summed with its coefficients in weights [B, W] -> [B, d].

    A padding's coefficient is 0, so it adds nothing to the sum, and nothing to its row's gradient.
    """
    assert bag.weights is not None
    # As a product and a sum, not a matrix product: autocast leaves those in float32.
    return (found * weights[:, bag.weights : bag.weights + bag.width].unsqueeze(2)).sum(1)
