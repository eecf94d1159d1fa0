"""A small world for parity: three views over twenty days, with all that may go apart between offline and online."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from features.made import AS_OF, GROUP_VIEW, GROUPED, LOGGED, impressions, spec, view_table, write_clean, write_features
from tiny_model import make_model

from components.contracts.columns import TEST
from components.contracts.spec import FeatureSpec
from components.features import retrieve
from components.features.parity.sample import Seen
from components.scoring.raw import columns_from_table

VIEWS = ("user_profile", "item_activity", GROUP_VIEW)
USERS, ITEMS, GROUPS = 12, 6, 6
SHOWN = 400
TWO_HOURS = 2 / 24


def parity_spec() -> FeatureSpec:
    return spec(VIEWS, GROUPED)


def tables() -> dict[str, pa.Table]:
    """Days after made.START. Users u9 to u11, item i5 and group g5 have no row at all."""
    users: list[dict[str, Any]] = [
        {"user_id": f"u{n}", "event": 0, "country": "de", "age_band": n, "segment": None if n % 3 else "new"}
        for n in range(8)
    ]
    # u0 to u3 move on day 10; u8 is only backfilled on day 12.
    users += [{"user_id": f"u{n}", "event": 10, "created": 10.1, "country": "fr", "age_band": n} for n in range(4)]
    users.append({"user_id": "u8", "event": 5, "created": 12, "country": "it", "member_days": 3})
    items = [
        {
            "item_id": f"i{n}", "event": day, "created": day + TWO_HOURS, "item_impressions_7d": 10 * day + n,
            "item_clicks_7d": None if n == 3 else day, "item_ctr_7d": 1 / (day + n + 1) if n else None,
        }
        for n in range(4)
        for day in range(16)
    ]  # fmt: skip
    items.append({"item_id": "i4", "event": 4, "item_impressions_7d": 4, "item_clicks_7d": 0})  # too old from day 11 on
    groups = [
        {
            "group_id": f"g{n}", "event": day, "created": day + 0.2, "f121": f"c{day}",
            "f109_14": [f"a{day}", "b", "c"], "f109_14_weights": [0.5, 2.0, day + n / 7],
            "f110_14": [] if n == 2 else ["x"], "f110_14_weights": [] if n == 2 else [1.0],
        }
        for n in range(5)
        for day in (1, 11)
    ]  # fmt: skip
    return {
        "user_profile": view_table("user_profile", users),
        "item_activity": view_table("item_activity", items),
        GROUP_VIEW: view_table(GROUP_VIEW, groups),
    }


def shown() -> list[dict[str, Any]]:
    """Six days of test impressions, after some to train on."""
    train = [{"event": 1 + n / 20, "user_id": f"u{n % 8}", "item_id": f"i{n % 4}", "group_id": "g1"} for n in range(60)]
    test = [
        {
            "event": 9 + 6 * n / SHOWN, "split": "test", "impression_id": f"t{n:04d}", "user_id": f"u{n % USERS}",
            "item_id": f"i{(n // 5) % ITEMS}", "group_id": f"g{(n // 3) % GROUPS}",
        }
        for n in range(SHOWN)
    ]  # fmt: skip
    return [*train, *test]


def write_tables(folder: Path, **changed: pa.Table) -> Path:
    return write_features(folder, {**tables(), **changed})


def write_dataset(folder: Path, features: Path) -> Path:
    """The dataset as the retrieve stage makes it from these tables."""
    clean = write_clean(folder / "clean", impressions(shown(), **LOGGED), GROUPED)
    retrieve.run(
        retrieve.RetrieveConfig(dataset="tiny", spec=parity_spec()), clean, features, folder / "dataset", part_rows=150
    )
    return folder / "dataset"


def write_model(folder: Path, dataset: Path) -> Path:
    test = pq.read_table(dataset / TEST)
    given = parity_spec()
    return make_model(folder, columns_from_table(test, given.raw), given, as_of=AS_OF)


def seen(at: int, follows: int | None = None, **other: Any) -> Seen:
    return Seen(**{"at": at, "draw": at, "rows": (1,), "late": False, "follows": follows, "newest": {}, **other})
