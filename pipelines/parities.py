"""The result of a parity check as text."""

from __future__ import annotations

from components.contracts.parity import FeatureParity
from components.features.parity.stage import Parity


def lines(found: Parity) -> list[str]:
    """A table of every column compared, then the verdict."""
    rows = [_cells(row) for row in found.features]
    header = ["feature", "view", "checked", "differing", "share", "largest", "example"]
    widths = [max(len(row[number]) for row in [header, *rows]) for number in range(len(header))]
    table = [_line(row, widths) for row in [header, *rows]] if rows else []
    verdict = "does not apply" if not found.gate.applies else "PASSED" if found.gate.passed else "DIFFERS"
    said = found.gate.reason.removeprefix("does not apply: ")
    return [*table, f"{verdict}: {said}"]


def _cells(row: FeatureParity) -> list[str]:
    at_expiry = f" (+{row.at_expiry} at expiry)" if row.at_expiry else ""
    return [
        row.feature,
        row.view,
        f"{row.checked:,}",
        f"{row.differing:,}{at_expiry}",
        f"{row.share:.1%}",
        "-" if row.largest is None else f"{row.largest:g}",
        row.example.says if row.example else "",
    ]


def _line(cells: list[str], widths: list[int]) -> str:
    left = [cell.ljust(width) for cell, width in zip(cells[:2], widths[:2], strict=True)]
    right = [cell.rjust(width) for cell, width in zip(cells[2:6], widths[2:6], strict=True)]
    return "  ".join([*left, *right, cells[6]]).rstrip()
