"""Row-wise Adagrad against a plain numpy loop."""

import numpy as np
import pytest
import torch
from torch.nn.functional import embedding

from components.training.optimizer import RowwiseAdagrad, sum_by_row


def reference(table: np.ndarray, batches: list[tuple[np.ndarray, np.ndarray]], lr: float, start: float) -> np.ndarray:
    table, total = table.copy(), np.full(len(table), start)
    for rows, gradients in batches:
        for row in np.unique(rows):
            g = gradients[rows == row].sum(0)
            total[row] += (g**2).mean()
            table[row] -= lr * g / (np.sqrt(total[row]) + 1e-10)
    return table


@pytest.mark.parametrize("start", [0.0, 0.3])
def test_three_steps_equal_the_reference(start: float) -> None:
    rng = np.random.default_rng(0)
    initial = rng.normal(size=(7, 3)).astype(np.float32)
    table = torch.nn.Parameter(torch.from_numpy(initial.copy()))
    optimizer = RowwiseAdagrad([table], lr=0.1, accumulator=start)
    batches = []
    for _ in range(3):
        # Row 0 and row 6 (first and last) both occur, and most rows more than once; row 3 never.
        rows = rng.choice([0, 1, 2, 4, 5, 6], 12)
        gradients = rng.normal(size=(12, 3)).astype(np.float32)
        batches.append((rows, gradients))
        optimizer.zero_grad()
        (embedding(torch.from_numpy(rows), table, sparse=True) * torch.from_numpy(gradients)).sum().backward()
        optimizer.step()
    wanted = reference(initial.astype(np.float64), batches, 0.1, start)
    assert table.detach().numpy() == pytest.approx(wanted, abs=1e-5)
    assert (table.detach().numpy()[3] == initial[3]).all()


def test_row_zero_stays_when_a_batch_does_not_touch_it() -> None:
    table = torch.nn.Parameter(torch.ones(4, 2))
    optimizer = RowwiseAdagrad([table], lr=1.0)
    embedding(torch.tensor([3, 3, 2]), table, sparse=True).sum().backward()
    optimizer.step()
    assert table.detach()[:2].tolist() == [[1, 1], [1, 1]]
    assert (table.detach()[2:] != 1).all()
    assert optimizer.state[table]["sum"].tolist() == [0, 0, 1, 4]


def test_sum_by_row_keeps_its_shape_and_fills_up_with_nothing() -> None:
    rows, sums = sum_by_row(torch.tensor([5, 2, 5, 2]), torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    assert rows.tolist() == [2, 5, 0, 0]
    assert sums.tolist() == [[6], [4], [0], [0]]
