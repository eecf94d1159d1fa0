"""Artifacts written row by row, so that every expected value can be worked out by hand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.contracts.artifacts import Ranges, Rows
from components.contracts.dataset import DatasetInfo
from components.contracts.files import write_manifest
from components.contracts.spec import FeatureSpec
from pipelines.feature_spec import feature_spec

UTC_US = pa.timestamp("us", tz="UTC")
START = datetime(2026, 3, 1, tzinfo=UTC)
AS_OF = "2026-03-20T00:00:00Z"
INFO = DatasetInfo(name="tiny", source="test", context={"position": "int", "device": "string"}, clock="frozen")
COLUMNS: dict[str, dict[str, pa.DataType]] = {
    "user_profile": {
        "user_id": pa.string(), "country": pa.string(), "segment": pa.string(), "age_band": pa.int64(),
        "member_days": pa.int64(),
    },
    "item_activity": {
        "item_id": pa.string(), "item_impressions_7d": pa.int64(), "item_clicks_7d": pa.int64(),
        "item_conversions_7d": pa.int64(), "item_ctr_7d": pa.float64(),
    },
}  # fmt: skip
VIEWS = tuple(COLUMNS)

# A dataset with groups and bags, as Ali-CCP is: `f210` and its weights are an item's, `seen` is the request's.
GROUP_VIEW = "ali_ccp_user"
STRINGS, FLOATS = pa.list_(pa.string()), pa.list_(pa.float64())
BAGS = ("f109_14", "f110_14", "f127_14", "f150_14")
COLUMNS[GROUP_VIEW] = {
    "group_id": pa.string(),
    **{f"f{n}": pa.string() for n in (121, 122, 124, 125, 126, 127, 128, 129)},
    **{name: kind for bag in BAGS for name, kind in ((bag, STRINGS), (f"{bag}_weights", FLOATS))},
}
GROUPED = DatasetInfo(
    name="tiny",
    source="test",
    context={"position": "int", "device": "string", "seen": "strings", "f206": "string", "f210": "strings",
             "f210_weights": "floats"},
    item_context=("f206", "f210"),
    clock="frozen",
)  # fmt: skip
LOGGED = {"group_id": pa.string(), "seen": STRINGS, "f206": pa.string(), "f210": STRINGS, "f210_weights": FLOATS}
"""Columns of a log of GROUPED beside the usual ones."""


def at(days: float) -> datetime:
    return START + timedelta(days=days)


def spec(views: tuple[str, ...] = VIEWS, info: DatasetInfo = INFO) -> FeatureSpec:
    return feature_spec(info, views)


def view_table(view: str, rows: Iterable[Mapping[str, Any]], **types: pa.DataType) -> pa.Table:
    """`event` and `created` in days after START; `created` defaults to the event, other columns to null."""
    full = [
        {**row, "event_timestamp": at(row["event"]), "created": at(row.get("created", row["event"]))} for row in rows
    ]
    schema = pa.schema({**COLUMNS[view], **types, "event_timestamp": UTC_US, "created": UTC_US})
    return pa.Table.from_pylist(full, schema=schema)


def write_features(folder: Path, views: Mapping[str, pa.Table]) -> Path:
    for view, table in views.items():
        (folder / view).mkdir(parents=True)
        pq.write_table(table, folder / view / "part-0.parquet")
    folder.mkdir(exist_ok=True)
    write_manifest(folder, views=list(views), as_of=AS_OF, info=INFO.model_dump(mode="json"))
    return folder


def grouped_spec() -> FeatureSpec:
    return spec(("item_activity", GROUP_VIEW), GROUPED)


def impressions(rows: Iterable[Mapping[str, Any]], **types: pa.DataType) -> pa.Table:
    """`event` in days after START; ids, labels, context and split (train) have defaults, other columns null."""
    full = []
    for number, row in enumerate(rows):
        given = {"impression_id": f"m{number:05d}", "user_id": "u1", "item_id": "i1", "position": 1 + number % 3}
        given |= {"device": "web", "click": 0, "conversion": 0, "split": "train", **row}
        full.append({**given, "event_timestamp": at(row["event"])})
    text, number_, stamp = pa.string(), pa.int64(), UTC_US
    schema = pa.schema(
        {"impression_id": text, "user_id": text, "item_id": text, "event_timestamp": stamp, "position": number_,
         "device": text, "click": number_, "conversion": number_, "split": text, **types}
    )  # fmt: skip
    return pa.Table.from_pylist(full, schema=schema)


def write_clean(folder: Path, table: pa.Table, info: DatasetInfo = INFO, **facts: Any) -> Path:
    """As validation leaves it: a folder a day, sealed."""
    days = [stamp.strftime("%Y-%m-%d") for stamp in table["event_timestamp"].to_pylist()]
    for day in sorted(set(days)):
        part = folder / f"dt={day}"
        part.mkdir(parents=True)
        pq.write_table(table.filter(pa.array([d == day for d in days])), part / "part-0.parquet")
    ranges = Ranges(kind="time", train=("a", "b"), valid=("c", "d"), test=("d", "e"))
    rows = Rows(total=len(table) + 7, immature=7)
    write_manifest(
        folder, rows=rows.model_dump(), ranges=ranges.model_dump(), info=info.model_dump(mode="json"), as_of=AS_OF,
        **facts,
    )  # fmt: skip
    return folder


def read(dataset: Path, split: str) -> pa.Table:
    return pa.concat_tables([pq.read_table(file) for file in sorted((dataset / split).glob("*.parquet"))])
