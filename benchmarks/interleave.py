"""Fair timing on a shared machine: the contenders take turns, and medians of their rates are compared."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any


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


def show(title: str, found: dict[str, list[float]], ratios: dict[str, tuple[str, str]], as_json: bool) -> None:
    """Prints a table, or with `as_json` one object; a ratio is (ours, theirs): ours' median rate over theirs'."""
    medians = {name: statistics.median(values) for name, values in found.items()}
    figures = {
        name: {"median": medians[name], "min": min(v), "max": max(v), "runs": len(v)} for name, v in found.items()
    }
    quotients = {name: medians[ours] / medians[theirs] for name, (ours, theirs) in ratios.items()}
    if as_json:
        print(json.dumps({"figures": figures, "ratios": quotients, "machine": machine()}))
        return
    print(title)
    for name, figure in figures.items():
        print(f"  {name:34} {figure['median']:>12,.0f} rows/s   ({figure['min']:,.0f} to {figure['max']:,.0f})")
    for name, value in quotients.items():
        print(f"  {name:34} {value:>12.2f}")


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    return {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
