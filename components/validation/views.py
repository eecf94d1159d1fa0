"""Feature tables in figures: one query a table, and one for its repeated keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from components.contracts import columns as c
from components.contracts import duck
from components.contracts.spec import WEIGHTS_SUFFIX, Feature, FeatureSpec, View
from components.contracts.times import format_utc, parse_utc
from components.validation import duplicates
from components.validation.rules import NUMBERS, bad_bag, number, outside_range, range_text
from components.validation.tables import File

DAY_SECONDS = 86400.0
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class ViewFigures:
    """Lines of the frames `frames.tables` and `frames.fields`; a figure that cannot be had is None."""

    table: dict[str, Any]
    fields: tuple[dict[str, Any], ...]


def figures(
    db: Any, view: View, spec: FeatureSpec, files: Sequence[File], healthy: frozenset[str], as_of: str
) -> ViewFigures:
    """Counts over one feature table, of its healthy columns.

    Raises:
        DataError: if a file cannot be read (from `duck.connect`).
    """
    rows = sum(file.rows for file in files)
    table: dict[str, Any] = {"view": view.name, "key": view.entity, "rows": rows}
    features = spec.from_source(view.name)
    if not rows:
        return ViewFigures(table, ())
    source = duck.parquet([file.path for file in files])
    sql = {("", name): s for name, (s, needs) in _table_sql(view, as_of).items() if healthy >= set(needs)}
    sql |= {(f.name, name): s for f in features if f.name in healthy for name, s in _field_sql(f, healthy).items()}
    found = db.execute(f"SELECT {', '.join(sql.values())} FROM {source}").fetchall()[0] if sql else ()
    by_place = dict(zip(sql, found, strict=True))
    table |= {name: value for (field, name), value in by_place.items() if not field}
    keys = (view.entity, c.EVENT_TIMESTAMP, c.CREATED_TIMESTAMP)
    if healthy >= set(keys):
        table["repeated"] = duplicates.count(db, source, keys, rows)
    fields = tuple(
        {"view": view.name, "field": f.name, "rows": rows, "range": _range(f),
         **{name: value for (field, name), value in by_place.items() if field == f.name}}
        for f in features if f.name in healthy
    )  # fmt: skip
    for line in fields:
        if line.get("outside") is not None:
            line["outside_share"] = line["outside"] / rows
    return ViewFigures(_aged(table, view, as_of), fields)


def _count(condition: str) -> str:
    return f"count_if({condition})::BIGINT"


def _table_sql(view: View, as_of: str) -> dict[str, tuple[str, tuple[str, ...]]]:
    event, created, last = c.EVENT_TIMESTAMP, c.CREATED_TIMESTAMP, duck.instant(parse_utc(as_of))
    return {
        "null_key": (_count(f"{view.entity} IS NULL"), (view.entity,)),
        "null_event": (_count(f"{event} IS NULL"), (event,)),
        "null_created": (_count(f"{created} IS NULL"), (created,)),
        "early": (_count(f"{created} < {event}"), (event, created)),
        "late_event": (_count(f"{event} >= {last}"), (event,)),
        "late_created": (_count(f"{created} >= {last}"), (created,)),
        "newest_us": (f"max(epoch_us({event})) FILTER ({event} < {last})", (event,)),
    }


def _field_sql(feature: Feature, healthy: frozenset[str]) -> dict[str, str]:
    column = duck.name(feature.name)
    if feature.dtype == "strings":
        weights = feature.name + WEIGHTS_SUFFIX
        weighted = weights if feature.weighted and weights in healthy else None
        return {
            "values": _count(f"len({column}) > 0"),
            "bags": _count(bad_bag(feature.name, weighted)),
        }
    if feature.dtype not in NUMBERS:
        return {"values": f"count({column})"}
    value = number(column)
    found = {"values": f"count({value})", "infinite": _count(f"isinf({value})")}
    outside = outside_range(value, feature.minimum, feature.maximum)
    return found | ({"outside": _count(outside)} if outside else {})


def _range(feature: Feature) -> str:
    bounded = feature.minimum is not None or feature.maximum is not None
    return range_text(feature.minimum, feature.maximum) if bounded and feature.dtype in NUMBERS else ""


def _aged(table: dict[str, Any], view: View, as_of: str) -> dict[str, Any]:
    """Adds how old the newest row is at as-of, in times to live; a view without one does not age."""
    newest = table.pop("newest_us", None)
    if newest is None or not view.ttl_seconds > 0:
        return table
    seconds = parse_utc(as_of).timestamp() - newest / 1e6
    at = format_utc(_EPOCH + timedelta(microseconds=newest))
    return table | {
        "age": seconds / view.ttl_seconds, "newest": at, "age_days": round(seconds / DAY_SECONDS, 2),
        "ttl_days": round(view.ttl_seconds / DAY_SECONDS, 2),
    }  # fmt: skip
