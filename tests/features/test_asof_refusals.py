"""Entity rows and tables that cannot be joined: each is named, with what is wrong with it."""

from __future__ import annotations

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast.data_format import DeltaFormat
from features.asof_made import ROWS, US, at, entities, open_store, retrieve, source, view

from components.contracts.errors import DataError, UsageError

TIMED = {"event_timestamp": pa.array([at(1)], US)}
WRONG_ROWS = {
    "kind": ([1], "entity rows came as list"),
    "no file": ("rows/nowhere.parquet", "rows/nowhere.parquet does not exist"),
    "remote": ("s3://bucket/rows.parquet", "lie at s3://bucket/rows.parquet: this store reads local Parquet"),
    "no key": (pa.table(TIMED), "no column 'user_id', which feature view 'user' needs"),
    "key of another type": (
        pa.table({"user_id": [1], **TIMED}), "'12' and 12 are two keys",
    ),
    "no time": (pa.table({"user_id": ["a"]}), r"0 columns of times \(none\)"),
    "two times": (pa.table({"user_id": ["a"], **dict.fromkeys("xy", TIMED["event_timestamp"])}), r"\(x, y\)"),
    "time as text": (pa.table({"user_id": ["a"], "event_timestamp": ["today"]}), "event_timestamp .* is VARCHAR"),
    "a feature's name": (
        pa.table({"user_id": ["a"], "User_Count": [1], **TIMED}), "user_count would be in the result twice",
    ),
    "a reserved name": (pa.table({"user_id": ["a"], "asof_row": [1], **TIMED}), "kept for the join"),
    "no SQL": ("SELECT FROM WHERE", "cannot be read"),
    "mixed types": (
        pd.DataFrame({"user_id": ["a", 1], "event_timestamp": [pd.Timestamp(at(1))] * 2}), "mixes types",
    ),
    "nothing": (None, "does not list them by time alone"),
}  # fmt: skip


@pytest.mark.parametrize(("given", "sentence"), WRONG_ROWS.values(), ids=WRONG_ROWS)
def test_entity_rows_that_are_none_are_refused(folder, given, sentence):
    with pytest.raises((UsageError, DataError), match=sentence):
        retrieve(folder, given, "user")


def change(folder, edit):
    path = folder / "user.parquet"
    pq.write_table(edit(pq.read_table(path)), path)


WRONG_TABLES = {
    "no feature": (lambda t: t.drop_columns(["user_count"]), "have no column 'user_count'"),
    "no event time": (lambda t: t.drop_columns(["event_timestamp"]), "have no column 'event_timestamp'"),
    "no created time": (lambda t: t.drop_columns(["created"]), "have no column 'created'"),
    "a time as text": (lambda t: t.set_column(2, "created", pa.array(["x", "y"])), "'created' as VARCHAR, which is no"),
    "a name of DuckDB's": (lambda t: t.append_column("file_index", pa.array([0, 0])), "column 'file_index', a name"),
}


@pytest.mark.parametrize(("edit", "sentence"), WRONG_TABLES.values(), ids=WRONG_TABLES)
def test_a_table_that_cannot_be_joined_is_named(folder, edit, sentence):
    store = open_store(folder)
    change(folder, edit)
    with pytest.raises(DataError, match=f"the rows of feature view 'user' .*{sentence}"):
        retrieve(folder, entities(ROWS), "user", store=store)


def test_a_table_that_is_gone_is_named(folder):
    store = open_store(folder)
    (folder / "user.parquet").unlink()
    with pytest.raises(DataError, match=r"feature view 'user': .*user.parquet does not exist"):
        retrieve(folder, entities(ROWS), "user", store=store)


def test_a_source_that_is_no_parquet_is_refused(folder):
    delta = view(folder, "user", source=source(folder, "user", file_format=DeltaFormat()))
    with pytest.raises(UsageError, match="'user' reads a FileSource that is no local Parquet"):
        retrieve(folder, entities(ROWS), "user", store=open_store(folder, [delta]))
