"""What the service must see after a materialization: the smoke test asks for these rows and compares the scores.

Taken from the *offline* store, point in time at the end of the materialization; the online store plays no part.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from components.contracts import columns as c
from components.contracts import duck
from components.contracts.artifacts import EXPECTED
from components.contracts.files import write_manifest
from components.contracts.spec import FeatureSpec
from components.features import tables

REQUEST = "request"
UNKNOWN_USER = "esmm-no-such-user"
UNKNOWN_ITEMS = ("esmm-no-such-item-1", "esmm-no-such-item-2")


def sample(dataset: Path, spec: FeatureSpec, users: int, items: int) -> pa.Table:
    """Rows to ask for: `request`, user_id, item_id and context, which all rows of a request share.

    The users seen last in the test split, each in the context of their last impression, with the items they and the
    others saw last; then one request of an unknown user, and one with two unknown items among known ones.
    """
    context = [feature.name for feature in spec.context]
    chosen = ", ".join(duck.name(name) for name in (c.USER_ID, *context))
    source = tables.parquet(dataset / c.TEST)
    newest = f"{c.EVENT_TIMESTAMP} DESC, {c.IMPRESSION_ID} DESC"
    with duck.connect() as db:
        last = db.sql(
            f"SELECT {chosen} FROM {source} QUALIFY row_number() OVER (PARTITION BY {c.USER_ID} ORDER BY {newest}) = 1 "
            f"ORDER BY {newest} LIMIT {users}"
        )
        people = last.to_arrow_table().to_pylist()
        shown = _items(db, source, "true", users * items)
        own = {
            row[c.USER_ID]: _items(db, source, f"{c.USER_ID} = {duck.text(row[c.USER_ID])}", items // 2)
            for row in people
        }
    requests: list[tuple[dict[str, Any], list[str]]] = []
    for number, row in enumerate(people):
        # Each user starts elsewhere in the common list, so that more items are looked at.
        others = shown[number * items % len(shown) :] + shown[: number * items % len(shown)]
        requests.append((row, list(dict.fromkeys([*own[row[c.USER_ID]], *others]))[:items]))
    first, known = requests[0]
    requests.append(({**first, c.USER_ID: UNKNOWN_USER}, known))
    requests.append((first, [*UNKNOWN_ITEMS, *known[:-2]] if len(known) > 2 else list(UNKNOWN_ITEMS)))
    rows = [
        {REQUEST: number, **row, c.ITEM_ID: item} for number, (row, wanted) in enumerate(requests) for item in wanted
    ]
    kinds = {feature.name: tables.ARROW_TYPES[feature.dtype] for feature in spec.context}
    schema = pa.schema({REQUEST: pa.int64(), c.USER_ID: pa.string(), c.ITEM_ID: pa.string(), **kinds})
    return pa.Table.from_pylist(rows, schema=schema)


def _items(db: duckdb.DuckDBPyConnection, source: str, where: str, limit: int) -> list[str]:
    """Items by when they were last shown, the latest first."""
    found = db.execute(
        f"SELECT {c.ITEM_ID} FROM {source} WHERE {where} GROUP BY {c.ITEM_ID} "
        f"ORDER BY max({c.EVENT_TIMESTAMP}) DESC, {c.ITEM_ID} LIMIT {limit}"
    ).fetchall()
    return [row[0] for row in found]


def write(rows: pa.Table, spec: FeatureSpec, offline: Path | None, at: datetime, as_of: str, expected: Path) -> int:
    """Writes and seals the artifact `expected`: the rows with each stored feature as known at `at`; returns its rows.

    `offline` None: the spec has no views, so the rows are all there is.
    """
    table = rows
    if offline is not None:
        from components.features.point_in_time import PointInTime

        keys = rows.append_column(c.EVENT_TIMESTAMP, pa.array([at] * len(rows), pa.timestamp("us", tz="UTC")))
        with PointInTime(offline, spec) as store:
            found = store.join(keys)
        for name in found.column_names:
            table = table.append_column(name, found[name])
    expected.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, expected / EXPECTED)
    write_manifest(expected, rows=len(table), as_of=as_of, spec=spec.model_dump(mode="json"))
    return len(table)
