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
from components.contracts.spec import FeatureSpec, raw
from components.features import tables

REQUEST = "request"
UNKNOWN_USER = "esmm-no-such-user"
UNKNOWN_GROUP = "esmm-no-such-group"
UNKNOWN_ITEMS = ("esmm-no-such-item-1", "esmm-no-such-item-2")


def sample(dataset: Path, spec: FeatureSpec, users: int, items: int) -> pa.Table:
    """Rows to ask for: `request`, the spec's keys and context. Rows of a request share all of it but what is an item's.

    The users seen last in the test split, each in the group and the context of their last impression, with the items
    they and the others saw last, each in the context of its own last impression; then one request of an unknown user,
    one of an unknown group where there are groups, and one with two unknown items among known ones.
    """
    shared = [name for name in (*spec.keys, *raw(spec.context)) if name not in (c.ITEM_ID, *raw(spec.item_context))]
    source = tables.parquet(dataset / c.TEST)
    with duck.connect() as db:
        newest = _newest(db, source, c.USER_ID, "true", users)
        people = _last(db, source, c.USER_ID, newest, shared)
        shown = _newest(db, source, c.ITEM_ID, "true", users * items)
        requests: list[tuple[dict[str, Any], list[str]]] = []
        for number, user in enumerate(newest):
            own = _newest(db, source, c.ITEM_ID, f"{c.USER_ID} = {duck.text(user)}", items // 2)
            # Each user starts elsewhere in the common list, so that more items are looked at.
            others = shown[number * items % len(shown) :] + shown[: number * items % len(shown)]
            requests.append((people[user], list(dict.fromkeys([*own, *others]))[:items]))
        asked = sorted({item for _, wanted in requests for item in wanted})
        of_items = _last(db, source, c.ITEM_ID, asked, [c.ITEM_ID, *raw(spec.item_context)])
    first, known = requests[0]
    requests.append(({**first, c.USER_ID: UNKNOWN_USER}, known))
    if c.GROUP_ID in spec.keys:
        requests.append(({**first, c.GROUP_ID: UNKNOWN_GROUP}, known))
    requests.append((first, [*UNKNOWN_ITEMS, *known[:-2]] if len(known) > 2 else list(UNKNOWN_ITEMS)))
    rows = [
        {REQUEST: number, **row, **of_items.get(item, {}), c.ITEM_ID: item}
        for number, (row, wanted) in enumerate(requests)
        for item in wanted
    ]
    kinds = {name: tables.ARROW_TYPES[dtype] for name, dtype in raw(spec.context).items()}
    schema = pa.schema({REQUEST: pa.int64(), **dict.fromkeys(spec.keys, pa.string()), **kinds})
    return pa.Table.from_pylist(rows, schema=schema)


def _newest(db: duckdb.DuckDBPyConnection, source: str, key: str, where: str, limit: int) -> list[str]:
    """Ids by when they were last in an impression, the latest first."""
    found = db.execute(
        f"SELECT {key} FROM {source} WHERE {where} GROUP BY {key} ORDER BY max({c.EVENT_TIMESTAMP}) DESC, {key} "
        f"LIMIT {limit}"
    ).fetchall()
    return [row[0] for row in found]


def _last(
    db: duckdb.DuckDBPyConnection, source: str, key: str, ids: list[str], columns: list[str]
) -> dict[str, dict[str, Any]]:
    """`columns` of the last impression of each of `ids`."""
    found = db.sql(
        f"SELECT {', '.join(map(duck.name, columns))} FROM {source} "
        f"WHERE {key} IN ({', '.join(map(duck.text, ids))}) "
        f"QUALIFY row_number() OVER (PARTITION BY {key} ORDER BY {c.EVENT_TIMESTAMP} DESC, {c.IMPRESSION_ID} DESC) = 1"
    )
    return {row[key]: row for row in found.to_arrow_table().to_pylist()}


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
