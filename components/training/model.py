"""The network: fused embedding tables, one bottom, two towers. ESMM, ESMM-NS and BASE are configs of it, not branches.

Letters of shapes: B rows, I ids columns, W columns of bags among them, D numeric features, E width of a bottom.

    ids [B, I] ─────┬─ tables ─┬── bottom [B, E] ──┬── CTR tower ── logit_ctr [B]
    weights [B, W] ─┘          │                   │      ^ position: features whose tower is "ctr" enter here only
    dense [B, 2D] ─────────────┘                   └── CVR tower ── logit_cvr [B]

Where embeddings are not shared, the CVR tower has a bottom, and table rows, of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

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

    A table is read once for all its columns, and a bag is pooled from what was read. Gradients are sparse: a step costs
    what the batch touches, not what the tables hold.
    """

    def __init__(self, columns: Sequence[Column], deviation: float) -> None:
        super().__init__()
        self.dimensions = sorted({column.dimension for column in columns})
        self.tables = nn.ParameterList()
        self.bags: list[list[Column]] = []
        self.cuts: list[list[int]] = []
        """Of each table: columns of single values, then those of each bag."""
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
            self.tables.append(nn.Parameter(torch.randn(int(sizes.sum()), dimension) * deviation))
            self.register_buffer(f"places_{n}", places, persistent=False)
            self.register_buffer(f"offsets_{n}", offsets, persistent=False)
        self.width = sum(column.dimension for column in columns)

    def forward(self, ids: Tensor, weights: Tensor) -> list[Tensor]:
        """ids [B, I], weights [B, W] -> of each table its single values [B, columns * d], then each bag [B, d]."""
        parts = []
        for n, (table, bags, cuts) in enumerate(zip(self.tables, self.bags, self.cuts, strict=True)):
            rows = ids.index_select(1, self.get_buffer(f"places_{n}")) + self.get_buffer(f"offsets_{n}")
            found = embedding(rows, table, sparse=True)
            single, *several = torch.split(found, cuts, 1) if bags else (found,)
            if cuts[0]:
                parts.append(single.flatten(1))
            parts += [pooled(values, weights, bag) for values, bag in zip(several, bags, strict=True)]
        return parts


def pooled(found: Tensor, weights: Tensor, bag: Column) -> Tensor:
    """Embeddings [B, K, d] of a bag, summed with its coefficients in weights [B, W] -> [B, d].

    A padding's coefficient is 0, so it adds nothing to the sum, and nothing to its row's gradient.
    """
    assert bag.weights is not None
    # As a product and a sum, not a matrix product: autocast leaves those in float32.
    return (found * weights[:, bag.weights : bag.weights + bag.width].unsqueeze(2)).sum(1)


class Tower(nn.Module):
    """ReLU layers and a last one to a logit. [B, inputs] -> [B]."""

    def __init__(self, inputs: int, hidden: Sequence[int]) -> None:
        super().__init__()
        widths = [inputs, *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.hidden = nn.Sequential(*layers)
        self.last = nn.Linear(widths[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        # As a product and a sum, not a matrix product: autocast leaves those in float32, and a logit needs it.
        logit: Tensor = (self.hidden(x).float() * self.last.weight).sum(-1) + self.last.bias
        return logit


class FunnelNetwork(nn.Module):
    """pCTR and pCVR of an impression, as logits.

    Args:
        layout: which columns feed what.
        hidden: widths of each tower's hidden layers.
        share_embeddings: the CVR tower reads the bottom that the CTR tower reads; otherwise one with its own rows.
        deviation: standard deviation of fresh embeddings; small, since Adagrad's first steps are large.
    """

    def __init__(self, layout: Layout, hidden: Sequence[int], share_embeddings: bool, deviation: float = 0.01) -> None:
        super().__init__()
        self.ctr_tables = Tables(layout.shared, deviation)
        self.cvr_tables = self.ctr_tables if share_embeddings else Tables(layout.shared, deviation)
        self.position_tables = Tables(layout.ctr_only, deviation)
        self.register_buffer("dense_shared", torch.tensor(layout.dense_shared, dtype=torch.long), persistent=False)
        self.register_buffer("dense_ctr_only", torch.tensor(layout.dense_ctr_only, dtype=torch.long), persistent=False)
        bottom = self.ctr_tables.width + len(layout.dense_shared)
        self.ctr_tower = Tower(bottom + self.position_tables.width + len(layout.dense_ctr_only), hidden)
        self.cvr_tower = Tower(bottom, hidden)
        self.share_embeddings = share_embeddings

    def forward(self, ids: Tensor, dense: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """ids [B, I] of any integers, dense float32 [B, 2D], weights float32 [B, W] -> (logit_ctr, logit_cvr) [B]."""
        dense_shared = self._dense(dense, "dense_shared")
        shared = self.ctr_tables(ids, weights)
        own = shared if self.share_embeddings else self.cvr_tables(ids, weights)
        position = [*self.position_tables(ids, weights), *self._dense(dense, "dense_ctr_only")]
        return (
            self.ctr_tower(torch.cat([*shared, *dense_shared, *position], 1)),
            self.cvr_tower(torch.cat([*own, *dense_shared], 1)),
        )

    def _dense(self, dense: Tensor, name: str) -> list[Tensor]:
        places = self.get_buffer(name)
        return [dense.index_select(1, places)] if places.numel() else []

    @torch.no_grad()
    def start_at(self, ctr: float, cvr: float) -> None:
        """Sets the last biases to the log-odds of the base rates, so that training starts calibrated.

        Args:
            ctr: share of impressions clicked. cvr: share of clicks converted. Both in (0, 1).
        """
        for tower, rate in ((self.ctr_tower, ctr), (self.cvr_tower, cvr)):
            tower.last.bias.fill_(float(torch.logit(torch.tensor(rate, dtype=torch.float64))))

    def embedding_parameters(self) -> list[nn.Parameter]:
        """Every table once, shared or not."""
        return [p for name, p in self.named_parameters() if ".tables." in name]

    def dense_parameters(self) -> list[nn.Parameter]:
        return [p for name, p in self.named_parameters() if ".tables." not in name]
