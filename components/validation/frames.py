"""The small pandas frames that the set-wide rules are judged over: aggregates, a line for each thing judged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from components.contracts import columns as c
from components.contracts.dataset import Imported
from components.validation.gate import ValidationLimits
from components.validation.scan import Scan
from components.validation.suite import PLAIN
from components.validation.tables import ABSENT, File
from components.validation.views import ViewFigures

NAMED = 5
"""How many days, files or reasons a sentence names."""


def columns(table: str, files: Sequence[File], types: Mapping[str, tuple[str, ...]]) -> Any:
    """A line for each needed column and each type it has in some file; one without a type where no file has it."""
    lines = []
    for column, allowed in types.items():
        having: dict[str, list[str]] = {}
        for file in files:
            having.setdefault(file.types.get(column, ABSENT), []).append(file.name)
        kinds: Mapping[Any, list[str]] = {None: []} if set(having) <= {ABSENT} else having
        lines += [
            {"table": table, "column": column, "type": kind, "wanted": PLAIN[allowed], "where": _where(names)}
            for kind, names in kinds.items()
        ]
    return _frame(lines, ("table", "column", "type", "wanted", "where"))


def _where(names: Sequence[str]) -> str:
    rest = len(names) - 1
    return (names[0] if names else "") + (f" and {rest} other file{'s' * (rest > 1)}" if rest > 0 else "")


def whole(found: Scan, healthy: frozenset[str], imported: Imported | None, limits: ValidationLimits) -> Any:
    """One line for the log as a whole; a figure that cannot be had is left out."""
    good = found.rows - found.bad
    line: dict[str, Any] = {"rows": good}
    if good and c.CLICK in healthy:
        line["click_rate"] = found.clicks / good
    usable = sorted(day for day, count in found.days.items() if count.rows > count.bad and _is_date(day))
    if usable:
        first, last = date.fromisoformat(usable[0]), date.fromisoformat(usable[-1])
        present = {date.fromisoformat(day).toordinal() for day in found.days if _is_date(day)}
        missing = [n for n in range(first.toordinal(), last.toordinal()) if n not in present]
        line |= {
            "missing_days": len(missing), "first_day": usable[0], "last_day": usable[-1],
            "missing_named": named([date.fromordinal(n).isoformat() for n in missing]),
        }  # fmt: skip
    if imported is not None:
        refused = sum(imported.refused.values())
        worst = sorted(imported.refused.items(), key=lambda item: (-item[1], item[0]))
        line |= {
            "refused": refused, "lines": imported.lines, "refused_share": refused / max(imported.lines, refused, 1),
            "refused_named": named([f"{count:,} {reason}" for reason, count in worst]),
            "truncated": len(imported.truncated), "truncated_named": named(imported.truncated),
        }  # fmt: skip
    return _frame([line], tuple(line))


def _is_date(day: str) -> bool:
    try:
        date.fromisoformat(day)
    except ValueError:
        return False
    return True


def named(items: Sequence[str]) -> str:
    """The first few of them, the rest counted."""
    rest = len(items) - NAMED
    return ", ".join(items[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def splits(found: Scan, healthy: frozenset[str], limits: ValidationLimits) -> Any:
    """A line for each of train, validation and test; no lines where nobody can tell."""
    needed = {c.TRAIN: limits.min_train_conversions, c.TEST: limits.min_test_conversions}
    lines: list[dict[str, Any]] = []
    if c.SPLIT in healthy and found.rows > found.bad:
        lines = [{"split": s, "rows": found.splits[s], "needed": needed.get(s, 0)} for s in c.SPLITS]
        if c.CONVERSION in healthy:
            lines = [line | {"conversions": found.conversions[str(line["split"])]} for line in lines]
    return _frame(lines, ("split", "rows", "conversions", "needed"))


def days(found: Scan) -> Any:
    return _frame([{"day": day, "rows": count.rows} for day, count in sorted(found.days.items())], ("day", "rows"))


def context(found: Scan, columns: Sequence[str]) -> Any:
    """A line for each context column that could be read."""
    lines = [{"column": name, "values": found.values[name]} for name in columns] if found.rows > found.bad else []
    return _frame(lines, ("column", "values"))


TABLE_FIGURES = (
    "rows", "null_key", "null_event", "null_created", "repeated", "early", "late_event", "late_created", "age",
)  # fmt: skip
FIELD_FIGURES = ("values", "infinite", "outside", "outside_share", "bags")


def tables(found: Sequence[ViewFigures]) -> Any:
    return _frame(
        [view.table for view in found], ("view", "key", *TABLE_FIGURES, "newest", "age_days", "ttl_days"), TABLE_FIGURES
    )


def fields(found: Sequence[ViewFigures]) -> Any:
    lines = [line for view in found for line in view.fields]
    return _frame(lines, ("view", "field", "rows", "range", *FIELD_FIGURES), FIELD_FIGURES)


def _frame(lines: Sequence[Mapping[str, Any]], names: Sequence[str], numbers: Sequence[str] = ()) -> Any:
    """`numbers` become floats, so that those that are lacking are null."""
    import pandas as pd

    frame = pd.DataFrame([{name: line.get(name) for name in names} for line in lines], columns=list(names))
    return frame.astype(dict.fromkeys(numbers, "float64"))


def filled(frame: Any) -> set[str]:
    """Columns with a value in some line: what rules can be run over."""
    return {str(name) for name in frame.columns if frame[name].notna().any()}
