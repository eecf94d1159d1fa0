"""The profile of a run's usable data: what a later run is held against (`drift.py`), once a person has accepted it.

Of a feature table, the latest row of each key that the log's last days show is measured: what would be looked up for
the users and items of these days. A whole history hides what the last day did; and all keys ever seen are more and
staler the longer the log is.

Shares are between 0 and 1; all figures are rounded to six significant digits. Counts by day are of all rows; the rest
is measured on a sample that a hash of the keys draws (all rows of a small table), so equal data gives equal text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from components.contracts import columns as c
from components.contracts import duck, quality
from components.contracts.config import Config
from components.contracts.dataset import DatasetInfo
from components.contracts.errors import UsageError
from components.contracts.spec import Dtype, FeatureSpec, raw

PROFILE_JSON = quality.PROFILE_JSON
CATEGORIES = 50
"""How many of a column's most frequent values are kept by name ..."""
SMALLEST_SHARE = 0.001
"""... of those that make at least this share."""
LONGEST_VALUE = 80
"""A longer value is cut, so that a column of free text does not make the file a copy of the log."""
GRID = tuple(number / 20 for number in range(21))
"""Where a number's quantiles are taken."""
RECENT_DAYS = 3
"""The log's last days whose users and items a feature table is measured at: few enough for a week's counts of past
events to hold what these days showed."""
SAMPLED = 65_536
"""A table of twice as many rows (of a feature table: keys) or more is sampled down to about this many."""


class DayProfile(Config):
    """One `dt` partition. `rows`, `clicks` and `conversions` are of usable rows; `volume` is all of the day's visible
    impressions, immature ones and the gap's included, where ingestion counted them, else `rows`. A `partial` day may
    have been cut by the log's ends (or, where only usable rows are known, by a split's)."""

    rows: int
    clicks: int
    conversions: int
    volume: int
    partial: bool = False


class ColumnProfile(Config):
    """One column. `nulls` is a share of rows (an empty list is null); `categories` are the most frequent values with
    their shares, `others` the share of all the rest, both of non-null rows, or of a bag's single values; `quantiles`
    are a number's, at `GRID`. `values` is how many non-null rows, or single values, stood behind them."""

    nulls: float
    values: int
    categories: dict[str, float] = {}
    others: float = 0.0
    quantiles: tuple[float, ...] = ()

    @property
    def has_categories(self) -> bool:
        return bool(self.categories or self.others)

    def largest(self, categories: int) -> ColumnProfile:
        """The same with no more than so many categories by name."""
        kept = dict(sorted(self.categories.items(), key=lambda item: (-item[1], item[0]))[:categories])
        others = significant(self.others + sum(self.categories.values()) - sum(kept.values()))
        return self.model_copy(
            update={"categories": kept, "others": others if kept != self.categories else self.others}
        )


class TableProfile(Config):
    """The log's context columns, or one view's fields. `rows` counts the log's rows, or the view's measured keys."""

    rows: int
    columns: dict[str, ColumnProfile] = {}


class Profile(Config):
    """What a run's usable data looked like. `run` is the accepted run's id, "" until one is accepted."""

    dataset: str
    run: str = ""
    as_of: str
    data_fingerprint: str
    days: dict[str, DayProfile] = {}
    log: TableProfile
    views: dict[str, TableProfile] = {}

    @property
    def tables(self) -> dict[str, TableProfile]:
        return {"log": self.log, **self.views}

    def to_text(self) -> str:
        """The file a person reviews and commits: keys in order, one value a line, quantiles in one."""
        text = json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        return re.sub(r"\[[-\d.eE+,\s]*\]", lambda found: " ".join(found[0].split()), text) + "\n"

    def largest(self, categories: int) -> Profile:
        """The same with no more than so many categories a column by name."""

        def cut(table: TableProfile) -> TableProfile:
            columns = {name: column.largest(categories) for name, column in table.columns.items()}
            return table.model_copy(update={"columns": columns})

        views = {name: cut(table) for name, table in self.views.items()}
        return self.model_copy(update={"log": cut(self.log), "views": views})


def measure(
    db: Any, good: str, info: DatasetInfo, spec: FeatureSpec, views: Mapping[str, str], as_of: str,
    data_fingerprint: str, volume: Mapping[str, int] | None = None,
) -> Profile:  # fmt: skip
    """Measures the usable rows. A column that a relation lacks is left out: other rules say so.

    Args:
        db: a DuckDB connection (contracts/duck.py).
        good: SQL relation (a name or a parenthesised query) of the log's usable rows, with the partition as `dt`.
        views: the same by view name.
        volume: visible impressions by day, of all days (ingestion's maturity); None: usable rows are what is known.

    Raises:
        DataError: if a relation cannot be read (from `duck.connect`).
    """
    context = {**info.context, **raw(spec.context)}
    return Profile(
        dataset=info.name,
        as_of=as_of,
        data_fingerprint=data_fingerprint,
        days=_days(db, good, volume),
        log=_log(db, good, context),
        views={
            view.name: _view(db, good, views[view.name], view.entity, raw(spec.from_source(view.name)))
            for view in spec.views
            if view.name in views
        },
    )


def load(path: Path) -> Profile:
    """Reads a profile.

    Raises:
        UsageError: the file does not exist, is no text, or is no profile, saying what is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"the reference profile {path} cannot be read ({error}): make one with `esmm profile accept --out {path}`"
        ) from None
    return Profile.parse(text, where=str(path))


def significant(value: float) -> float:
    """Rounded to six significant digits; minus zero is zero."""
    return float(f"{value:.6g}") + 0.0


def _days(db: Any, good: str, volume: Mapping[str, int] | None) -> dict[str, DayProfile]:
    split = f", list_sort(list(DISTINCT {c.SPLIT}))" if c.SPLIT in duck.types(db, good) else ", ['']"
    counted = db.execute(
        f"SELECT {c.PARTITION}::VARCHAR, count(*), count_if({c.CLICK} = 1), count_if({c.CONVERSION} = 1){split} "
        f"FROM {good} GROUP BY 1 ORDER BY 1"
    ).fetchall()
    counts = {day: (rows, clicks, conversions) for day, rows, clicks, conversions, _ in counted}
    if volume is None:
        ends = _ends({day: splits for day, *_, splits in counted})
        volume = {day: rows for day, (rows, _, _) in counts.items()}
    elif volume:
        ends = {min(volume), max(volume)}
        first, last = (date.fromisoformat(day) for day in (min(volume), max(volume)))
        between = [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]
        volume = {**dict.fromkeys(between, 0), **volume}  # a day without an impression is a day, too
    else:
        ends = set()
    return {
        day: DayProfile(
            rows=counts.get(day, (0, 0, 0))[0],
            clicks=counts.get(day, (0, 0, 0))[1],
            conversions=counts.get(day, (0, 0, 0))[2],
            volume=volume.get(day, 0),
            partial=day in ends,
        )
        for day in sorted({*counts, *volume})
    }


def _ends(splits: Mapping[str, list[str]]) -> set[str]:
    """First and last day of every split: the gap between two of them may begin or end within a day."""
    days: dict[str, list[str]] = {}
    for day, names in splits.items():
        for name in names:
            days.setdefault(name, []).append(day)
    return {end for found in days.values() for end in (min(found), max(found))}


def _log(db: Any, good: str, columns: Mapping[str, Dtype]) -> TableProfile:
    rows = int(db.execute(f"SELECT count(*) FROM {good}").fetchone()[0])
    return _table(db, good, c.IMPRESSION_ID, rows, columns)


def _view(db: Any, good: str, relation: str, entity: str, columns: Mapping[str, Dtype]) -> TableProfile:
    lacking = {entity, c.EVENT_TIMESTAMP, c.CREATED_TIMESTAMP} - set(duck.types(db, relation))
    if lacking or entity not in duck.types(db, good):
        return TableProfile(rows=0)
    recent = (
        f"(SELECT DISTINCT {entity} FROM {good} WHERE {c.PARTITION}::DATE > "
        f"(SELECT max({c.PARTITION}::DATE) FROM {good}) - {RECENT_DAYS})"
    )
    known = f"(SELECT * FROM {relation} SEMI JOIN {recent} USING ({entity}))"
    keys = int(db.execute(f"SELECT count(DISTINCT {entity}) FROM {known}").fetchone()[0])
    latest = (
        f"QUALIFY row_number() OVER (PARTITION BY {entity} "
        f"ORDER BY {c.EVENT_TIMESTAMP} DESC, {c.CREATED_TIMESTAMP} DESC) = 1"
    )
    return _table(db, known, entity, keys, columns, latest)


def _table(db: Any, relation: str, key: str, rows: int, columns: Mapping[str, Dtype], latest: str = "") -> TableProfile:
    """Draws the sample, then measures it column by column."""
    have = duck.types(db, relation)
    kinds = {n: t for n, t in sorted(columns.items()) if n in have and have[n].endswith("[]") == (t in LISTS)}
    if not kinds or not rows:
        return TableProfile(rows=rows)
    every = max(1, rows // SAMPLED)
    drawn = f"WHERE hash({key}) % {every} = 0" if every > 1 and key in have else ""
    values = ", ".join(f"{_value(name, dtype)} AS {duck.name(name)}" for name, dtype in kinds.items())
    db.execute(f"CREATE OR REPLACE TEMP TABLE sampled AS SELECT {values} FROM {relation} {drawn} {latest}")
    try:
        return TableProfile(rows=rows, columns={name: _column(db, name, dtype) for name, dtype in kinds.items()})
    finally:
        db.execute("DROP TABLE sampled")


LISTS = ("strings", "floats")


def _value(name: str, dtype: Dtype) -> str:
    """SQL for a column's value in one form whatever type the file has; null where it has none."""
    column = duck.name(name)
    if dtype == "int":  # a whole number may be stored as a float: 3 and 3.0 are one value
        return f"TRY_CAST({column} AS BIGINT)"
    if dtype == "float":
        return f"CASE WHEN isfinite(TRY_CAST({column} AS DOUBLE)) THEN {column}::DOUBLE END"
    if dtype == "floats":
        return f"CASE WHEN len({column}) > 0 THEN {column}::DOUBLE[] END"
    if dtype == "strings":
        return f"CASE WHEN len({column}) > 0 THEN {column} END"
    return f"left({column}::VARCHAR, {LONGEST_VALUE})"


def _column(db: Any, name: str, dtype: Dtype) -> ColumnProfile:
    column = duck.name(name)
    rows, filled = db.execute(f"SELECT count(*), count({column}) FROM sampled").fetchone()
    values = f"(SELECT {column} AS v FROM sampled WHERE {column} IS NOT NULL)"
    if dtype in LISTS:
        single = f"left(v, {LONGEST_VALUE})" if dtype == "strings" else "v"
        kept = "v IS NOT NULL" if dtype == "strings" else "isfinite(v)"
        values = f"(SELECT {single} AS v FROM (SELECT unnest({column}) AS v FROM sampled) WHERE {kept})"
    found: dict[str, Any] = {}
    if dtype in ("int", "float", "floats"):
        found["quantiles"] = _quantiles(db, values)
    if dtype in ("string", "bool", "strings", "int"):
        found.update(_categories(db, values, few=dtype == "int"))
    count = db.execute(f"SELECT count(*) FROM {values}").fetchone()[0]
    return ColumnProfile(nulls=significant(1 - filled / rows), values=count, **found)


def _quantiles(db: Any, values: str) -> tuple[float, ...]:
    listed = db.execute(f"SELECT quantile_disc(v, {list(GRID)}) FROM {values}").fetchone()[0]
    return tuple(significant(value) for value in listed) if listed else ()


def _categories(db: Any, values: str, few: bool) -> dict[str, Any]:
    """The most frequent values by share, ties by value. `few`: none at all of a column with more than `CATEGORIES`."""
    counted = db.execute(
        f"SELECT v::VARCHAR, count(*), sum(count(*)) OVER (), count(*) OVER () FROM {values} "
        f"GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {CATEGORIES}"
    ).fetchall()
    if not counted or (few and counted[0][3] > CATEGORIES):
        return {}
    total = int(counted[0][2])
    named = {value: count for value, count, _, _ in counted if count >= SMALLEST_SHARE * total}
    shares = {value: significant(count / total) for value, count in named.items()}
    return {"categories": shares, "others": significant(1 - sum(named.values()) / total)}
