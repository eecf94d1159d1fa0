"""Row-wise Adagrad against a plain numpy loop."""

import numpy as np
import pytest
import torch

from components.training.optimizer import RowwiseAdagrad, sum_by_row, sum_in_fixed_shape


def reference(table: np.ndarray, batches: list[tuple[np.ndarray, np.ndarray]], lr: float, start: float) -> np.ndarray:
    table, total = table.copy(), np.full(len(table), start)
    for rows, gradients in batches:
        for row in np.unique(rows):
            g = gradients[rows == row].sum(0)
            total[row] += (g**2).mean()
            table[row] -= lr * g / (np.sqrt(total[row]) + 1e-10)
    return table


@pytest.mark.parametrize("start", [0.0, 0.3])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("summing", [sum_by_row, sum_in_fixed_shape])
def test_three_steps_equal_the_reference(
    start: float, dtype: torch.dtype, summing: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both ways to sum, the CPU's and the GPU's."""
    monkeypatch.setattr("components.training.optimizer.sum_by_row", summing)
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
        optimizer.step([torch.from_numpy(rows).to(dtype)], [torch.from_numpy(gradients)])
    wanted = reference(initial.astype(np.float64), batches, 0.1, start)
    # Float32 sums of a dozen terms near 1.
    assert table.detach().numpy() == pytest.approx(wanted, abs=1e-5)
    assert (table.detach().numpy()[3] == initial[3]).all()


@pytest.mark.parametrize("summing", [sum_by_row, sum_in_fixed_shape])
def test_row_zero_stays_when_a_batch_does_not_touch_it(summing: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("components.training.optimizer.sum_by_row", summing)
    table = torch.nn.Parameter(torch.ones(4, 2))
    optimizer = RowwiseAdagrad([table], lr=1.0)
    optimizer.step([torch.tensor([3, 3, 2])], [torch.ones(3, 2)])
    assert table.detach()[:2].tolist() == [[1, 1], [1, 1]]
    assert (table.detach()[2:] != 1).all()
    assert optimizer.totals[0].tolist() == [0, 0, 1, 4]


def test_equal_rows_are_summed() -> None:
    rows, sums = sum_by_row(torch.tensor([5, 2, 5, 2]), torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    assert rows.tolist() == [2, 5]
    assert sums.tolist() == [[6], [4]]


def test_on_a_gpu_the_shape_does_not_depend_on_the_values() -> None:
    rows, sums = sum_in_fixed_shape(torch.tensor([5, 2, 5, 2]), torch.tensor([[1.0], [2.0], [3.0], [4.0]]))
    assert rows.tolist() == [2, 5, 0, 0]
    assert sums.tolist() == [[6], [4], [0], [0]]


def test_a_batch_of_nothing_changes_nothing() -> None:
    table = torch.nn.Parameter(torch.ones(4, 2))
    RowwiseAdagrad([table], lr=1.0).step([torch.zeros(0, dtype=torch.int32)], [torch.zeros(0, 2)])
    assert table.tolist() == [[1, 1]] * 4
