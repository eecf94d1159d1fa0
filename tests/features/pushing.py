"""A small shop that is materialized, and pushers on it whose clock the test sets."""

from __future__ import annotations

import dataclasses
import json
import shutil
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow.parquet as pq

from components.contracts.dataset import read_info, write_info
from components.contracts.online import Place
from components.contracts.paths import Home
from components.features.activity import push
from components.features.activity.events import Event, microseconds
from components.features.materialize import materialize_dataset
from components.ingestion.sources.simulator import SimulatorConfig, simulate
from feature_repo import store as repo

CONFIG = SimulatorConfig(days=9, users=40, items=30, impressions=3_000, seed=4, ctr=0.3, cvr=0.3)
END = datetime(2026, 1, 14, tzinfo=UTC)
"""When the shop's log ends."""
SECOND, MINUTE, DAY = timedelta(seconds=1), timedelta(minutes=1), timedelta(days=1)
NOON = END + timedelta(hours=12)
KNOWN = END + timedelta(hours=3)
"""All that a nightly job wrote is in the store then."""
SIDES = {"user_activity": "user", "item_activity": "item"}


def us(time: datetime) -> int:
    return microseconds(time)


@dataclasses.dataclass
class HandClock:
    """Stands still but for a millisecond a look, as if every step took that long."""

    time: datetime
    step: timedelta = timedelta(milliseconds=1)

    def now(self):
        self.time += self.step
        return us(self.time)

    def sees(self, event_time):
        pass

    def has_passed(self, since, event_time):
        return False


def event(kind, user, item, time):
    return Event(kind + "s", user, item, us(time))


def line(kind, user, item, time):
    return json.dumps({"event": kind, "user_id": user, "item_id": item, "time": time.isoformat()}) + "\n"


def make_shop(folder):
    """A dataset and a home whose online store is filled from it."""
    data, home = folder / "shop", Home(folder / "var")
    simulate(CONFIG, data)
    write_info(data, read_info(data).model_copy(update={"clock": "wall"}))
    materialize_dataset(home, data, KNOWN.isoformat())
    return data, home


def copy_shop(made, folder):
    data, home = made
    shutil.copytree(data, folder / "shop")
    shutil.copytree(home.root, folder / "var")
    return folder / "shop", Home(folder / "var")


@contextmanager
def killed(pusher_context):
    """A pusher that does not come to its end: what it holds in memory is lost, its lock is free."""
    try:
        with pusher_context as pusher:
            yield pusher
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass


def opened(data, home, clock, **how):
    return push.opened(home, data, clock=clock, **how)


def online(home, view, key, data_name="shop"):
    """What Feast reads: the fields of the view."""
    store = repo.open_store(data_name, home.feast(data_name), Place.of(home.feast(data_name), data_name))
    names = [field.name for field in store.get_feature_view(view).features]
    found = store.get_online_features([f"{view}:{name}" for name in names], [{f"{SIDES[view]}_id": key}]).to_dict()
    return {name: found[name][0] for name in names}


def offline(data, view):
    """Pushed rows, by (key, stamp)."""
    files = sorted((data / "features" / view).glob("push-*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def counted(data, view, key, stamp, more=()):
    """By SQL over the log and `more` events, as it is said: in [stamp - 7 days, stamp)."""
    side = SIDES[view]
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        log = f"read_parquet('{data}/log/*/*.parquet')"
        db.execute("CREATE TABLE e (kind VARCHAR, user_id VARCHAR, item_id VARCHAR, t BIGINT)")
        for kind, time, where in (
            ("impressions", "event_timestamp", "true"),
            ("clicks", "click_timestamp", "click = 1"),
            ("conversions", "conversion_timestamp", "conversion = 1"),
        ):
            db.execute(f"INSERT INTO e SELECT '{kind}', user_id, item_id, epoch_us({time}) FROM {log} WHERE {where}")
        if more:
            db.executemany("INSERT INTO e VALUES (?, ?, ?, ?)", [list(one) for one in more])
        week = 7 * 86_400_000_000
        found = dict(
            db.execute(
                f"SELECT kind, count(*) FROM (SELECT DISTINCT * FROM e) WHERE {side}_id = ? AND t >= ? AND t < ? "
                "GROUP BY kind",
                [key, us(stamp) - week, us(stamp)],
            ).fetchall()
        )
    counts = {f"{side}_{kind}_7d": found.get(kind, 0) for kind in ("impressions", "clicks", "conversions")}
    shown = counts[f"{side}_impressions_7d"]
    return {**counts, f"{side}_ctr_7d": counts[f"{side}_clicks_7d"] / shown if shown else None}
