"""Feature tables on disk: which columns they must have, and the part of them that is known at an as-of."""

from __future__ import annotations

import math
from datetime import datetime
from pathlib import Path

import duckdb
import pyarrow as pa

from components.contracts import columns as c
from components.contracts import duck
from components.contracts.errors import DataError
from components.contracts.spec import WEIGHTS_SUFFIX, Dtype, View
from components.scoring.bags import LARGEST
from feature_repo import declare, views

SQL_TYPES: dict[str, str] = {
    "string": "VARCHAR", "int": "BIGINT", "float": "DOUBLE", "bool": "BOOLEAN", "strings": "VARCHAR[]",
    "floats": "DOUBLE[]",
}  # fmt: skip
ARROW_TYPES = {
    "string": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(),
    "strings": pa.list_(pa.string()), "floats": pa.list_(pa.float64()),
}  # fmt: skip


def parquet(folder: Path, pattern: str = "*.parquet") -> str:
    """A table function over the files of a folder; columns are matched by name."""
    return f"read_parquet({duck.text(folder / pattern)}, union_by_name = true, hive_partitioning = false)"


def declared(present: tuple[str, ...]) -> tuple[declare.Declared, ...]:
    """The views of feature_repo/views.py that are present, in order of declaration."""
    return tuple(view for view in views.VIEWS if view.name in present)


def require(needed: tuple[View, ...], present: tuple[str, ...], where: Path) -> None:
    """Checks that every view and field a model needs is declared, and brought by the data.

    Raises:
        DataError: naming what is missing.
    """
    have = {view.name: {field.name for field in view.fields} for view in views.VIEWS}
    for view in needed:
        lost = [field for field in view.fields if field not in have.get(view.name, ())]
        if lost:
            raise DataError(
                f"feature {lost[0]!r} of view {view.name!r} is needed by a model in use and is no longer declared: "
                "put its line back into feature_repo/views.py"
            )
        if view.name not in present:
            raise DataError(
                f"{where} brings no table for view {view.name!r}, which a model needs: bring "
                f"features/{view.name}/*.parquet again"
            )


def write_known(features: Path, present: tuple[str, ...], as_of: datetime, out: Path) -> dict[str, int]:
    """Copies of each view only what was known before `as_of`: event and created time earlier, declared columns.

    Returns:
        Rows by view.

    Raises:
        DataError: a table without a declared column, with one of another type, or with lists that are no bags.
    """
    counted = {}
    with duck.connect() as db:
        for view in declared(present):
            columns = _columns(db, features / view.name, view)
            _check_lists(db, features / view.name, view)
            # By file and row at last: equal tables give equal copies, and of two rows of one moment the later stays.
            source = duck.parquet(sorted((features / view.name).glob("*.parquet")), numbered=True)
            path = out / view.name / "part-0.parquet"
            path.parent.mkdir(parents=True)
            counted[view.name] = db.execute(
                f"COPY (SELECT {', '.join(columns)} FROM {source} WHERE {duck.known_before(as_of)} ORDER BY "
                f"{c.EVENT_TIMESTAMP}, {view.entity.join_key}, {c.CREATED_TIMESTAMP}, filename, file_row_number) "
                f"TO {duck.text(path)} (FORMAT parquet, COMPRESSION snappy)"
            ).fetchone()[0]
    return counted


def parts(features: Path, view: str, keys: int, keys_with_bags: int) -> int:
    """Into how many parts a view's table goes if each is to have about `keys` entities, or `keys_with_bags`."""
    (found,) = declared((view,))
    has_bags = any(declare.dtype_of(field) == "strings" for field in found.fields)
    with duck.connect() as db:
        total = db.execute(
            f"SELECT count(DISTINCT {found.entity.join_key}) FROM {parquet(features / view)}"
        ).fetchone()[0]
    return max(math.ceil(int(total) / (keys_with_bags if has_bags else keys)), 1)


def write_part(features: Path, view: str, number: int, count: int, out: Path) -> None:
    """Writes part `number` of `count` of a view's table to `out`; all rows of an entity are in the same one."""
    (found,) = declared((view,))
    (out / view).mkdir(parents=True)
    with duck.connect() as db:
        db.execute(
            f"COPY (SELECT * FROM {parquet(features / view)} WHERE hash({found.entity.join_key}) % {count} = {number}) "
            f"TO {duck.text(out / view / 'part-0.parquet')} (FORMAT parquet)"
        )


def check(features: Path, present: tuple[str, ...]) -> None:
    """Raises DataError if a present view's table lacks a declared column, has it with another type, or has lists that
    are no bags."""
    with duck.connect() as db:
        for view in declared(present):
            _columns(db, features / view.name, view)
            _check_lists(db, features / view.name, view)


def _columns(db: duckdb.DuckDBPyConnection, table: Path, view: declare.Declared) -> list[str]:
    """SQL of each column to read, cast to its declared type."""
    found = db.execute(f"DESCRIBE SELECT * FROM {parquet(table)}").fetchall()
    have = {str(row[0]): str(row[1]) for row in found}
    columns = []
    fixed = ((view.entity.join_key, "VARCHAR"), (c.EVENT_TIMESTAMP, duck.TIME), (c.CREATED_TIMESTAMP, duck.TIME))
    for column, wanted in fixed:
        if have.get(column) != wanted:
            raise DataError(f"{table} has {column} as {have.get(column, 'no column')}, not {wanted}: import it again")
        columns.append(duck.name(column))
    for field in view.fields:
        kind, dtype = have.get(field.name), declare.dtype_of(field)
        if kind is None:
            raise DataError(
                f"{table} has no column {field.name!r}, which feature_repo/views.py declares: add it to the table or "
                "take the line out"
            )
        if dtype is None or not _fits(kind, dtype):
            raise DataError(
                f"{table}: column {field.name!r} is {kind}, but feature_repo/views.py declares it as {dtype}: "
                "cast the column or change the declaration"
            )
        # A number that is too large is found here, before any is served.
        wanted = "INTEGER" if field.dtype.to_value_type().name == "INT32" else SQL_TYPES[dtype]
        columns.append(f"CAST({duck.name(field.name)} AS {wanted}) AS {duck.name(field.name)}")
    return columns


def _check_lists(db: duckdb.DuckDBPyConnection, table: Path, view: declare.Declared) -> None:
    """Refuses what Feast would serve otherwise than it is retrieved, or the encoder would not take.

    Feast writes a null among the values as "" and a null among the weights as NaN.
    """
    lists = {field.name: duck.name(field.name) for field in view.fields if declare.dtype_of(field) == "strings"}
    wrong = {f"a null among the values of {bag}": f"len({x}) <> list_count({x})" for bag, x in lists.items()}
    for field in view.fields:
        if declare.dtype_of(field) == "floats":
            bag, w = field.name.removesuffix(WEIGHTS_SUFFIX), duck.name(field.name)
            lengths = f"coalesce(len({w}), 0) <> coalesce(len({duck.name(bag)}), 0)"
            wrong[f"other numbers of values in {bag} and weights in {field.name}"] = lengths
            bad = f"len(list_filter({w}, lambda v: v IS NULL OR NOT (v >= 0 AND v <= {LARGEST}))) > 0"
            wrong[f"a weight in {field.name} that is null, negative or not finite"] = bad
    if not wrong:
        return
    counts = db.execute(
        f"SELECT {', '.join(f'count(*) FILTER ({rule})' for rule in wrong.values())} FROM {parquet(table)}"
    ).fetchone()
    found = [f"{count} rows have {what}" for what, count in zip(wrong, counts, strict=True) if count]
    if found:
        raise DataError(f"{table}: {'; '.join(found)}: mend these rows and bring the table again")


def _fits(kind: str, dtype: Dtype) -> bool:
    if dtype == "int":
        return kind in duck.INTEGERS
    if dtype == "float":
        return kind in duck.INTEGERS or kind in ("FLOAT", "DOUBLE") or kind.startswith("DECIMAL")
    if dtype == "floats":
        return kind.endswith("[]") and _fits(kind.removesuffix("[]"), "float")
    return kind == SQL_TYPES[dtype]
