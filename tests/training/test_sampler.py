"""The order of rows: every row once a pass, another order each, the same wherever one begins and wherever rows lie."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.training.data import Rows, batches, joined
from components.training.sampler import Order, Piece, Span


def order(**changes: Any) -> Order:
    return Order(**{"rows": 1000, "batch": 64, "seed": 5, "block": 8, "window": 256, **changes})


def numbered(rows: int) -> Rows:
    """Rows whose one id is their number."""
    nothing, label = torch.zeros(rows, 0), torch.zeros(rows)
    return Rows(torch.arange(rows).unsqueeze(1), nothing, nothing, label, label)


def seen(of: Order, start: int, stop: int) -> list[int]:
    return joined(list(batches(numbered(of.rows), of, start, stop))).ids.flatten().tolist()


orders = st.builds(
    Order,
    rows=st.integers(1, 300),
    batch=st.integers(1, 350),
    seed=st.integers(-(2**70), 2**70),
    block=st.integers(1, 40),
    window=st.integers(1, 350),
)


@given(orders, st.integers(0, 3))
def test_every_row_comes_once_a_pass_in_batches_of_one_size(of: Order, epoch: int) -> None:
    parts = [of.indices(epoch, number) for number in range(of.batches)]
    assert sorted(np.concatenate(parts)) == list(range(of.rows))
    assert all(len(part) == of.batch for part in parts[:-1])
    assert 0 < len(parts[-1]) <= of.batch


@given(orders)
def test_no_more_than_a_window_is_held_and_its_spans_ascend(of: Order) -> None:
    for window in range(of.windows):
        spans = of.spans(1, window)
        rows = sum(span.stop - span.start for span in spans)
        assert rows == len(of.mixed(1, window)) <= max(of.window, of.block)
        assert all(a.stop < b.start for a, b in pairwise(spans))


@given(orders, st.data())
def test_batches_are_what_the_order_says_from_wherever_one_begins(of: Order, data: st.DataObject) -> None:
    """A resumed training sees the rest of what an uninterrupted one sees."""
    stop = 2 * of.batches + 1
    start = data.draw(st.integers(0, stop - 1))
    wanted = [of.indices(*divmod(step, of.batches)) for step in range(start, stop)]
    found = list(batches(numbered(of.rows), of, start, stop))
    assert [batch.ids.flatten().tolist() for batch in found] == [part.tolist() for part in wanted]


def test_passes_and_seeds_differ_and_the_same_is_the_same() -> None:
    whole = seen(order(), 0, 32)
    assert whole == seen(order(), 0, 32)
    first, second = whole[:1000], whole[1000:]
    assert sorted(first) == sorted(second) == list(range(1000))
    assert first != second != list(range(1000))
    assert seen(order(seed=6), 0, 16) != first
    assert len(list(batches(numbered(1000), order(), 4, 4))) == 0


def test_the_order_is_pinned() -> None:
    """A checkpoint is resumed by another process: were numpy's streams to change, weights would, without a word."""
    assert order().indices(0, 0)[:8].tolist() == [786, 870, 673, 525, 381, 374, 319, 554]


def test_a_set_of_one_window_is_permuted_as_a_whole() -> None:
    """Block by block nothing is left: of 1000 rows in a uniform permutation about one pair of neighbours stays."""
    of = order(window=1000, block=1000)
    assert of.spans(0, 0) == [Span(0, 1000)]
    neighbours = sum(b == a + 1 for a, b in pairwise(seen(of, 0, 16)))
    assert neighbours <= 5
    same_blocks = order(window=1024, block=8)
    assert same_blocks.spans(0, 0) == [Span(0, 1000)]
    assert seen(same_blocks, 0, 16) == seen(of, 0, 16)


def test_each_window_mixes_blocks_from_all_over_the_set() -> None:
    """Rows in time: the mean place of each window's rows lies within 4 standard errors of the middle."""
    of = order(rows=65_536, block=64, window=8192)
    error = 65_536 / np.sqrt(12) / np.sqrt(8192 / 64)
    for window in range(of.windows):
        places = np.concatenate([np.arange(span.start, span.stop) for span in of.spans(0, window)])
        assert abs(places.mean() - 32_768) < 4 * error


def test_a_batch_may_lie_across_windows() -> None:
    of = order(rows=100, batch=30, block=10, window=40)
    assert [of.pieces(number) for number in range(4)] == [
        [Piece(0, 0, 30)],
        [Piece(0, 30, 40), Piece(1, 0, 20)],
        [Piece(1, 20, 40), Piece(2, 0, 10)],
        [Piece(2, 10, 20)],
    ]
    assert order(rows=100, batch=90, block=10, window=40).pieces(0) == [
        Piece(0, 0, 40),
        Piece(1, 0, 40),
        Piece(2, 0, 10),
    ]


@pytest.mark.parametrize(("block", "window", "rows"), [(8, 3, 8), (8, 8, 8), (8, 23, 16), (1, 5, 5)])
def test_a_window_is_whole_blocks(block: int, window: int, rows: int) -> None:
    assert order(block=block, window=window).window_rows == rows
