"""A user's own Parquet logs, and feature tables if they have any, as a dataset.

Columns are found by the mapping (canonical name = theirs), else by the canonical name itself. Types are settled here,
once: ids become strings, times UTC microseconds, labels integers. A value that is merely bad (a null id, click = 2)
stays as it is, for validation to quarantine; a type that is wrong is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pyarrow.parquet as pq

from components.contracts import columns as c
from components.contracts import duck
from components.contracts.dataset import FEATURES, LOG, DatasetInfo, SplitConfig, write_info
from components.contracts.errors import DataError, UsageError
from components.contracts.files import new_folder
from components.contracts.spec import Dtype, check_name

RECIPE = "own"
CLICK_WINDOW_SECONDS = 3600.0
CONVERSION_WINDOW_SECONDS = 86400.0
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_DTYPES: dict[Dtype, str] = {"int": "BIGINT", "float": "DOUBLE", "bool": "BOOLEAN", "string": "VARCHAR"}


@dataclass
class _Log:
    """What was found out about the log before anything is written."""

    files: list[Path]
    theirs: dict[str, str]
    """Canonical or context name -> column of the log."""
    expressions: dict[str, str] = field(default_factory=dict)
    """Column to write -> SQL over the log."""
    context: dict[str, Dtype] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    has_label_times: bool = False


def import_tables(
    log: Path,
    mapping: Mapping[str, str],
    context: Sequence[str],
    features: Mapping[str, Path],
    out: Path,
    name: str,
    click_window_seconds: float | None = None,
    conversion_window_seconds: float | None = None,
    split: SplitConfig | None = None,
    id_features: tuple[str, ...] = (c.USER_ID, c.ITEM_ID),
    clock: Literal["wall", "frozen"] = "frozen",
) -> dict[str, Any]:
    """Writes a dataset folder to `out`, all or nothing.

    Args:
        log: a Parquet file, or a folder with some (at any depth; partition columns must be in the files).
        mapping: canonical or context name -> their column; names not given are looked up as they are.
        context: names of context columns, logged with the impression and sent with a request.
        features: view name -> Parquet file or folder with user_id or item_id, event_timestamp, optionally created
            (event_timestamp where absent), and the view's fields.
        name: of the dataset; also of its Feast project and registered model, so lower case letters, digits and _.
        click_window_seconds, conversion_window_seconds: for a log with click and conversion times; an hour and a day
            where not given. Without times labels are taken as final and there are no windows.
        split: how to divide; by default in time if the log is long enough, else by a hash of the user.
        clock: `frozen` for a recording, whose features do not age while the service runs.

    Returns:
        Facts: rows, days, context types, rows of each view, split, and `notes`, a sentence for each thing decided.

    Raises:
        UsageError: a name, window or mapping that cannot be. FeatureSpecError: a name that is reserved.
        DataError: a file, column or type that cannot be used, or `out` not empty.
    """
    _check_names(mapping, context, features, name, id_features)
    with duck.connect() as db:
        found = _read_log(db, log, dict(mapping), context)
        windows = _windows(found, click_window_seconds, conversion_window_seconds)
        views = {view: _read_view(db, view, path, mapping) for view, path in features.items()}
        _check_unique(found.context, {view: fields for view, (_, fields) in views.items()})
        with new_folder(out) as folder:
            days, rows, first, last = _write_log(db, found, folder / LOG)
            if split is None:
                split = _choose_split(first, last, sum(windows), found.notes)
            counts = {view: _write_view(db, view, sql, folder, found.notes) for view, (sql, _) in views.items()}
            info = DatasetInfo(
                name=name,
                source="tables",
                context=found.context,
                click_window_seconds=windows[0],
                conversion_window_seconds=windows[1],
                has_label_times=found.has_label_times,
                split=split,
                id_features=id_features,
                recipe=RECIPE,
                clock=clock,
            )
            write_info(folder, info)
    return {
        "rows": rows,
        "days": days,
        "context": found.context,
        "views": counts,
        "split": split.kind,
        "generated_ids": c.IMPRESSION_ID not in found.theirs,
        "has_label_times": found.has_label_times,
        "notes": found.notes,
    }


def _check_names(
    mapping: Mapping[str, str], context: Sequence[str], features: Mapping[str, Path], name: str, ids: tuple[str, ...]
) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(f"dataset name {name!r}: use lower case letters, digits and _, beginning with a letter")
    known = (*c.REQUIRED, *c.LABEL_TIMESTAMPS)
    for canonical in mapping:
        if canonical not in known and canonical not in context:
            raise UsageError(
                f"--map {canonical}=...: no such column; map one of {', '.join(known)} or a context column"
            )
    labels = {mapping.get(column, column) for column in (*c.LABELS, *c.LABEL_TIMESTAMPS)}
    for column in context:
        check_name(column)
        if column in c.IDS:
            raise UsageError(f"context column {column!r} is an id: leave it out of --context, ids are features already")
        if context.count(column) > 1:
            raise UsageError(f"context column {column!r} is given twice: name it once")
        theirs = mapping.get(column, column)
        if theirs in labels:
            raise UsageError(
                f"context column {column!r} is the log's {theirs!r}, which is a label or its time: "
                "it would leak what is to be predicted; leave it out of --context"
            )
    for view in features:
        if not _NAME.fullmatch(view):
            raise UsageError(f"view name {view!r}: use lower case letters, digits and _, beginning with a letter")
    if not set(ids) <= {c.USER_ID, c.ITEM_ID}:
        raise UsageError(f"id features {', '.join(ids)}: only user_id and item_id can be")


def _files(path: Path, what: str) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{what} {path} does not exist: give a Parquet file or a folder with some")
    files = sorted(p for p in path.rglob("*.parquet") if p.is_file() and p.name[0] not in "._")
    if not files:
        raise DataError(f"{what} {path} holds no *.parquet file: give a Parquet file or a folder with some")
    return files


def _read_log(db: Any, path: Path, mapping: dict[str, str], context: Sequence[str]) -> _Log:
    files = _files(path, "the log")
    have = duck.types(db, duck.parquet(files))
    wanted = (*c.REQUIRED, *c.LABEL_TIMESTAMPS, *context)
    theirs = {column: mapping.get(column, column) for column in wanted}
    for column, source in theirs.items():
        optional = column not in mapping and column in (c.IMPRESSION_ID, *c.LABEL_TIMESTAMPS)
        if source not in have and not optional:
            raise DataError(
                f"{path} has no column {source!r} for {column}: say which one it is with --map {column}=NAME "
                f"(it has {', '.join(have)})"
            )
    found = _Log(files, {column: source for column, source in theirs.items() if source in have})
    times = [column for column in c.LABEL_TIMESTAMPS if column in found.theirs]
    if len(times) == 1:
        raise DataError(
            f"{path} has {times[0]} but not the other of {' and '.join(c.LABEL_TIMESTAMPS)}: map both, or rename it "
            "to have labels taken as final"
        )
    found.has_label_times = bool(times)
    for column in (*c.REQUIRED, *context, *c.LABEL_TIMESTAMPS):
        if column not in found.theirs:
            continue
        source = duck.name(found.theirs[column])
        where = f"{path}: column {found.theirs[column]!r}, mapped to {column},"
        kind = have[found.theirs[column]]
        if column in c.IDS:
            found.expressions[column] = _id(source, kind, where)
        elif column in c.LABELS:
            found.expressions[column] = _label(source, kind, where)
        elif column in (c.EVENT_TIMESTAMP, *c.LABEL_TIMESTAMPS):
            found.expressions[column] = _time(source, kind, where, may_be_empty=column != c.EVENT_TIMESTAMP)
            if kind in duck.NAIVE_TIMES:
                found.notes.append(f"{found.theirs[column]} carries no time zone and was taken as UTC.")
        else:
            found.context[column] = _dtype(kind, where)
            found.expressions[column] = f"{source}::{_DTYPES[found.context[column]]}"
    if found.context.get(c.POSITION, "int") != "int":
        raise DataError(f"{path}: position is a {found.context[c.POSITION]}, it must be whole numbers from 1")
    if c.IMPRESSION_ID not in found.theirs:
        found.expressions = {c.IMPRESSION_ID: "'row-' || (base + file_row_number)", **found.expressions}
        found.notes.append("The log has no impression_id: rows were numbered in the order of the files' names.")
    if not times:
        found.notes.append(
            "The log has no click and conversion times: its labels are taken as final, windows are zero."
        )
    return found


def _id(source: str, kind: str, where: str) -> str:
    if kind in ("FLOAT", "DOUBLE") or kind.startswith("DECIMAL"):
        raise DataError(
            f"{where} holds floating-point ids ({kind}): 1.0 and 1 would be two ids and large ones lose digits; "
            "write the ids as integers or strings"
        )
    if kind not in duck.INTEGERS | duck.WIDE_INTEGERS | {"VARCHAR", "UUID"}:
        raise DataError(f"{where} is {kind} and no id: write the ids as integers or strings")
    return f"{source}::VARCHAR"


def _label(source: str, kind: str, where: str) -> str:
    if kind not in duck.INTEGERS | {"BOOLEAN", "UBIGINT"}:
        raise DataError(f"{where} is {kind} and no label: write 0 and 1 as integers, or booleans")
    return f"{source}::BIGINT"


def _time(source: str, kind: str, where: str, may_be_empty: bool = False) -> str:
    if kind in (duck.TIME, "TIMESTAMPTZ_NS") or (may_be_empty and kind == '"NULL"'):
        return f"{source}::TIMESTAMPTZ"
    if kind in duck.NAIVE_TIMES:
        return f"({source}::TIMESTAMP AT TIME ZONE 'UTC')"
    raise DataError(f"{where} is {kind} and no timestamp: write it as a Parquet timestamp, best in UTC")


def _dtype(kind: str, where: str) -> Dtype:
    if kind in duck.INTEGERS or kind == "UBIGINT":
        return "int"
    if kind in ("FLOAT", "DOUBLE") or kind.startswith("DECIMAL"):
        return "float"
    if kind == "BOOLEAN":
        return "bool"
    if kind == "VARCHAR":
        return "string"
    raise DataError(f"{where} is {kind}, which no feature can be: write integers, floats, strings or booleans")


def _windows(found: _Log, click: float | None, conversion: float | None) -> tuple[float, float]:
    if not found.has_label_times:
        if click or conversion:
            raise UsageError(
                "a click or conversion window needs the times of clicks and conversions: map click_timestamp and "
                "conversion_timestamp, or give no window"
            )
        return 0.0, 0.0
    if click is None or conversion is None:
        click = CLICK_WINDOW_SECONDS if click is None else click
        conversion = CONVERSION_WINDOW_SECONDS if conversion is None else conversion
        found.notes.append(
            f"Windows not given: clicks count for {click:g} s after their impression, conversions for {conversion:g} s "
            "after their click."
        )
    if click <= 0 or conversion <= 0:
        raise UsageError(
            "the log has click and conversion times, so it needs a click window and a conversion window above 0 "
            "seconds: say how long after an impression a click counts, and after a click a conversion"
        )
    return float(click), float(conversion)


def _write_log(db: Any, found: _Log, out: Path) -> tuple[int, int, datetime, datetime]:
    """Days, rows, first and last event. Rows without a time go to the first day's partition."""
    source = duck.parquet(found.files)
    if c.IMPRESSION_ID not in found.theirs:
        base, bases = 0, []
        for file in found.files:
            bases.append(f"({duck.text(file)}, {base})")
            base += pq.read_metadata(file).num_rows
        numbered = duck.parquet(found.files, numbered=True)
        source = f"{numbered} JOIN (VALUES {', '.join(bases)}) AS bases (filename, base) USING (filename)"
    event = found.expressions[c.EVENT_TIMESTAMP]
    first, last, rows = db.execute(f"SELECT min({event}), max({event}), count(*) FROM {source}").fetchone()
    if first is None:
        raise DataError(f"{found.files[0]}: no row has a {c.EVENT_TIMESTAMP}, so there is no impression to import")
    first, last = first.astimezone(UTC), last.astimezone(UTC)
    columns = ", ".join(f"{sql} AS {duck.name(column)}" for column, sql in found.expressions.items())
    day = f"coalesce(strftime({event}, '%Y-%m-%d'), {duck.text(first.strftime('%Y-%m-%d'))})"
    db.execute(
        f"COPY (SELECT {columns}, {day} AS {c.PARTITION} FROM {source}) TO {duck.text(out)} "
        f"(FORMAT parquet, COMPRESSION snappy, PARTITION_BY ({c.PARTITION}))"
    )
    return len(list(out.glob("dt=*"))), rows, first, last


def _choose_split(first: datetime, last: datetime, window: float, notes: list[str]) -> SplitConfig:
    """In time if training keeps at least as long as validation and test together, else by hash."""
    split = SplitConfig()
    held_out = split.valid_days + split.test_days
    needed = timedelta(days=2 * held_out, seconds=2 * window)
    if last - first >= needed:
        notes.append(f"Split in time: the last {split.test_days:g} mature days test, {split.valid_days:g} validate.")
        return split
    notes.append(
        f"Split by a hash of the user: the log covers {(last - first) / timedelta(days=1):.1f} days, and a split in "
        f"time needs {needed / timedelta(days=1):.1f}."
    )
    return SplitConfig(kind="hash")


def _read_view(db: Any, view: str, path: Path, mapping: Mapping[str, str]) -> tuple[str, dict[str, Dtype]]:
    """SQL that gives the view's table (entity first, not yet without nulls), and its fields' types."""
    source = duck.parquet(_files(path, f"feature view {view}:"))
    have = duck.types(db, source)

    def theirs(column: str) -> str | None:
        return next((name for name in (column, mapping.get(column)) if name in have), None)

    entities = [column for column in (c.USER_ID, c.ITEM_ID) if theirs(column)]
    if len(entities) != 1:
        raise DataError(
            f"feature view {view}: {path} has {' and '.join(entities) or 'neither user_id nor item_id'}; "
            "a view needs exactly one of the two as its entity"
        )
    entity, stamp = theirs(entities[0]), theirs(c.EVENT_TIMESTAMP)
    if entity is None or stamp is None:
        raise DataError(
            f"feature view {view}: {path} has no event_timestamp, the time since when a row is true "
            f"(it has {', '.join(have)}): add one"
        )
    where = f"feature view {view}: {path}: column"
    columns = {
        entities[0]: _id(duck.name(entity), have[entity], f"{where} {entity!r}"),
        c.EVENT_TIMESTAMP: _time(duck.name(stamp), have[stamp], f"{where} {stamp!r}"),
    }
    created = c.CREATED_TIMESTAMP
    columns[created] = columns[c.EVENT_TIMESTAMP]
    if created in have:
        columns[created] = f"coalesce({_time(created, have[created], f'{where} {created!r}')}, {columns[created]})"
    fields: dict[str, Dtype] = {}
    for column, kind in have.items():
        if column not in (entity, stamp, created):
            check_name(column)
            fields[column] = _dtype(kind, f"{where} {column!r}")
            columns[column] = f"{duck.name(column)}::{_DTYPES[fields[column]]}"
    if not fields:
        raise DataError(f"feature view {view}: {path} has no field beside entity and times")
    selected = ", ".join(f"{sql} AS {duck.name(column)}" for column, sql in columns.items())
    return f"SELECT {selected} FROM {source}", fields


def _check_unique(context: dict[str, Dtype], views: dict[str, dict[str, Dtype]]) -> None:
    owner = dict.fromkeys(context, "the context")
    for view, fields in views.items():
        for column in fields:
            if column in owner:
                raise UsageError(
                    f"feature {column!r} is both in {owner[column]} and in view {view}: rename one of the two"
                )
            owner[column] = f"view {view}"


def _write_view(db: Any, view: str, sql: str, folder: Path, notes: list[str]) -> int:
    path = folder / FEATURES / view / "part-0.parquet"
    path.parent.mkdir(parents=True)
    entity = db.execute(f"DESCRIBE {sql}").fetchall()[0][0]
    usable = f"{entity} IS NOT NULL AND {c.EVENT_TIMESTAMP} IS NOT NULL"
    (total,) = db.execute(f"SELECT count(*) FROM ({sql})").fetchone()
    (kept,) = db.execute(
        f"COPY (SELECT * FROM ({sql}) WHERE {usable}) TO {duck.text(path)} (FORMAT parquet, COMPRESSION snappy)"
    ).fetchone()
    if kept < total:
        notes.append(f"View {view}: {total - kept} rows without {entity} or event_timestamp were left out.")
    return int(kept)
