"""Daily snapshots from a dataset's own log."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.contracts.dataset import view_names
from components.contracts.errors import DataError
from components.features.activity.build import build
from components.ingestion.sources.simulator import SimulatorConfig, simulate
from feature_repo.asof.append import append

HOUR = timedelta(hours=1)
CONFIG = SimulatorConfig(days=10, users=80, items=30, impressions=6_000, seed=3)
SIDES = (("user_activity", "user"), ("item_activity", "item"))


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shop") / "shop"
    simulate(CONFIG, folder)
    return folder


@pytest.fixture
def shop(simulated, tmp_path):
    """Without tables of activity."""
    folder = shutil.copytree(simulated, tmp_path / "shop")
    for view, _ in SIDES:
        shutil.rmtree(folder / "features" / view)
    return folder


def rows(folder, view, side, more=""):
    names = ", ".join(f"{side}_{name}_7d" for name in ("impressions", "clicks", "conversions", "ctr"))
    with duckdb.connect() as db:
        return db.execute(
            f"SELECT {side}_id, event_timestamp, {names}{more} FROM '{folder}/features/{view}/*.parquet' ORDER BY 2, 1"
        ).fetchall()


@pytest.mark.parametrize(("view", "side"), SIDES)
def test_the_log_gives_what_the_simulator_wrote(simulated, shop, view, side):
    found = build(shop, HOUR)
    theirs = rows(simulated, view, side)
    # The simulator's last midnight ends its log: no impression comes after it.
    end = max(row[1] for row in theirs)
    assert rows(shop, view, side) == [row for row in theirs if row[1] < end]
    assert found[view] == {"files": 9, "rows": sum(row[1] < end for row in theirs), "there": 0}
    assert len({row[1] for row in theirs}) == 10


def test_rows_count_as_known_after_the_delay(shop):
    build(shop, HOUR)
    assert {row[-1] - row[1] for row in rows(shop, "user_activity", "user", ", created")} == {HOUR}


def test_a_longer_log_adds_days_and_leaves_the_others(shop):
    later = shop / "log" / "dt=2026-01-14"
    later.rename(shop / "aside")
    build(shop, HOUR)
    table = shop / "features" / "item_activity"
    before = {file.name: file.stat().st_mtime_ns for file in table.iterdir()}
    assert max(before) == "part-2026-01-13.parquet"
    (shop / "aside").rename(later)
    assert build(shop, HOUR)["item_activity"]["files"] == 1
    after = {file.name: file.stat().st_mtime_ns for file in table.iterdir()}
    assert set(after) - set(before) == {"part-2026-01-14.parquet"}
    assert {name: after[name] for name in before} == before
    assert [found["files"] for found in build(shop, HOUR).values()] == [0, 0]


def test_pushed_rows_are_no_hindrance_and_stay(shop):
    build(shop, HOUR)
    table = shop / "features" / "item_activity"
    pushed = append(table, pq.read_table(table / "part-2026-01-13.parquet"))
    (table / "part-2026-01-13.parquet").unlink()
    assert build(shop, HOUR)["item_activity"]["files"] == 1
    assert pushed.exists()


def test_a_table_from_elsewhere_is_not_mixed_with(simulated):
    with pytest.raises(DataError, match=r"part-0\.parquet was not written by `esmm activity build`"):
        build(simulated, HOUR)


def test_a_log_without_times_of_clicks_is_refused(shop):
    for file in (shop / "log").glob("*/*.parquet"):
        table = pq.read_table(file)
        pq.write_table(table.drop_columns(["click_timestamp"]), file)
    with pytest.raises(DataError, match="has no click_timestamp as a UTC time"):
        build(shop, HOUR)
    assert "user_activity" not in view_names(shop)


def test_rows_that_cannot_be_placed_are_left_out(shop):
    (file,) = (shop / "log" / "dt=2026-01-05").glob("*.parquet")
    table = pq.read_table(file)
    first = table["event_timestamp"][0].as_py()
    odd = table.slice(0, 3).set_column(
        table.column_names.index("event_timestamp"), "event_timestamp",
        pa.array([None, first - timedelta(days=30), first], table["event_timestamp"].type),
    ).set_column(table.column_names.index("item_id"), "item_id", pa.array(["odd", "odd", None]))  # fmt: skip
    pq.write_table(pa.concat_tables([table, odd]), file)
    build(shop, HOUR)
    found = rows(shop, "item_activity", "item")
    assert "odd" not in {row[0] for row in found}
    assert min(row[1] for row in found) == datetime(2026, 1, 6, tzinfo=UTC)
