"""A dataset's tables to materialize, and what Feast's own store then holds."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
from features.made import AS_OF, INFO, impressions, spec, view_table

from components.contracts.dataset import write_info
from components.features.materialize import MaterializeConfig

CONFIG = MaterializeConfig(dataset="tiny", as_of=AS_OF, spec=spec(), clock="frozen", sample_users=3, sample_items=4)


def tables(clicks=0):
    """Users u0-u5 (the last with nulls only), items i0-i9 with a row a day; `clicks` is added to each count."""
    profiles = [{"user_id": f"u{n}", "event": 0, "country": "de", "age_band": n} for n in range(5)]
    activity = [
        {"item_id": f"i{n}", "event": day, "created": day + 0.1, "item_clicks_7d": clicks + 100 * n + day}
        for n in range(10)
        for day in range(19)
    ]
    return {
        "user_profile": view_table("user_profile", [*profiles, {"user_id": "u5", "event": 0}]),
        "item_activity": view_table("item_activity", activity),
    }


def online(home, view="item_activity"):
    """Rows of Feast's own table: (feature, event time in epoch seconds) by entity key."""
    with closing(sqlite3.connect(home.feast("tiny") / "online.db")) as db:
        return db.execute(f"SELECT entity_key, feature_name, value, event_ts FROM tiny_{view} ORDER BY 1, 2").fetchall()


def make_dataset(folder: Path, given) -> Path:
    table = impressions([{"event": day} for day in range(19)])
    (folder / "log/dt=2026-03-01").mkdir(parents=True)
    pq.write_table(table, folder / "log/dt=2026-03-01/part-0.parquet")
    for view, rows in given.items():
        (folder / "features" / view).mkdir(parents=True)
        pq.write_table(rows, folder / "features" / view / "part-0.parquet")
    write_info(folder, INFO)
    return folder
