"""The reason codes, the types a column may have, and the set-wide rules as Great Expectations suites.

A `row` rule (rules.py) is evaluated in DuckDB and quarantines the rows it finds. A `set` rule is an expectation, stated
here, over a small frame of aggregates that DuckDB computed (frames.py); one that fails closes the gate. Each
expectation's meta says

    reason   the code of a failure in the report
    scope    "row" or "set"
    says     the rule in plain words
    broken   what is wrong when it fails: {found} stands for what was found, {column} for a cell of the frame's line
    unit     what the frame's lines are: files, columns, days ...
    needs    columns of the frame without which the rule cannot run

Great Expectations passes over nulls in all but the null rules. It is imported inside the functions, since that takes
seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from components.contracts import columns as c
from components.contracts.dataset import DatasetInfo
from components.contracts.spec import Dtype, FeatureSpec, View
from components.validation.runner import library

if TYPE_CHECKING:
    from components.validation.gate import ValidationLimits

ROW, SET = "row", "set"
FUNNEL = "FUNNEL"

REASONS: dict[str, tuple[str, str]] = {
    "COLUMN_MISSING": (SET, "A column the contract, the declared context or the model needs is not in the log."),
    "COLUMN_TYPE": (SET, "A column has a type other than the declared one in some file (an absent one included)."),
    "NO_ROWS": (SET, "The log has no usable row."),
    "DAY_MISSING": (SET, "Between the log's first and last usable day too many dates have no partition."),
    "DAY_EMPTY": (SET, "A day's partition has no rows."),
    "SPLIT_EMPTY": (SET, "Train, validation or test has no usable row."),
    "CLICK_RATE": (SET, "The click rate of the usable rows is not strictly between its limits (0 and 1)."),
    "NO_CONVERSIONS": (SET, "Train or test has fewer conversions than a model can be trained or judged on."),
    "CONTEXT_EMPTY": (SET, "A context column is null in every usable row."),
    "LINES_REFUSED": (SET, "The importer could not read a larger share of the source's lines than is allowed."),
    "SOURCE_TRUNCATED": (SET, "A source file ended before its end, and nobody knows what is lost."),
    "VIEW_COLUMN": (SET, "A feature table lacks its key, a time or a declared field."),
    "VIEW_TYPE": (SET, "A feature table's column has a type other than the declared one."),
    "VIEW_EMPTY": (SET, "A declared feature table has no rows, or a field of it no value."),
    "VIEW_KEY": (SET, "A feature row has no key or no time."),
    "VIEW_DUPLICATE": (SET, "A feature table has two rows for one key, time and creation time."),
    "VIEW_TIME": (SET, "A feature row was created before the time it describes, or not before as-of."),
    "VIEW_STALE": (SET, "A feature table's newest row is older at as-of than its time to live: all has expired."),
    "VIEW_INFINITE": (SET, "A numeric feature is infinite."),
    "VIEW_RANGE": (SET, "A feature lies outside its declared minimum and maximum in too many rows."),
    "VIEW_BAG": (SET, "A bag and its weights differ in length, or hold a null, or a weight that is none."),
    "DRIFT": (SET, "A measure of the usable data lies further from the accepted reference profile than its limit."),
    "NULL_ID": (ROW, "impression_id, user_id or item_id is null."),
    "NULL_GROUP": (ROW, "group_id is null, and a feature view is keyed by it."),
    "NULL_TIME": (ROW, "event_timestamp is null."),
    "NULL_LABEL": (ROW, "click or conversion is null or NaN."),
    "NULL_SPLIT": (ROW, "The row belongs to no split."),
    "DUPLICATE_ID": (ROW, "impression_id occurs more than once in the log; all its copies are quarantined."),
    "ID_LENGTH": (ROW, "An id is empty or longer than the limit."),
    "ID_CHARACTERS": (ROW, "An id contains a control character."),
    "LABEL": (ROW, "click or conversion is something other than 0 and 1."),
    FUNNEL: (ROW, "Conversion without a click."),
    "CLICK_BEFORE_EVENT": (ROW, "The click is earlier than the impression."),
    "CONVERSION_BEFORE_CLICK": (ROW, "The conversion is earlier than the click."),
    "CLICK_TIME": (ROW, "click and click_timestamp disagree: 1 without a time in the click window, or 0 with one."),
    "CONVERSION_TIME": (ROW, "conversion and conversion_timestamp disagree, as for the click, within its window."),
    "TIME_PARTITION": (ROW, "The event's UTC date is not the dt partition the row lies in."),
    "TIME_RANGE": (ROW, "The event is not before as-of, or so early that its clock must be wrong."),
    "SPLIT": (ROW, "split is none of train, valid, test, gap."),
    "POSITION": (ROW, "position is less than 1 or more than the limit."),
    "HOUR": (ROW, "hour is not within 0 and 23."),
    "CONTEXT_INFINITE": (ROW, "A numeric context column is infinite."),
    "RANGE": (ROW, "A context value lies outside the minimum and maximum its feature declares."),
    "BAG": (ROW, "A bag and its weights differ in length, hold a null, or a weight is negative or not finite."),
}
"""Every reason code: its scope and its sentence, in the order of the report. The order of the row rules decides
which reason is a row's first."""

INTEGERS = ("int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8")
FLOATS = ("double", "float")
STRINGS = ("string", "large_string")
UTC = ("timestamp[us, tz=UTC]", "timestamp[us, tz=Etc/UTC]", "timestamp[us, tz=+00:00]")
LABEL_TYPES = (*INTEGERS, "bool", *FLOATS)
"""Floats are let in so that a NaN or 0.5 is a bad row with a reason rather than a refused file."""
TYPES: dict[Dtype, tuple[str, ...]] = {
    "string": STRINGS,
    "int": (*INTEGERS, *FLOATS),  # integers with nulls leave pandas as floats
    "float": (*FLOATS, *INTEGERS),
    "bool": ("bool",),
    "strings": tuple(f"list<{kind}>" for kind in STRINGS),  # large lists are written so too (tables.type_name)
    "floats": tuple(f"list<{kind}>" for kind in (*FLOATS, *INTEGERS)),
}
PLAIN = {
    STRINGS: "string", UTC: "a UTC time in microseconds", LABEL_TYPES: "0 or 1 as a number", TYPES["int"]: "a number",
    TYPES["float"]: "a number", TYPES["bool"]: "bool", TYPES["strings"]: "a list of strings",
    TYPES["floats"]: "a list of numbers",
}  # fmt: skip
"""What sentences call the types that are allowed for one kind of column."""


def rules_table() -> list[tuple[str, str, str]]:
    """(code, scope, sentence) of every rule, for the documentation."""
    return [(code, scope, sentence) for code, (scope, sentence) in REASONS.items()]


def rule(
    kind: str, code: str, says: str, *, broken: str = "", needs: tuple[str, ...] = (), unit: str = "", **arguments: Any
) -> Any:
    """One expectation, `kind` without its leading `Expect`. Its needs are the columns it names, and `needs`."""
    named = [arguments[key] for key in ("column", "column_A", "column_B") if key in arguments]
    meta = {
        "reason": code,
        "scope": REASONS[code][0],
        "says": says,
        "broken": broken or f"not true: {says} (found {{found}})",
        "unit": unit,
        "needs": sorted({*named, *arguments.get("column_list", ()), *needs}),
    }
    return getattr(library().expectations, f"Expect{kind}")(meta=meta, **arguments)


def ids(spec: FeatureSpec) -> tuple[str, ...]:
    """Id columns the log must have: group_id where a view is keyed by it."""
    return (*c.IDS, *(key for key in spec.keys if key not in c.IDS))


def context_types(info: DatasetInfo, spec: FeatureSpec) -> dict[str, Dtype]:
    """Context columns the log must have: those the dataset declares and those the model reads, weights included."""
    return {**info.context, **{name: dtype for feature in spec.context for name, dtype in feature.raw.items()}}


def log_types(info: DatasetInfo, spec: FeatureSpec) -> dict[str, tuple[str, ...]]:
    """Columns the log must have, and the Arrow types each may have (the first is the one to write)."""
    types: dict[str, tuple[str, ...]] = dict.fromkeys(ids(spec), STRINGS)
    types[c.EVENT_TIMESTAMP] = UTC
    for label, time in zip(c.LABELS, c.LABEL_TIMESTAMPS, strict=True):
        types[label] = LABEL_TYPES
        if info.has_label_times:
            types[time] = UTC
    types[c.SPLIT] = STRINGS
    types.update({name: TYPES[dtype] for name, dtype in context_types(info, spec).items()})
    return types


def view_types(view: View, spec: FeatureSpec) -> dict[str, tuple[str, ...]]:
    """Columns a feature table must have, as `log_types`."""
    fields = {name: TYPES[dtype] for f in spec.from_source(view.name) for name, dtype in f.raw.items()}
    return {view.entity: STRINGS, c.EVENT_TIMESTAMP: UTC, c.CREATED_TIMESTAMP: UTC, **fields}


def column_suite(missing: str, wrong: str) -> list[Any]:
    """Over a frame with a line for each table, column and type found (frames.columns)."""
    pairs = [(plain, kind) for allowed, plain in PLAIN.items() for kind in allowed]
    return [
        rule("ColumnValuesToNotBeNull", missing, "every column that is needed is there",
             broken="{table} has no column '{column}'", unit="columns", column="type"),
        rule("ColumnPairValuesToBeInSet", wrong, "every column has the declared type in every file",
             broken="column '{column}' of {table} is {type} in {where}, not {wanted}", unit="columns",
             column_A="wanted", column_B="type", value_pairs_set=pairs, ignore_row_if="either_value_is_missing"),
    ]  # fmt: skip


def whole_suite(limits: ValidationLimits, dated: bool, imported: bool) -> list[Any]:
    """Over one line for the log as a whole (frames.whole).

    Args:
        dated: the log is split by time, so that a date without rows is one that is missing.
        imported: the importer left an account of the source's lines.
    """
    low, high = limits.min_click_rate, limits.max_click_rate
    rules = [
        rule("ColumnMinToBeBetween", "NO_ROWS", "the log, bad rows left out, has rows",
             broken="the log, bad rows left out, has no rows", column="rows", min_value=1),
        rule("ColumnMaxToBeBetween", "CLICK_RATE", f"the click rate lies strictly between {low:g} and {high:g}",
             broken=f"the click rate of the usable rows is {{found}}, not strictly between {low:g} and {high:g}",
             column="click_rate", min_value=low, max_value=high, strict_min=True, strict_max=True),
    ]  # fmt: skip
    if dated:
        rules.append(
            rule("ColumnMaxToBeBetween", "DAY_MISSING",
                 f"at most {limits.max_missing_days} dates from the first usable day to the last have no partition",
                 broken="from {first_day} to {last_day} there is no partition for {missing_named} "
                 f"(limit {limits.max_missing_days} days)", column="missing_days", max_value=limits.max_missing_days)
        )  # fmt: skip
    if imported:
        most = limits.max_refused_share
        rules += [
            rule("ColumnMaxToBeBetween", "LINES_REFUSED", f"at most {most:g} of the source's lines were refused",
                 broken="{refused} of the source's {lines} lines were refused, a share of {found} "
                 f"(limit {most:g}): {{refused_named}}", column="refused_share", max_value=most),
            rule("ColumnMaxToBeBetween", "SOURCE_TRUNCATED", "no source file ended before its end",
                 broken="{truncated_named} ended before its end, and what is lost is unknown", column="truncated",
                 max_value=0),
        ]  # fmt: skip
    return rules


def split_suite() -> list[Any]:
    """Over a line for each of train, validation and test (frames.splits)."""
    return [
        rule("ColumnValuesToBeBetween", "SPLIT_EMPTY", "train, validation and test have usable rows",
             broken="the {split} split has no usable rows", unit="splits", column="rows", min_value=1),
        rule("ColumnPairValuesAToBeGreaterThanB", "NO_CONVERSIONS", "train and test have conversions enough",
             broken="the {split} split has {conversions} conversions where {needed} are needed", unit="splits",
             column_A="conversions", column_B="needed", or_equal=True),
    ]  # fmt: skip


def day_suite() -> list[Any]:
    """Over a line for each partition (frames.days)."""
    return [
        rule("ColumnValuesToBeBetween", "DAY_EMPTY", "every day's partition has rows",
             broken="the partition of {day} has no rows", unit="days", column="rows", min_value=1)
    ]  # fmt: skip


def context_suite() -> list[Any]:
    """Over a line for each context column (frames.context)."""
    return [
        rule("ColumnValuesToBeBetween", "CONTEXT_EMPTY", "every context column has a value in some usable row",
             broken="context column '{column}' is null in every usable row", unit="columns", column="values",
             min_value=1)
    ]  # fmt: skip


def view_suite(limits: ValidationLimits, as_of: str) -> list[Any]:
    """Over a line for each feature table (frames.tables). All set-wide: a hole gives wrong features silently."""
    table, unit = "feature table {view}", "tables"

    def none(code: str, column: str, says: str, broken: str) -> Any:
        return rule("ColumnValuesToBeBetween", code, says, broken=broken, unit=unit, column=column, max_value=0)

    return [
        rule("ColumnValuesToBeBetween", "VIEW_EMPTY", "every feature table has rows", broken=f"{table} has no rows",
             unit=unit, column="rows", min_value=1),
        none("VIEW_KEY", "null_key", "the key of a feature row is not null",
             f"{{key}} of {table} is null in {{null_key}} of {{rows}} rows"),
        none("VIEW_KEY", "null_event", "the time of a feature row is not null",
             f"event_timestamp of {table} is null in {{null_event}} of {{rows}} rows"),
        none("VIEW_KEY", "null_created", "the creation time of a feature row is not null",
             f"created of {table} is null in {{null_created}} of {{rows}} rows"),
        none("VIEW_DUPLICATE", "repeated", "a feature table has one row for a key, time and creation time",
             f"{table} has two rows for one {{key}}, time and creation time in {{repeated}} of {{rows}} rows"),
        none("VIEW_TIME", "early", "a feature row is created after the time it describes",
             f"{table} has rows created before the time they describe: {{early}} of {{rows}} rows"),
        none("VIEW_TIME", "late_event", f"the time of a feature row is before as-of {as_of}",
             f"event_timestamp of {table} is not before as-of {as_of} in {{late_event}} of {{rows}} rows"),
        none("VIEW_TIME", "late_created", f"a feature row is created before as-of {as_of}",
             f"created of {table} is not before as-of {as_of} in {{late_created}} of {{rows}} rows"),
        rule("ColumnValuesToBeBetween", "VIEW_STALE",
             f"a feature table's newest row is at most {limits.max_view_age:g} times its time to live old at as-of",
             broken=f"the newest row of {table} is of {{newest}}, {{age_days}} days before as-of {as_of}, and its "
             f"values live {{ttl_days}} days (limit {limits.max_view_age:g} times that)", unit=unit, column="age",
             max_value=limits.max_view_age),
    ]  # fmt: skip


def field_suite(limits: ValidationLimits) -> list[Any]:
    """Over a line for each field of a feature table (frames.fields)."""
    field, unit = "{field} of feature table {view}", "fields"
    share = limits.max_view_range_share
    return [
        rule("ColumnValuesToBeBetween", "VIEW_EMPTY", "every field of a feature table has values",
             broken=f"{field} is null in every row", unit=unit, column="values", min_value=1),
        rule("ColumnValuesToBeBetween", "VIEW_INFINITE", "numeric features are finite",
             broken=f"{field} is infinite in {{infinite}} of {{rows}} rows", unit=unit, column="infinite", max_value=0),
        rule("ColumnValuesToBeBetween", "VIEW_RANGE",
             f"at most {share:g} of a feature's values lie outside its declared range",
             broken=f"{field} is not {{range}} in {{outside}} of {{rows}} rows", unit=unit, column="outside_share",
             max_value=share),
        rule("ColumnValuesToBeBetween", "VIEW_BAG", "bags fit their weights, with no null and no weight that is none",
             broken=f"{field} and its weights differ in length, hold a null, or a weight is negative or not finite in "
             "{bags} of {rows} rows", unit=unit, column="bags", max_value=0),
    ]  # fmt: skip
