"""Other people's logs run to a decision and serve: the real e-mail challenge, a context-only log, one with features."""

import csv
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from e2e.command import ONE, Esmm, serving

pytestmark = pytest.mark.e2e
HILLSTROM = Path(__file__).parents[3] / "shared/data/hillstrom/hillstrom.csv"


def test_hillstrom_the_real_file(workshop, tmp_path):
    if not HILLSTROM.is_file():
        pytest.skip("hillstrom.csv is not beside this checkout; the made file below covers the code")
    esmm = Esmm(tmp_path / "home", tmp_path)
    esmm("import", "hillstrom", "--csv", HILLSTROM, "--out", tmp_path / "data")
    result = esmm.run(tmp_path / "data")
    assert result["status"] in ("promoted", "refused")
    assert result["rows"]["in"] == 64000
    assert max(c["ctr_auc"] for c in result["candidates"].values()) >= 0.62


def test_a_made_file_in_its_format(tmp_path):
    rng = random.Random(3)
    header = "recency,history_segment,history,mens,womens,zip_code,newbie,channel,segment,visit,conversion,spend"
    with (tmp_path / "made.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header.split(","))
        for _ in range(6000):
            recency, history = rng.randint(1, 12), round(rng.uniform(30, 1500), 2)
            visit = int(rng.random() < 0.5 / recency)
            buy = int(visit and rng.random() < 0.3)
            segment = rng.choice(["Mens E-Mail", "Womens E-Mail", "No E-Mail"])
            row = [
                recency,
                "2) $100 - $200",
                history,
                1,
                0,
                "Urban",
                rng.randint(0, 1),
                "Web",
                segment,
                visit,
                buy,
                buy * 9.5,
            ]
            writer.writerow(row)
    esmm = Esmm(tmp_path / "home", tmp_path)
    esmm("import", "hillstrom", "--csv", tmp_path / "made.csv", "--out", tmp_path / "data")
    result = esmm.run(tmp_path / "data", "--set", "evaluation.min_test_conversions=10", *ONE)
    assert result["rows"]["in"] == 6000
    assert result["candidates"]["esmm"]["ctr_auc"] > 0.6


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    """A made log of 40,000 impressions over 14 days, under foreign names, with a taste to learn."""
    rng = random.Random(1)
    start = datetime(2026, 3, 1, tzinfo=UTC)
    rows = []
    for i in range(40000):
        at = start + timedelta(days=14 * i / 40000)
        user, item, hour, device = rng.randrange(500), rng.randrange(40), at.hour, rng.choice(["ios", "web"])
        likes = (user % 4) == (item % 4)
        click = rng.random() < (0.4 if likes else 0.04) + 0.25 * (item % 3 == 0)
        buy = click and rng.random() < (0.4 if item % 3 == 0 else 0.1)
        rows.append((user, item, at, hour, device, click, buy))
    visitor, sku, shown, hours, devices, clicks, buys = zip(*rows, strict=True)
    table = pa.table(
        {"visitor": visitor, "sku": [f"sku{i}" for i in sku], "shown_at": pa.array(shown, pa.timestamp("ns", tz="UTC")),
         "hour": hours, "device": devices, "is_click": clicks, "is_sale": buys}
    )  # fmt: skip
    path = tmp_path_factory.mktemp("log") / "log.parquet"
    pq.write_table(table, path)
    return path


MAP = [
    argument
    for pair in ("user_id=visitor", "item_id=sku", "event_timestamp=shown_at", "click=is_click", "conversion=is_sale")
    for argument in ("--map", pair)
]


def test_a_log_without_feature_tables(log, tmp_path):
    esmm = Esmm(tmp_path / "home", tmp_path)
    esmm("import", "log", "--log", log, *MAP, "--context", "hour,device", "--out", tmp_path / "data")
    result = esmm.run(tmp_path / "data", *ONE)
    assert result["promoted"], result["reasons"]
    with serving(esmm) as rank:
        answer = rank("--user", "7", "--items", "sku3,sku4", "--context", "hour=3", "--context", "device=ios")
        assert [item["item_id"] for item in answer["items"]] == ["sku3", "sku4"]
        assert not answer["unknown_user"]


def test_a_log_with_feature_tables_goes_through_feast(log, tmp_path):
    profiles = pa.table(
        {
            "user_id": list(range(500)),
            "event_timestamp": pa.array([datetime(2026, 2, 1, tzinfo=UTC)] * 500, pa.timestamp("us", tz="UTC")),
            "country": ["de" if u % 2 else "fr" for u in range(500)],
            "segment": [f"s{u % 4}" for u in range(500)],
            "age_band": [u % 5 for u in range(500)],
            "member_days": list(range(500)),
        }
    )
    pq.write_table(profiles, tmp_path / "profiles.parquet")
    esmm = Esmm(tmp_path / "home", tmp_path)
    features = ("--features", f"user_profile={tmp_path / 'profiles.parquet'}")
    esmm("import", "log", "--log", log, *MAP, "--context", "hour,device", *features, "--out", tmp_path / "data")
    result = esmm.run(tmp_path / "data", *ONE)
    assert result["promoted"], result["reasons"]
    assert "segment" in esmm.record(result)["stages"]["plan"]["facts"]["features"]
    with serving(esmm) as rank:
        answer = rank("--user", "7", "--items", "sku3,sku4", "--context", "hour=3")
        assert not answer["unknown_user"]
        assert rank("--user", "nobody", "--items", "sku3")["unknown_user"]


@pytest.mark.slow
def test_three_streams_as_csv(log, tmp_path):
    """Impressions, clicks and orders of the same log, with local times and no common id, to a decision."""
    rows = pq.read_table(log).to_pylist()
    zone = ZoneInfo("Europe/Berlin")
    written = {name: (tmp_path / f"{name}.csv").open("w", newline="") for name in ("shown", "clicks", "orders")}
    writers = {name: csv.writer(file) for name, file in written.items()}
    writers["shown"].writerow(["visitor", "item_id", "event_timestamp", "hour", "device"])
    for name in ("clicks", "orders"):
        writers[name].writerow(["user_id", "item_id", "event_timestamp"])
    for row in rows:
        at = row["shown_at"].to_pydatetime().astimezone(zone).replace(tzinfo=None)
        writers["shown"].writerow([row["visitor"], row["sku"], at.isoformat(" "), row["hour"], row["device"]])
        if row["is_click"]:
            writers["clicks"].writerow([row["visitor"], row["sku"], (at + timedelta(seconds=5)).isoformat(" ")])
        if row["is_sale"]:
            writers["orders"].writerow([row["visitor"], row["sku"], (at + timedelta(seconds=9)).isoformat(" ")])
    writers["shown"].writerow(["7", "sku3", "yesterday", 1, "ios"])
    for file in written.values():
        file.close()
    esmm = Esmm(tmp_path / "home", tmp_path)
    streams = ("--impressions", tmp_path / "shown.csv", "--clicks", tmp_path / "clicks.csv")
    streams += ("--conversions", tmp_path / "orders.csv", "--map-impressions", "user_id=visitor")
    windows = ("--click-window", 600, "--conversion-window", 36000, "--timezone", "Europe/Berlin")
    done = esmm("import", "events", *streams, *windows, "--context", "hour,device", "--out", tmp_path / "data")
    clicks, sales = sum(row["is_click"] for row in rows), sum(row["is_sale"] for row in rows)
    assert f"rows 40000, clicks {clicks}, conversions {sales}, clicks_unmatched 0" in done.stdout
    assert "TIME 1" in done.stderr
    result = esmm.run(tmp_path / "data", *ONE)
    assert result["promoted"], result["reasons"]
    maturity = esmm.record(result)["stages"]["ingest"]["facts"]["maturity"]
    assert maturity["immature"] > 0
    # A sale comes nine seconds after its impression, so nearly all are known.
    assert 0 <= maturity["to_come"] < 5
