"""Optimizers: row-wise Adagrad for the tables, Adam for the rest.

Dense Adam over big tables is what kills throughput: it rewrites every row, and two moments a weight, each step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn


class RowwiseAdagrad(torch.optim.Optimizer):
    """Adagrad with one accumulator a row, over sparse gradients.

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
        # As a group: a model without id features has no table, and that is no error.
        super().__init__([{"params": list(tables)}], {"lr": lr, "eps": eps})
        for group in self.param_groups:
            for table in group["params"]:
                self.state[table]["sum"] = torch.full((table.shape[0],), accumulator, device=table.device)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step from the sparse gradients of all tables; nothing in it waits for a GPU."""
        if closure is not None:
            raise NotImplementedError("row-wise Adagrad takes no closure")
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._update(table, group["lr"], group["eps"])

    def _update(self, table: nn.Parameter, lr: float, eps: float) -> None:
        gradient = table.grad
        assert gradient is not None
        rows, sums = sum_by_row(gradient._indices()[0], gradient._values())
        total: Tensor = self.state[table]["sum"]
        total.scatter_add_(0, rows, sums.square().mean(1))
        steps = sums * (-lr / (total.index_select(0, rows).sqrt() + eps)).unsqueeze(1)
        table.scatter_add_(0, rows.unsqueeze(1).expand_as(steps), steps)


def sum_by_row(rows: Tensor, gradients: Tensor) -> tuple[Tensor, Tensor]:
    """Sums gradients of equal rows: int64 [N] and float32 [N, d] -> the same shapes.

    Distinct rows come first, ascending; what is left over is row 0 with a zero gradient, which changes nothing. The
    shape does not depend on the values, so a GPU need not tell the host how many rows are distinct (`coalesce` does).
    """
    ordered, order = torch.sort(rows, stable=True)
    first = torch.ones_like(ordered)
    first[1:] = ordered[1:] != ordered[:-1]
    slot = torch.cumsum(first, 0) - 1
    # scatter_add_ with an expanded index is three times as fast on a CPU as index_add_.
    sums = torch.zeros_like(gradients)
    sums.scatter_add_(0, slot.unsqueeze(1).expand_as(gradients), gradients.index_select(0, order))
    distinct = torch.zeros_like(rows).scatter_(0, slot, ordered)
    return distinct, sums


def dense_optimizer(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """Adam with the paper's constants (Kingma and Ba, ICLR 2015; .9, .999, 1e-8)."""
    options: dict[str, Any] = {"betas": (0.9, 0.999), "eps": 1e-8, "foreach": True}
    return torch.optim.Adam(parameters, lr=lr, **options)
