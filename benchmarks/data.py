"""Data in: the Ali-CCP importer against a plain loop, the data gate against the same checks by hand in DuckDB."""

from __future__ import annotations

from benchmarks import imports, validation
from benchmarks.figures import show


def main(as_json: bool, full: bool = False) -> None:
    """Prints both; with `full`, in their place, the importer alone on 2,000,000 lines and more, for its peak memory."""
    if full:
        size = imports.FULL
        show(f"import alone, {size.lines:,} lines x {size.groups:,} groups", imports.full_figures(), {}, as_json)
        return
    lines, groups = imports.LINES, imports.LINES // imports.LINES_A_GROUP
    figures, ratios = imports.import_figures(lines, imports.ROUNDS)
    found, quotients = validation.validation_figures()
    title = (
        f"import of {lines:,} lines x {groups:,} groups, {imports.ROUNDS} rounds; "
        f"validation of {validation.ROWS:,} rows x 25 columns on {validation.DAYS} days, {validation.ROUNDS} rounds"
    )
    show(title, figures | found, ratios | quotients, as_json)
