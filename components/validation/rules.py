"""The row rules: every reason for which a single row of the log is quarantined, each stated once, as SQL.

`bad` is TRUE for a bad row; FALSE and null both leave it alone. It sees the columns as `read_as` gives them: labels
and numbers as DOUBLE with NaN as null, all others as they are; `dt` is the partition's name. Nothing in it may raise
for any value, or one row would stop the whole stage: hence differences of times in DOUBLE (exact from 1684 to 2255).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from components.contracts import columns as c
from components.contracts.dataset import DatasetInfo
from components.contracts.duck import instant, name, text
from components.contracts.spec import WEIGHTS_SUFFIX, Dtype, FeatureSpec
from components.contracts.times import parse_utc
from components.validation.gate import ValidationLimits
from components.validation.suite import FUNNEL, REASONS, ROW, context_types, ids

DUPLICATED = "duplicated"
"""Table of the ids that occur more than once (duplicates.py)."""
CONTROL = r"'[\x00-\x1f\x7f]'"
NUMBERS: tuple[Dtype, ...] = ("int", "float")


@dataclass(frozen=True)
class RowRule:
    """`shows` are the columns whose values make an example of a bad row; none where the fault is that one is null."""

    code: str
    says: str
    needs: tuple[str, ...]
    bad: str
    shows: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if REASONS[self.code][0] != ROW:
            raise ValueError(f"{self.code} is no reason for a row")


def read_as(column: str, info: DatasetInfo, spec: FeatureSpec) -> str:
    """SQL for a column of the log as the rules see it."""
    quoted = name(column)
    if column in c.LABELS or context_types(info, spec).get(column) in NUMBERS:
        return number(quoted)
    return quoted


def number(column: str) -> str:
    """SQL for a number as DOUBLE, NaN as null. Needs a connection that does not trust Parquet's statistics."""
    return f"CASE WHEN NOT isnan({column}::DOUBLE) THEN {column}::DOUBLE END"


def row_rules(info: DatasetInfo, spec: FeatureSpec, limits: ValidationLimits, as_of: str) -> tuple[RowRule, ...]:
    """All that apply to a dataset, in the order of the reason codes, which is the order of a row's reasons."""
    rules = [
        *_null_rules(spec),
        *_id_rules(spec, limits),
        *_label_rules(),
        *(_label_time_rules(info) if info.has_label_times else ()),
        *_time_rules(limits, as_of),
        *_context_rules(info, spec, limits),
        *_range_rules(spec),
        *_bag_rules(context_types(info, spec)),
    ]
    order = list(REASONS)
    return tuple(sorted(rules, key=lambda rule: order.index(rule.code)))


def _null_rules(spec: FeatureSpec) -> Iterable[RowRule]:
    for column in ids(spec):
        code = "NULL_GROUP" if column == c.GROUP_ID else "NULL_ID"
        yield RowRule(code, f"{column} is not null", (column,), f"{column} IS NULL")
    yield RowRule("NULL_TIME", "event_timestamp is not null", (c.EVENT_TIMESTAMP,), f"{c.EVENT_TIMESTAMP} IS NULL")
    for label in c.LABELS:
        yield RowRule("NULL_LABEL", f"{label} is neither null nor NaN", (label,), f"{label} IS NULL")
    yield RowRule("NULL_SPLIT", "split is not null", (c.SPLIT,), f"{c.SPLIT} IS NULL")


def _id_rules(spec: FeatureSpec, limits: ValidationLimits) -> Iterable[RowRule]:
    unique, longest = c.IMPRESSION_ID, limits.max_id_length
    yield RowRule(
        "DUPLICATE_ID", "impression_id occurs once in the log", (unique,),
        f"{unique} IN (SELECT {unique} FROM {DUPLICATED})", (unique,),
    )  # fmt: skip
    for column in ids(spec):
        # Counting characters costs more than counting bytes, of which there are never fewer.
        yield RowRule(
            "ID_LENGTH", f"{column} has 1 to {longest} characters", (column,),
            f"{column} = '' OR (strlen({column}) > {longest} AND length({column}) > {longest})", (column,),
        )  # fmt: skip
        yield RowRule(
            "ID_CHARACTERS", f"{column} has no control character", (column,),
            f"regexp_matches({column}, {CONTROL})", (column,),
        )  # fmt: skip


def _label_rules() -> Iterable[RowRule]:
    for label in c.LABELS:
        yield RowRule("LABEL", f"{label} is 0 or 1", (label,), f"{label} NOT IN (0, 1)", (label,))
    yield RowRule(FUNNEL, "a conversion implies a click", c.LABELS, f"{c.CONVERSION} > {c.CLICK}", c.LABELS)
    splits = ", ".join(text(split) for split in (*c.SPLITS, c.GAP))
    yield RowRule("SPLIT", "split is train, valid, test or gap", (c.SPLIT,), f"{c.SPLIT} NOT IN ({splits})", (c.SPLIT,))


def _label_time_rules(info: DatasetInfo) -> Iterable[RowRule]:
    """A label is 1 exactly if its time lies in its window. A time just at the window's end may go either way."""
    event, click, conversion = c.EVENT_TIMESTAMP, c.CLICK_TIMESTAMP, c.CONVERSION_TIMESTAMP
    yield RowRule(
        "CLICK_BEFORE_EVENT", "a click is not earlier than its impression", (event, click), f"{click} < {event}",
        (click, event),
    )  # fmt: skip
    yield RowRule(
        "CONVERSION_BEFORE_CLICK", "a conversion is not earlier than its click", (click, conversion),
        f"{conversion} < {click}", (conversion, click),
    )  # fmt: skip
    yield from _window_rules(
        "CLICK_TIME", c.CLICK, click, event, info.click_window_seconds, (c.CLICK,),
        ("where click is 1", f"{c.CLICK} = 1"), ("where click is 0", f"{c.CLICK} = 0"), "the click window",
    )  # fmt: skip
    yield from _window_rules(
        "CONVERSION_TIME", c.CONVERSION, conversion, click, info.conversion_window_seconds, c.LABELS,
        ("where a click converted", f"{c.CLICK} = 1 AND {c.CONVERSION} = 1"),
        ("where a click did not convert", f"{c.CLICK} = 1 AND {c.CONVERSION} = 0"), "the conversion window",
    )  # fmt: skip


def _window_rules(
    code: str, label: str, time: str, start: str, seconds: float, labels: tuple[str, ...],
    positive: tuple[str, str], negative: tuple[str, str], window: str,
) -> Iterable[RowRule]:  # fmt: skip
    """`positive` and `negative`: which rows in words, and in SQL."""
    since = f"(epoch_us({time})::DOUBLE - epoch_us({start})::DOUBLE)"  # null for an infinite time
    limit = f"{round(seconds * 1e6)}"
    yield RowRule(code, f"{positive[0]} there is a {label} time", (time, *labels), f"{positive[1]} AND {time} IS NULL")
    yield RowRule(
        code, f"{positive[0]} its time is within {window}", (time, start, *labels),
        f"{positive[1]} AND ({since} > {limit} OR NOT isfinite({time}))", (time, start),
    )  # fmt: skip
    yield RowRule(
        code, f"{negative[0]} no {label} time lies within {window}", (time, start, *labels),
        f"{negative[1]} AND {since} < {limit}", (time, start),
    )  # fmt: skip


def _time_rules(limits: ValidationLimits, as_of: str) -> Iterable[RowRule]:
    event, day = c.EVENT_TIMESTAMP, f"TRY_CAST({c.PARTITION} AS DATE)"
    start, end = (f"({bound})::TIMESTAMPTZ" for bound in (day, f"{day} + 1"))
    yield RowRule(
        "TIME_PARTITION", "the event's UTC date is its dt partition", (event,),
        f"{event} IS NOT NULL AND NOT coalesce({event} >= {start} AND {event} < {end}, false)", (event, c.PARTITION),
    )  # fmt: skip
    earliest, last = (instant(parse_utc(bound)) for bound in (limits.earliest, as_of))
    yield RowRule(
        "TIME_RANGE", f"the event is in [{limits.earliest}, as-of {as_of})", (event,),
        f"{event} < {earliest} OR {event} >= {last}", (event,),
    )  # fmt: skip


def _context_rules(info: DatasetInfo, spec: FeatureSpec, limits: ValidationLimits) -> Iterable[RowRule]:
    for column, dtype in context_types(info, spec).items():
        if dtype not in NUMBERS:
            continue
        quoted, needs = name(column), (column,)
        if column == c.POSITION:
            top = limits.max_position
            yield RowRule(
                "POSITION", f"position is within 1 and {top}", needs, f"{quoted} NOT BETWEEN 1 AND {top}", needs
            )
        elif column == "hour":
            yield RowRule("HOUR", "hour is within 0 and 23", needs, f"{quoted} NOT BETWEEN 0 AND 23", needs)
        else:
            yield RowRule("CONTEXT_INFINITE", f"{column} is finite", needs, f"isinf({quoted})", needs)


def _range_rules(spec: FeatureSpec) -> Iterable[RowRule]:
    for feature in spec.context:
        outside = outside_range(name(feature.name), feature.minimum, feature.maximum)
        if outside and feature.dtype in NUMBERS:
            says = f"{feature.name} is {range_text(feature.minimum, feature.maximum)}"
            yield RowRule("RANGE", says, (feature.name,), outside, (feature.name,))


def outside_range(value: str, minimum: float | None, maximum: float | None) -> str:
    """SQL that is TRUE for a finite number outside; "" where nothing is declared. Infinity has a rule of its own."""
    parts = [f"{value} < {minimum!r}"] * (minimum is not None) + [f"{value} > {maximum!r}"] * (maximum is not None)
    return f"isfinite({value}) AND ({' OR '.join(parts)})" if parts else ""


def range_text(minimum: float | None, maximum: float | None) -> str:
    if minimum is None:
        return f"at most {maximum:g}"
    return f"at least {minimum:g}" if maximum is None else f"within {minimum:g} and {maximum:g}"


def _bag_rules(types: dict[str, Dtype]) -> Iterable[RowRule]:
    weights = {column for column, dtype in types.items() if dtype == "floats"}
    for column, dtype in types.items():
        mine = column + WEIGHTS_SUFFIX
        if dtype == "strings" and mine in weights:
            says = f"{column} and {mine} are equally long, with no null, and weights are finite and not negative"
            yield RowRule("BAG", says, (column, mine), bad_bag(column, mine), (column, mine))
            weights.remove(mine)
        elif dtype == "strings":
            yield RowRule("BAG", f"{column} holds no null", (column,), bad_bag(column, None), (column,))
    for mine in sorted(weights):
        yield RowRule("BAG", f"{mine} holds finite weights, none negative", (mine,), bad_bag(None, mine), (mine,))


def bad_bag(values: str | None, weights: str | None) -> str:
    """SQL that is TRUE for a bag that cannot be pooled; null and [] are both an empty one."""
    parts = []
    if values is not None:
        parts.append(_has_null(name(values)))
    if weights is not None:
        w = name(weights)
        parts += [_has_null(w), f"list_min({w}) < 0", f"NOT isfinite(list_max({w})::DOUBLE)"]
    if values is not None and weights is not None:
        parts.append(f"coalesce(len({name(values)}), 0) <> coalesce(len({name(weights)}), 0)")
    return " OR ".join(f"coalesce({part}, false)" for part in parts)


def _has_null(column: str) -> str:
    return f"list_count({column}) <> len({column})"
