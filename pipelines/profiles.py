"""Profiles as a person reviews them: where a run's lies, what is in it, what changes from one to the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.contracts.errors import DataError
from components.contracts.files import read_json
from components.contracts.quality import PROFILE_JSON
from components.validation.drift import DriftLimits, check
from components.validation.profile import ColumnProfile, Profile, TableProfile, load
from components.validation.runner import Runner
from components.validation.shares import percent

NAMED = 4
"""How many categories of a column, and how many changes within the limits, are shown."""
NOTICED = 0.05
"""A change within its limit is shown from so far on the way there."""


def of_run(folder: Path) -> tuple[Profile, dict[str, Any]]:
    """A run's profile with the run's id in it, and the run's record ({} while it is going on).

    Raises:
        DataError: if the run has no profile: it did not come that far, or its data could not be measured.
    """
    path = folder / PROFILE_JSON
    if not path.is_file():
        raise DataError(
            f"run {folder.name} has no {PROFILE_JSON}: it ended before its data was measured, see {folder}; "
            "choose another RUN"
        )
    record = read_json(folder / "record.json") if (folder / "record.json").is_file() else {}
    return load(path).model_copy(update={"run": folder.name}), record


def described(profile: Profile) -> list[str]:
    """A page of text: volume and rates, then a line a column."""
    days = profile.days
    rows, clicks, conversions = (sum(getattr(d, n) for d in days.values()) for n in ("rows", "clicks", "conversions"))
    lines = [
        f"dataset {profile.dataset}, as of {profile.as_of}, run {profile.run or '(none)'}",
        f"{rows:,} usable impressions on {len(days)} days, {clicks:,} clicks ({_rate(clicks, rows)}), "
        f"{conversions:,} conversions ({_rate(conversions, clicks)} of clicks)",
    ]
    for name, table in profile.tables.items():
        lines.append(f"{name}: {table.rows:,} {'rows' if name == 'log' else 'keys'}")
        lines += [f"  {column:24} {_column(found)}" for column, found in sorted(table.columns.items())]
    return lines


def _rate(part: int, whole: int) -> str:
    return percent(part / whole) if whole else "none"


def _column(column: ColumnProfile) -> str:
    parts = [f"null {percent(column.nulls)}"]
    if column.quantiles:
        middle, low, high = (column.quantiles[n] for n in (10, 1, 19))
        parts.append(f"median {middle:g} (nine in ten within {low:g} and {high:g})")
    by_share = sorted(column.categories.items(), key=lambda item: (-item[1], item[0]))
    parts += [f"{value!r} {percent(share)}" for value, share in by_share[:NAMED]]
    rest = column.others + sum(share for _, share in by_share[NAMED:])
    return ", ".join(parts + ([f"others {percent(rest)}"] if rest > 0 else []))


def changes(before: Profile, after: Profile) -> list[str]:
    """What moves from one reference to the next, by the measures of drift: those beyond the limits first."""
    _, found, said = check(Runner(), after, before, DriftLimits())
    if not found:
        return [f"against the file that is there: {said}", *described(after)]
    ordered = sorted(found, key=lambda drift: -drift.relative)
    beyond = [f"  beyond its limit: {drift.says}" for drift in ordered if not drift.passed]
    within = [f"  within its limit: {drift.says}" for drift in ordered if drift.passed and drift.relative > NOTICED]
    return [f"the file that is there, {said}", *beyond, *within[:NAMED], *_columns(before, after)]


def _columns(before: Profile, after: Profile) -> list[str]:
    """Columns that only one of them has."""

    def names(profile: Profile) -> set[str]:
        tables: dict[str, TableProfile] = profile.tables
        return {f"{table}.{column}" for table, found in tables.items() for column in found.columns}

    old, new = names(before), names(after)
    lines = [f"  new: {', '.join(sorted(new - old))}"] if new - old else []
    return lines + ([f"  gone: {', '.join(sorted(old - new))}"] if old - new else [])
