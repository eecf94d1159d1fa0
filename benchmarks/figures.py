"""What a benchmark found, and how it is shown: a table, or one JSON object."""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Figures = dict[str, dict[str, float]]
"""Name -> median, min, max and number of runs. The name ends in the unit."""
Ratios = dict[str, float]
"""Name -> other's time over ours, so that higher is better (docs/benchmarks.md says where it is not)."""
STATUS = Path("/proc/self/status")


def figure(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "runs": float(len(values))}


def show(title: str, figures: Figures, ratios: Ratios, as_json: bool) -> None:
    """Prints a table, or with `as_json` one object of figures, ratios and machine."""
    if as_json:
        print(json.dumps({"figures": figures, "ratios": ratios, "machine": machine()}))
        return
    print(title)
    for name, found in figures.items():
        digits = 4 if name.endswith("_auc") else 1
        middle, low, high = (f"{found[key]:,.{digits}f}" for key in ("median", "min", "max"))
        print(f"  {name:34} {middle:>14}   ({low} to {high})")
    for name, value in ratios.items():
        print(f"  {name:34} {value:>14.2f}")


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    return {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}


def peak_mb() -> float:
    """Highest resident memory of this process, MB.

    Linux starts a child's `ru_maxrss` at its parent's, so its own high-water mark is read where there is one.
    """
    if STATUS.is_file():
        line = next(line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
        return float(line.split()[1]) * 1024 / 1e6
    # KiB, but bytes on macOS.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
