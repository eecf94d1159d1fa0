"""What a user's column must become, by its role: ids strings, times UTC microseconds, labels integers, context typed.

A type that cannot serve is refused at once, for the whole file. A CSV column has no type, so its values are looked at
first; then, as for any value that its column's type cannot hold, each that fails refuses its own row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from components.contracts import columns as c
from components.contracts import duck
from components.contracts.errors import DataError, UsageError
from components.contracts.spec import WEIGHTS_SUFFIX, Dtype
from components.ingestion.sources.reading import TEXT

Role = Literal["id", "label", "time", "context"]
Epoch = Literal["s", "ms", "us", "ns"]
TYPES: dict[Dtype, str] = {
    "int": "BIGINT", "float": "DOUBLE", "bool": "BOOLEAN", "string": "VARCHAR", "strings": "VARCHAR[]",
    "floats": "DOUBLE[]",
}  # fmt: skip
"""DuckDB type of a written column."""

_EPOCH_MICROSECONDS = {
    "s": "{}::HUGEINT * 1000000", "ms": "{}::HUGEINT * 1000", "us": "{}::HUGEINT", "ns": "{}::HUGEINT // 1000",
}  # fmt: skip
_FIRST, _LAST = -62_135_596_800_000_000, 253_402_300_799_999_999
"""Microseconds of the years 1 to 9999, which are all that Python and Arrow can show."""
_FLOATS = frozenset({"FLOAT", "DOUBLE"})
_INTEGER = r"-?(0|[1-9][0-9]*)"
_DECIMAL = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
_NUMBER = rf"{_DECIMAL}|[+-]?(nan|NaN|inf|Inf|infinity|Infinity)"
_WHOLE_FLOAT = r"[+-]?[0-9]+\.0*"
_DAY, _CLOCK = r"[0-9]{4}-[0-9]{2}-[0-9]{2}", r"[0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?"
_ZONED = rf"{_DAY}[ T]{_CLOCK} ?(Z|[+-][0-9]{{2}}(:?[0-9]{{2}})?)"
_NAIVE = rf"{_DAY}([ T]{_CLOCK})?"
_MOSTLY = 0.9
"""From this share of numbers on, a text column that is no column of numbers is asked about."""


@dataclass(frozen=True)
class Converted:
    """SQL over a relation. `fails` is true for a row whose value `sql` cannot hold; then `reason` (refused.py) says
    why."""

    sql: str
    fails: str = "false"
    reason: str = ""


@dataclass
class Clock:
    """How times are read that do not say it themselves."""

    timezone: str = "UTC"
    epoch: Epoch | None = None
    said: bool = False
    """Whether the time zone was given rather than assumed."""
    notes: list[str] = field(default_factory=list)


Ask = Callable[[str], tuple[Any, ...]]
"""Runs one SELECT list over the relation that holds the column."""


def check_timezone(db: Any, timezone: str) -> None:
    """Raises UsageError if DuckDB does not know the zone."""
    if not db.execute("SELECT count(*) FROM pg_timezone_names() WHERE name = ?", [timezone]).fetchone()[0]:
        raise UsageError(f"--timezone {timezone!r} is no time zone: name one as Europe/Berlin or UTC")


def identity(source: str, kind: str, where: str, ask: Ask) -> Converted:
    """A string. Integers become canonical decimals; CSV text stays as it is, leading zeros included."""
    if kind == TEXT:
        return _text_identity(source, where, ask)
    if kind in _FLOATS or kind.startswith("DECIMAL"):
        raise _float_ids(where, kind)
    if kind not in duck.INTEGERS | duck.WIDE_INTEGERS | {"VARCHAR", "UUID"}:
        raise DataError(f"{where} is {kind} and no id: write the ids as integers or strings")
    return Converted(f"{source}::VARCHAR")


def _text_identity(source: str, where: str, ask: Ask) -> Converted:
    """`1e5` among hexadecimal ids is one of them; in a column of nothing but numbers it is a float."""
    number, integer, whole = (_full(source, pattern) for pattern in (_NUMBER, "[0-9]+|-[0-9]+", _WHOLE_FLOAT))
    total, numbers, floats, example = ask(
        f"count({source}), {_count(number)}, {_count(f'{number} AND NOT {integer}')}, "
        f"min({source}) FILTER ({number} AND NOT {integer})"
    )
    if total and numbers == total and floats:
        raise _float_ids(where, f"such as {example!r}")
    return Converted(source, f"coalesce({whole}, false)", "ID")


def _float_ids(where: str, what: str) -> DataError:
    return DataError(
        f"{where} holds floating-point ids ({what}): 1.0 and 1 would be two ids and large ones lose digits; "
        "write the ids as integers or strings"
    )


def label(source: str, kind: str, where: str) -> Converted:
    """0 or 1 as an integer. Other integers of a Parquet file are for validation to quarantine."""
    if kind == TEXT:
        value = f"CASE lower({source}) WHEN '0' THEN 0 WHEN 'false' THEN 0 WHEN '1' THEN 1 WHEN 'true' THEN 1 END"
        return _strict(source, f"({value})::BIGINT", "LABEL")
    if kind == "BOOLEAN" or kind in duck.INTEGERS:
        return Converted(f"{source}::BIGINT")
    if kind == "UBIGINT":
        return _strict(source, f"try_cast({source} AS BIGINT)", "LABEL")
    raise DataError(f"{where} is {kind} and no label: write 0 and 1 as integers, or booleans")


def time(source: str, kind: str, where: str, clock: Clock, ask: Ask, may_be_empty: bool = False) -> Converted:
    """UTC microseconds. Without a zone it is a time of `clock.timezone`; of an hour that a clock change repeats or
    skips, standard time is meant."""
    if may_be_empty and kind == '"NULL"':
        return Converted(f"{source}::TIMESTAMPTZ")
    if kind == TEXT:
        return _text_time(source, where, clock, ask)
    if kind in duck.INTEGERS | duck.WIDE_INTEGERS:
        if not clock.epoch:
            raise _epoch_times(where, kind)
        return _strict(source, _from_epoch(source, clock.epoch), "TIME")
    if kind in (duck.TIME, "TIMESTAMPTZ_NS"):
        return _strict(source, _bounded(f"{source}::TIMESTAMPTZ"), "TIME")
    if kind in duck.NAIVE_TIMES:
        _note_zone(clock, where)
        return _strict(source, _bounded(_local(f"{source}::TIMESTAMP", clock)), "TIME")
    raise DataError(f"{where} is {kind} and no timestamp: write it as a Parquet timestamp, best in UTC")


def _text_time(source: str, where: str, clock: Clock, ask: Ask) -> Converted:
    integer, zoned, naive = (_full(source, pattern) for pattern in ("-?[0-9]{1,19}", _ZONED, _NAIVE))
    total, integers, local = ask(f"count({source}), {_count(integer)}, {_count(naive)}")
    if integers and integers == total and not clock.epoch:
        raise _epoch_times(where, "whole numbers")
    if local:
        _note_zone(clock, where)
    epoch = f"WHEN {integer} THEN {_from_epoch(f'try_cast({source} AS BIGINT)', clock.epoch)}" if clock.epoch else ""
    return _strict(
        source,
        f"CASE WHEN {zoned} THEN {_bounded(f'try_cast({source} AS TIMESTAMPTZ)')} "
        f"WHEN {naive} THEN {_bounded(_local(f'try_cast({source} AS TIMESTAMP)', clock))} {epoch} END",
        "TIME",
    )


def _epoch_times(where: str, kind: str) -> DataError:
    return DataError(
        f"{where} is {kind} and no timestamp: if it counts from 1970, say in what with --epoch s, ms, us or ns"
    )


def _from_epoch(source: str, epoch: Epoch) -> str:
    micros = _EPOCH_MICROSECONDS[epoch].format(source)
    inside = f"{micros} BETWEEN {_FIRST} AND {_LAST}"
    return f"CASE WHEN {inside} THEN make_timestamptz(({micros})::BIGINT) END"


def _local(timestamp: str, clock: Clock) -> str:
    return f"({timestamp} AT TIME ZONE {duck.text(clock.timezone)})"


def _bounded(timestamp: str) -> str:
    return (
        f"CASE WHEN {timestamp} BETWEEN make_timestamptz({_FIRST}) AND make_timestamptz({_LAST}) THEN {timestamp} END"
    )


def _note_zone(clock: Clock, where: str) -> None:
    taken = clock.timezone if clock.said else f"{clock.timezone} (--timezone says otherwise)"
    clock.notes.append(f"{where} carries no time zone and was taken as {taken}.")


def context(source: str, name: str, kind: str, where: str, wanted: Dtype | None, ask: Ask) -> tuple[Converted, Dtype]:
    """The column and its dtype: `wanted`, else its Parquet type's, else what its text is throughout.

    Raises:
        DataError: if no feature can be of its type, or the text is mostly numbers and `wanted` does not say what it is.
    """
    if kind == TEXT:
        dtype = wanted or _dtype_of_text(source, name, where, ask)
        return _text_context(source, dtype, where), dtype
    natural = _dtype(kind, name, where)
    dtype = wanted or natural
    if dtype != natural and (natural, dtype) not in {("int", "string"), ("int", "float"), ("bool", "string")}:
        raise DataError(f"{where} is {kind} and no {dtype}: leave its type out of --context, or write it as {dtype}")
    if kind in ("UBIGINT",) and dtype == "int":
        return _strict(source, f"try_cast({source} AS BIGINT)", "VALUE"), dtype
    return Converted(f"{source}::{TYPES[dtype]}"), dtype


def _dtype(kind: str, name: str, where: str) -> Dtype:
    if kind in duck.INTEGERS or kind == "UBIGINT":
        return "int"
    if kind in _FLOATS or (kind.startswith("DECIMAL") and not kind.endswith("[]")):
        return "float"
    if kind == "BOOLEAN":
        return "bool"
    if kind == "VARCHAR":
        return "string"
    element = kind.removesuffix("[]")
    numbers = element in _FLOATS | duck.INTEGERS or element.startswith("DECIMAL")
    if kind.endswith("[]") and name.endswith(WEIGHTS_SUFFIX) and numbers:
        return "floats"
    if kind.endswith("[]") and element in {"VARCHAR"} | duck.INTEGERS | duck.WIDE_INTEGERS:
        return "strings"
    raise DataError(
        f"{where} is {kind}, which no feature can be: write integers, floats, strings, booleans, a list of strings, or "
        f"a list of numbers as the weights of one, named as the list with {WEIGHTS_SUFFIX} after it"
    )


def check_bags(types: Mapping[str, Dtype], where: str) -> None:
    """Raises DataError for weights whose list of strings is not among the columns."""
    for name, dtype in types.items():
        if dtype == "floats" and types.get(name.removesuffix(WEIGHTS_SUFFIX)) != "strings":
            raise DataError(
                f"{where}: {name!r} holds the weights of {name.removesuffix(WEIGHTS_SUFFIX)!r}, which is no list of "
                "strings among the columns: bring both, or neither"
            )


def _dtype_of_text(source: str, name: str, where: str, ask: Ask) -> Dtype:
    if name == c.POSITION:
        return "int"
    integer, number = _full(source, _INTEGER), _full(source, _NUMBER)
    fits, truth = f"{integer} AND try_cast({source} AS BIGINT) IS NOT NULL", f"lower({source}) IN ('true', 'false')"
    total, integers, numbers, truths, zeros, other = ask(
        f"count({source}), {_count(fits)}, {_count(number)}, {_count(truth)}, "
        f"{_count(_full(source, '[+-]?0[0-9]+.*'))}, min({source}) FILTER (NOT {number})"
    )
    if not total:
        return "string"
    if truths == total:
        return "bool"
    if integers == total:
        return "int"
    if numbers == total:
        return "string" if zeros else "float"  # 01234 is a postal code
    if numbers >= _MOSTLY * total:
        raise DataError(
            f"{where} is mostly numbers, but not {other!r}: say what it is with --context {name}:int (or float; rows "
            f"with another value are refused) or {name}:string"
        )
    return "string"


def _text_context(source: str, dtype: Dtype, where: str) -> Converted:
    if dtype == "string":
        return Converted(source)
    if dtype == "int":
        fits = f"CASE WHEN {_full(source, '[+-]?[0-9]+')} THEN try_cast({source} AS BIGINT) END"
    elif dtype == "float":
        fits = f"CASE WHEN {_full(source, _NUMBER)} THEN try_cast({source} AS DOUBLE) END"
    elif dtype == "bool":
        low = f"lower({source})"
        fits = f"CASE WHEN {low} IN ('true', '1') THEN true WHEN {low} IN ('false', '0') THEN false END"
    else:
        raise DataError(f"{where} is CSV text and no list: bring lists of values as Parquet")
    return _strict(source, fits, "VALUE")


def _strict(source: str, sql: str, reason: str) -> Converted:
    return Converted(sql, f"({source} IS NOT NULL AND ({sql}) IS NULL)", reason)


def _count(condition: str) -> str:
    return f"count(*) FILTER ({condition})"


def _full(source: str, pattern: str) -> str:
    return f"regexp_full_match({source}, {duck.text(pattern)})"
