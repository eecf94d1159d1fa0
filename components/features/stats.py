"""Statistics of a dataset's feature tables as known at an as-of: DuckDB alone, whatever their size.

Each column is counted by value once (a grouping, which spills), and all else follows from that: distinct values, mean,
exact quantiles, the most frequent. Nothing is estimated, so equal tables give equal figures.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

from components.contracts import columns as c
from components.contracts import duck
from components.contracts.config import Config
from components.contracts.times import format_utc
from components.features import catalog, tables

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
TOP = 5
"""So many of a column's most frequent values are named."""


class Value(Config):
    """A frequent value and its share of those that are not missing."""

    value: str
    share: float


class Numbers(Config):
    """Of values that are there: `quantiles` at `QUANTILES`, each a value that occurs."""

    minimum: float
    maximum: float
    mean: float
    quantiles: tuple[float, ...]


class FeatureStats(Config):
    """`missing`: share of rows whose value is null (or NaN, infinite, an empty list). `distinct`, `numbers` and `top`
    are of the values that are there, of a bag of the single ones. `newest_event`: of the newest row that has a value.
    `a_row`: how many values a row of a bag has, mean and most."""

    name: str
    missing: float
    distinct: int
    newest_event: str | None
    numbers: Numbers | None = None
    top: tuple[Value, ...] = ()
    a_row: tuple[float, int] | None = None
    weights: Numbers | None = None


class ViewStats(Config):
    """`versions`: rows an entity, mean and most. `expired`: share of entities whose newest row is older than the view's
    time to live at as-of; served then, they would count as missing."""

    name: str
    entity: str
    ttl_seconds: float
    rows: int
    entities: int
    versions: tuple[float, int]
    expired: float
    newest_event: str | None
    features: tuple[FeatureStats, ...]


def measure(features: Path, views: tuple[str, ...], as_of: datetime, only: str | None = None) -> tuple[ViewStats, ...]:
    """Of the declared `views` that have tables below `features`, rows with event and created time before `as_of`.

    Args:
        only: one feature (or view) instead of all.

    Raises:
        DataError: a table without a declared column, with one of another type, or with lists that are no bags.
    """
    tables.check(features, views)
    found = []
    with duck.connect(threads=None, trust_statistics=False) as db:
        for view in catalog.view_entries():
            entries = [e for e in catalog.entries() if e.source == view.name and only in (None, e.name, view.name)]
            if view.name in views and entries:
                found.append(_view(db, features, view, entries, as_of))
    return tuple(found)


def _view(db: Any, features: Path, view: catalog.ViewEntry, entries: list[catalog.Entry], as_of: datetime) -> ViewStats:
    db.execute(
        f"CREATE OR REPLACE TEMP VIEW known AS SELECT * FROM {tables.parquet(features / view.name)} "
        f"WHERE {duck.known_before(as_of)}"
    )
    rows, entities, mean, most, expired, newest = db.execute(
        "SELECT coalesce(sum(n), 0), count(*), coalesce(avg(n), 0), coalesce(max(n), 0), "
        f"count_if(newest < {duck.instant(as_of)} - to_microseconds({round(view.ttl_seconds * 1e6)})), "
        f"max(newest) FROM (SELECT {view.entity}, count(*) AS n, max({c.EVENT_TIMESTAMP}) AS newest "
        f"FROM known GROUP BY {view.entity})"
    ).fetchone()
    return ViewStats(
        name=view.name,
        entity=view.entity,
        ttl_seconds=view.ttl_seconds,
        rows=int(rows),
        entities=entities,
        versions=(mean, most),
        expired=expired / entities if entities else 0.0,
        newest_event=format_utc(newest) if newest else None,
        features=tuple(_feature(db, entry, int(rows)) for entry in entries),
    )


def _feature(db: Any, entry: catalog.Entry, rows: int) -> FeatureStats:
    column = duck.name(entry.name)
    bag = entry.settings["encoding"] == "bag"
    number = entry.settings["encoding"] in ("bucket", "numeric")
    there = _there(column, bag, entry.type == "double")
    filled, newest = db.execute(
        f"SELECT count_if({there}), max({c.EVENT_TIMESTAMP}) FILTER ({there}) FROM known"
    ).fetchone()
    distinct = _count(
        db, f"SELECT unnest({column}) AS v FROM known" if bag else f"SELECT {column} AS v FROM known WHERE {there}"
    )
    return FeatureStats(
        name=entry.name,
        missing=1 - filled / rows if rows else 0.0,
        distinct=distinct,
        newest_event=format_utc(newest) if newest else None,
        numbers=_numbers(db) if number else None,
        top=() if number else _top(db),
        a_row=_values_a_row(db, column) if bag else None,
        weights=_weights(db, entry.weights) if entry.weights else None,
    )


def _there(column: str, bag: bool, double: bool) -> str:
    if bag:
        return f"coalesce(len({column}), 0) > 0"
    return f"{column} IS NOT NULL" + (f" AND isfinite({column}::DOUBLE)" if double else "")


def _count(db: Any, values: str) -> int:
    """Fills `counted` (v, n) from a query of values `v`; returns how many there are."""
    db.execute(f"CREATE OR REPLACE TEMP TABLE counted AS SELECT v, count(*) AS n FROM ({values}) GROUP BY v")
    return int(db.execute("SELECT count(*) FROM counted").fetchone()[0])


def _numbers(db: Any) -> Numbers | None:
    """Of `counted`; None if it is empty."""
    at = ", ".join(f"min(v) FILTER (reached >= {quantile} * total)" for quantile in QUANTILES)
    low, high, mean, *quantiles = db.execute(
        f"SELECT min(v)::DOUBLE, max(v)::DOUBLE, sum(v::DOUBLE * n) / max(total), {at} FROM "
        "(SELECT v, n, sum(n) OVER () AS total, sum(n) OVER (ORDER BY v ROWS UNBOUNDED PRECEDING) AS reached "
        "FROM counted)"
    ).fetchone()
    if low is None:
        return None
    return Numbers(minimum=low, maximum=high, mean=mean, quantiles=tuple(float(value) for value in quantiles))


def _top(db: Any) -> tuple[Value, ...]:
    """Of `counted`, ties by value."""
    found = db.execute(
        f"SELECT v::VARCHAR, n / (SELECT sum(n) FROM counted) FROM counted ORDER BY n DESC, v LIMIT {TOP}"
    ).fetchall()
    return tuple(Value(value=value, share=share) for value, share in found)


def _values_a_row(db: Any, column: str) -> tuple[float, int] | None:
    mean, most = db.execute(
        f"SELECT avg(len({column})), max(len({column})) FROM known WHERE len({column}) > 0"
    ).fetchone()
    return None if mean is None else (mean, most)


def _weights(db: Any, column: str) -> Numbers | None:
    _count(db, f"SELECT unnest({duck.name(column)})::DOUBLE AS v FROM known")
    return _numbers(db)
