"""Optimizers: row-wise Adagrad for the tables, Adam for the rest.

Dense Adam over big tables is what kills throughput: it rewrites every row, and two moments a weight, each step.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from components.training.tables import on_huge_pages


class RowwiseAdagrad:
    """Adagrad with one accumulator a row, from the rows that a batch read and the gradients of what it read there.

    For every row r that a step touches, with g its summed gradient of width d:

        G_r <- G_r + mean(g^2);    w_r <- w_r - lr * g / (sqrt(G_r) + eps)

    Adagrad: Duchi et al., JMLR 2011; one accumulator a row: Mudigere et al., "Software-hardware co-design for fast and
    scalable training of deep learning recommendation models", ISCA 2022 (as in FBGEMM). Rows that the batch does not
    touch stay as they are.

    Args:
        accumulator: what every G starts from. Above zero it damps a row's first steps, which are otherwise of full
            length whatever the gradient.
    """

    def __init__(self, tables: Iterable[nn.Parameter], lr: float, accumulator: float = 0.0, eps: float = 1e-10) -> None:
        self.tables = list(tables)
        self.lr, self.eps = lr, eps
        self.totals = [on_huge_pages(len(table)).fill_(accumulator).to(table) for table in self.tables]
        """G of each table's rows."""

    @torch.no_grad()
    def step(self, rows: Iterable[Tensor], gradients: Iterable[Tensor]) -> None:
        """One step. Of each table: the rows read, integers [N], in any order and as often as they were read, and the
        gradient of each reading, float32 [N, d]. Nothing in it waits for a GPU.
        """
        for table, total, read, gradient in zip(self.tables, self.totals, rows, gradients, strict=True):
            touched, sums = sum_by_row(read, gradient)
            # Not the int32 that sorts faster: index_add_ has a fast way for int64 alone, four times as fast.
            touched = touched.long()
            total.index_add_(0, touched, sums.square().mean(1))
            scale = (total.index_select(0, touched).sqrt_() + self.eps).reciprocal_().mul_(-self.lr)
            table.index_add_(0, touched, sums.mul_(scale.unsqueeze(1)))


def sum_by_row(rows: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    """Sums gradients of equal rows: integers [N] and float32 [N, d] -> distinct rows [U], ascending, and sums [U, d].

    Sums are taken in the order of the batch. On a GPU U is N whatever the values, since how many rows are distinct is
    something that the host would have to wait for: what is left over is row 0 with a gradient of zero, which changes
    nothing.
    """
    if rows.device.type == "cpu":
        return _sum_on_host(rows, gradients)
    return sum_in_fixed_shape(rows, gradients)


def _sum_on_host(rows: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    ordered, order = torch.sort(rows, stable=True)
    touched, counts = torch.unique_consecutive(ordered, return_counts=True)
    ends = torch.cumsum(counts, 0)
    # A bag of readings a row: the one sum over segments that is vectorized and parallel, five times a scatter's rate.
    starts = torch.cat([ends.new_zeros(1), ends])
    sums = torch.ops.aten._embedding_bag_forward_only(gradients, order, starts, include_last_offset=True)[0]
    return touched, sums


def sum_in_fixed_shape(rows: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    """`sum_by_row` with as many sums as there are rows; `_sum_on_host` is what a CPU does instead."""
    ordered, order = torch.sort(rows, stable=True)
    first = torch.ones_like(ordered, dtype=torch.long)
    first[1:] = ordered[1:] != ordered[:-1]
    slot = torch.cumsum(first, 0) - 1
    sums = torch.zeros_like(gradients).index_add_(0, slot, gradients.index_select(0, order))
    touched = torch.zeros_like(rows).scatter_(0, slot, ordered)
    return touched, sums


def dense_optimizer(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Adam:
    """Adam with the paper's constants (Kingma and Ba, ICLR 2015; .9, .999, 1e-8), in one kernel."""
    return torch.optim.Adam(parameters, lr=lr, betas=(0.9, 0.999), eps=1e-8, fused=True)
