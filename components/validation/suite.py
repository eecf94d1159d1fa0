"""The suites: every rule about the data, each one a Great Expectations expectation and stated nowhere else.

Built from the log contract (contracts/columns.py), the dataset's declared context and the feature spec. `row`
rules quarantine the rows they find; `set` rules close the gate. Each expectation's meta says

    reason   the code a bad row gets in the quarantine, or a failed set-wide rule in the report
    scope    "row" or "set"
    says     the rule in plain words
    broken   set rules: what is wrong when it fails, with {found} for what was found
    needs    columns without which the rule cannot run

Great Expectations passes over nulls in all but the null rules, lets inf through NotNull and an all-null column
through Between: hence the pairs of rules below. It is imported inside the functions, since that takes seconds.
"""

from __future__ import annotations

from typing import Any

from components.contracts import columns as c
from components.contracts.dataset import DatasetInfo
from components.contracts.spec import Dtype, FeatureSpec, View
from components.validation.gate import ValidationLimits
from components.validation.runner import library

ROW, SET = "row", "set"
FUNNEL = "FUNNEL"

REASONS: dict[str, tuple[str, str]] = {
    "COLUMN_MISSING": (SET, "A column the contract, the declared context or the model needs is not in the log."),
    "COLUMN_TYPE": (SET, "A column has a type other than the declared one in some file (an absent one included)."),
    "NO_ROWS": (SET, "The log has no usable row."),
    "SPLIT_EMPTY": (SET, "Train, validation or test has no usable row."),
    "CLICK_RATE": (SET, "The click rate of the usable rows is not strictly between its limits (0 and 1)."),
    "NO_CONVERSIONS": (SET, "Train or test has fewer conversions than a model can be trained or judged on."),
    "CONTEXT_EMPTY": (SET, "A context column is null in every usable row."),
    "VIEW_COLUMN": (SET, "A feature table lacks its key, a time or a declared field."),
    "VIEW_TYPE": (SET, "A feature table's column has a type other than the declared one."),
    "VIEW_EMPTY": (SET, "A declared feature table has no rows, or a field of it no value."),
    "VIEW_KEY": (SET, "A feature row has no key or no time."),
    "VIEW_DUPLICATE": (SET, "A feature table has two rows for one key, time and creation time."),
    "VIEW_TIME": (SET, "A feature row was created before the time it describes, or not before as-of."),
    "VIEW_INFINITE": (SET, "A numeric feature is infinite."),
    "NULL_ID": (ROW, "impression_id, user_id or item_id is null."),
    "NULL_TIME": (ROW, "event_timestamp is null."),
    "NULL_LABEL": (ROW, "click or conversion is null or NaN."),
    "NULL_SPLIT": (ROW, "The row belongs to no split."),
    "DUPLICATE_ID": (ROW, "impression_id occurs more than once; all its copies are quarantined."),
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
}

ABSENT = "absent"
"""Type of a column in a file that has no such column."""
EVENT_DATE = "derived.event_date"
CLICK_DEADLINE = "derived.click_deadline"
CONVERSION_DEADLINE = "derived.conversion_deadline"
FINITE = 1.7976931348623157e308


def rules_table() -> list[tuple[str, str, str]]:
    """(code, scope, sentence) of every rule, for the documentation."""
    return [(code, scope, sentence) for code, (scope, sentence) in REASONS.items()]


def rule(kind: str, code: str, says: str, *, broken: str = "", needs: tuple[str, ...] = (), **arguments: Any) -> Any:
    """One expectation, `kind` without its leading `Expect`. Its needs are the columns it names, and `needs`."""
    named = [arguments[key] for key in ("column", "column_A", "column_B") if key in arguments]
    meta = {
        "reason": code,
        "scope": REASONS[code][0],
        "says": says,
        "broken": broken or f"not true: {says} (found {{found}})",
        "needs": sorted({*named, *arguments.get("column_list", ()), *needs}),
    }
    return getattr(library().expectations, f"Expect{kind}")(meta=meta, **arguments)


def context_types(info: DatasetInfo, spec: FeatureSpec) -> dict[str, Dtype]:
    """Context columns the log must have: those the dataset declares and those the model reads."""
    return {**info.context, **{feature.name: feature.dtype for feature in spec.context}}


def log_types(info: DatasetInfo, spec: FeatureSpec) -> dict[str, tuple[str, ...]]:
    """Columns the log must have, and the Arrow types each may have (the first is the one to write)."""
    types: dict[str, tuple[str, ...]] = dict.fromkeys(c.IDS, STRINGS)
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
    fields = {f.name: TYPES[f.dtype] for f in spec.from_source(view.name)}
    return {view.entity: STRINGS, c.EVENT_TIMESTAMP: UTC, c.CREATED_TIMESTAMP: UTC, **fields}


def exist_suite(types: dict[str, tuple[str, ...]], code: str, where: str) -> list[Any]:
    """Over a table with one row a file and one column a column of the files (cells: Arrow types)."""
    return [
        rule("ColumnToExist", code, f"{where} has the column {name}", broken=f"{where} has no column '{name}'",
             column=name)
        for name in types
    ]  # fmt: skip


def type_suite(types: dict[str, tuple[str, ...]], code: str, where: str) -> list[Any]:
    """Over the same table as `exist_suite`."""
    return [
        rule("ColumnValuesToBeInSet", code, f"in every file of {where}, {name} is {_plain(allowed)}",
             broken=f"column '{name}' of {where} is {{found}}, not {_plain(allowed)}",
             column=name, value_set=list(allowed))
        for name, allowed in types.items()
    ]  # fmt: skip


def _plain(allowed: tuple[str, ...]) -> str:
    names = {STRINGS: "string", UTC: "a UTC time in microseconds", LABEL_TYPES: "0 or 1 as a number"}
    return names.get(allowed, "a number" if "int64" in allowed else allowed[0])


def row_suite(info: DatasetInfo, spec: FeatureSpec, limits: ValidationLimits, as_of: str) -> list[Any]:
    """Rules for single rows of the log, in the order in which a row's reasons are listed."""
    rules = [rule("ColumnValuesToNotBeNull", "NULL_ID", f"{name} is not null", column=name) for name in c.IDS]
    rules.append(rule("ColumnValuesToNotBeNull", "NULL_TIME", "event_timestamp is not null", column=c.EVENT_TIMESTAMP))
    rules += [
        rule("ColumnValuesToNotBeNull", "NULL_LABEL", f"{name} is neither null nor NaN", column=name)
        for name in c.LABELS
    ]
    rules.append(rule("ColumnValuesToNotBeNull", "NULL_SPLIT", "split is not null", column=c.SPLIT))
    rules.append(
        rule("ColumnValuesToBeUnique", "DUPLICATE_ID", "impression_id occurs once in the log", column=c.IMPRESSION_ID)
    )
    for name in c.IDS:
        longest = limits.max_id_length
        rules.append(rule("ColumnValueLengthsToBeBetween", "ID_LENGTH", f"{name} has 1 to {longest} characters",
                          column=name, min_value=1, max_value=longest))  # fmt: skip
        rules.append(rule("ColumnValuesToNotMatchRegex", "ID_CHARACTERS", f"{name} has no control character",
                          column=name, regex=r"[\x00-\x1f\x7f]"))  # fmt: skip
    rules += [
        rule("ColumnValuesToBeInSet", "LABEL", f"{name} is 0 or 1", column=name, value_set=[0, 1]) for name in c.LABELS
    ]
    rules.append(_not_before(FUNNEL, "a conversion implies a click", c.CLICK, c.CONVERSION))
    if info.has_label_times:
        rules += _label_time_rules()
    rules.append(rule("ColumnPairValuesToBeEqual", "TIME_PARTITION", "the event's UTC date is its dt partition",
                      column_A=EVENT_DATE, column_B=c.PARTITION, ignore_row_if="either_value_is_missing"))  # fmt: skip
    rules.append(rule("ColumnValuesToBeBetween", "TIME_RANGE", f"the event is in [{limits.earliest}, as-of {as_of})",
                      column=c.EVENT_TIMESTAMP, min_value=limits.earliest, max_value=as_of,
                      strict_max=True))  # fmt: skip
    rules.append(rule("ColumnValuesToBeInSet", "SPLIT", "split is train, valid, test or gap",
                      column=c.SPLIT, value_set=[*c.SPLITS, c.GAP]))  # fmt: skip
    return rules + _context_rules(context_types(info, spec), limits)


def _not_before(code: str, says: str, later: str, earlier: str, **arguments: Any) -> Any:
    """`later` >= `earlier` wherever both have a value."""
    return rule("ColumnPairValuesAToBeGreaterThanB", code, says, column_A=later, column_B=earlier, or_equal=True,
                ignore_row_if="either_value_is_missing", **arguments)  # fmt: skip


def _label_time_rules() -> list[Any]:
    """A label is 1 exactly if its time lies in its window. A time just at the window's end may go either way."""
    column = library().Column
    clicked, shown = column(c.CLICK) == 1, column(c.CLICK) == 0
    bought = clicked & (column(c.CONVERSION) == 1)
    clicked_only = clicked & (column(c.CONVERSION) == 0)
    click, conversion = c.CLICK_TIMESTAMP, c.CONVERSION_TIMESTAMP
    for_click, for_conversion = (c.CLICK,), (c.CLICK, c.CONVERSION)
    return [
        _not_before("CLICK_BEFORE_EVENT", "a click is not earlier than its impression", click, c.EVENT_TIMESTAMP),
        _not_before("CONVERSION_BEFORE_CLICK", "a conversion is not earlier than its click", conversion, click),
        rule("ColumnValuesToNotBeNull", "CLICK_TIME", "where click is 1 there is a click time",
             column=click, row_condition=clicked, needs=for_click),
        _not_before("CLICK_TIME", "where click is 1 its time is within the click window",
                    CLICK_DEADLINE, click, row_condition=clicked, needs=for_click),
        _not_before("CLICK_TIME", "where click is 0 no click time lies within the click window",
                    click, CLICK_DEADLINE, row_condition=shown, needs=for_click),
        rule("ColumnValuesToNotBeNull", "CONVERSION_TIME", "where a click converted there is a conversion time",
             column=conversion, row_condition=bought, needs=for_conversion),
        _not_before("CONVERSION_TIME", "where a click converted, its time is within the conversion window",
                    CONVERSION_DEADLINE, conversion, row_condition=bought, needs=for_conversion),
        _not_before("CONVERSION_TIME", "where a click did not convert, no conversion time is within the window",
                    conversion, CONVERSION_DEADLINE, row_condition=clicked_only, needs=for_conversion),
    ]  # fmt: skip


def _context_rules(types: dict[str, Dtype], limits: ValidationLimits) -> list[Any]:
    numeric = [name for name, dtype in types.items() if dtype in ("int", "float")]
    rules = []
    for name in numeric:
        if name == c.POSITION:
            top = limits.max_position
            rules.append(rule("ColumnValuesToBeBetween", "POSITION", f"position is within 1 and {top}", column=name,
                              min_value=1, max_value=top))  # fmt: skip
        elif name == "hour":
            rules.append(rule("ColumnValuesToBeBetween", "HOUR", "hour is within 0 and 23", column=name,
                              min_value=0, max_value=23))  # fmt: skip
        else:
            rules.append(rule("ColumnValuesToBeBetween", "CONTEXT_INFINITE", f"{name} is finite", column=name,
                              min_value=-FINITE, max_value=FINITE))  # fmt: skip
    return rules


def count_suite(code: str, where: str) -> list[Any]:
    return [rule("TableRowCountToBeBetween", code, f"{where} has rows", broken=f"{where} has no rows", min_value=1)]


def whole_suite(info: DatasetInfo, spec: FeatureSpec, limits: ValidationLimits) -> list[Any]:
    """Rules for the usable rows as a whole, which are those no row rule objected to."""
    low, high = limits.min_click_rate, limits.max_click_rate
    column = library().Column
    rules = [
        rule("ColumnDistinctValuesToContainSet", "SPLIT_EMPTY", f"the {split} split has usable rows",
             broken=f"the {split} split has no usable rows", column=c.SPLIT, value_set=[split])
        for split in c.SPLITS
    ]  # fmt: skip
    rules.append(
        rule("ColumnMeanToBeBetween", "CLICK_RATE", f"the click rate lies strictly between {low:g} and {high:g}",
             broken=f"the click rate of the usable rows is {{found}}, not strictly between {low:g} and {high:g}",
             column=c.CLICK, min_value=low, max_value=high, strict_min=True, strict_max=True)
    )  # fmt: skip
    for split, least in ((c.TRAIN, limits.min_train_conversions), (c.TEST, limits.min_test_conversions)):
        rules.append(
            rule("ColumnSumToBeBetween", "NO_CONVERSIONS", f"the {split} split has {least} or more conversions",
                 broken=f"the {split} split has {{found}} conversions where {least} are needed", column=c.CONVERSION,
                 min_value=least, row_condition=column(c.SPLIT) == split, needs=(c.SPLIT,))
        )  # fmt: skip
    rules += [
        rule("ColumnProportionOfNonNullValuesToBeBetween", "CONTEXT_EMPTY", f"{name} has a value in some row",
             broken=f"context column '{name}' is null in every usable row", column=name, min_value=0, strict_min=True)
        for name in context_types(info, spec)
    ]  # fmt: skip
    return rules


def view_suite(view: View, spec: FeatureSpec, as_of: str) -> list[Any]:
    """Rules for one feature table. All are set-wide: a snapshot with a hole gives wrong features silently."""
    key, event, created = view.entity, c.EVENT_TIMESTAMP, c.CREATED_TIMESTAMP
    table = f"feature table {view.name}"
    rules = [
        rule("ColumnValuesToNotBeNull", "VIEW_KEY", f"{name} of {table} is not null",
             broken=f"{name} of {table} is null in {{found}}", column=name)
        for name in (key, event, created)
    ]  # fmt: skip
    rules.append(
        rule("CompoundColumnsToBeUnique", "VIEW_DUPLICATE", f"{table} has one row for a key, time and creation time",
             broken=f"{table} has two rows for one {key}, time and creation time in {{found}}",
             column_list=[key, event, created], ignore_row_if="any_value_is_missing")
    )  # fmt: skip
    rules.append(
        rule("ColumnPairValuesAToBeGreaterThanB", "VIEW_TIME", f"{table} is created after the time it describes",
             broken=f"{table} has rows created before the time they describe: {{found}}", column_A=created,
             column_B=event, or_equal=True, ignore_row_if="either_value_is_missing")
    )  # fmt: skip
    rules += [
        rule("ColumnValuesToBeBetween", "VIEW_TIME", f"{name} of {table} is before as-of {as_of}",
             broken=f"{name} of {table} is not before as-of {as_of} in {{found}}", column=name,
             min_value="1900-01-01T00:00:00Z", max_value=as_of, strict_max=True)
        for name in (event, created)
    ]  # fmt: skip
    for feature in spec.from_source(view.name):
        rules.append(
            rule("ColumnProportionOfNonNullValuesToBeBetween", "VIEW_EMPTY", f"{feature.name} of {table} has values",
                 broken=f"{feature.name} of {table} is null in every row", column=feature.name, min_value=0,
                 strict_min=True)
        )  # fmt: skip
        if feature.dtype in ("int", "float"):
            rules.append(
                rule("ColumnValuesToBeBetween", "VIEW_INFINITE", f"{feature.name} of {table} is finite",
                     broken=f"{feature.name} of {table} is infinite in {{found}}", column=feature.name,
                     min_value=-FINITE, max_value=FINITE)
            )  # fmt: skip
    return rules
