"""Fair timing on a shared machine: the contenders take turns, and medians of their rates are compared."""

from __future__ import annotations

import time
from collections.abc import Callable


def rates(contenders: dict[str, Callable[[], int]], rounds: int) -> dict[str, list[float]]:
    """Each contender once a round, in turn, after one round that does not count; returns rows/s by contender.

    A contender does its work and returns how many rows that was.
    """
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, work in contenders.items():
            started = time.perf_counter()
            rows = work()
            if turn:
                found[name].append(rows / (time.perf_counter() - started))
    return found
