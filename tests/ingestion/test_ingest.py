"""Attribution, maturity, splits and as-of, on rows whose outcome can be worked out by hand."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ingestion.runs import AS_OF, DAY, HOUR, START, TICK, Write, ingest, spread, written

from components.contracts.artifacts import Ranges, Rows
from components.contracts.dataset import SplitConfig, data_fingerprint, read_info
from components.contracts.errors import DataError, UsageError
from components.contracts.files import read_manifest
from components.ingestion.ingest import IngestConfig, default_as_of, first_event, last_event, run
from components.ingestion.sources.simulator_world import SimulatorConfig

MATURE = AS_OF - HOUR - DAY
"""With a click window of an hour and a conversion window of a day."""
TEST, VALID = MATURE - DAY, MATURE - 2 * DAY
TRAIN_END = VALID - HOUR - DAY
UTC_US = pa.timestamp("us", tz="UTC")


def test_labels_by_hand(write_dataset: Write) -> None:
    at = START + HOUR

    def row(name: str, click: Any, clicked: Any, conversion: Any, converted: Any) -> dict[str, Any]:
        return {
            "impression_id": name, "event_timestamp": at, "click": click, "conversion": conversion,
            "click_timestamp": None if clicked is None else at + clicked,
            "conversion_timestamp": None if converted is None else at + converted,
        }  # fmt: skip

    minute = timedelta(minutes=1)
    cases = [
        # name, what the log says, (click, conversion) it must become
        (row("nothing", 0, None, 0, None), (0, 0)),
        (row("click", 1, minute, 0, None), (1, 0)),
        (row("click at the edge", 1, HOUR, 0, None), (1, 0)),
        (row("click too late", 1, HOUR + TICK, 0, None), (0, 0)),
        (row("bought", 1, minute, 1, 2 * minute), (1, 1)),
        (row("bought at the edge", 1, minute, 1, minute + DAY), (1, 1)),
        (row("bought too late", 1, minute, 1, minute + DAY + TICK), (1, 0)),
        (row("bought after a late click", 1, 2 * HOUR, 1, 3 * HOUR), (0, 0)),
        # Contradictions are for validation: they go on as they are.
        (row("no click", 0, None, 1, minute), (0, 1)),
        (row("click unknown", None, None, 1, minute), (None, 1)),
        (row("two clicks", 2, minute, 0, None), (2, 0)),
        (row("clicked before", 1, -minute, 0, None), (1, 0)),
        (row("bought before the click", 1, 2 * minute, 1, minute), (1, 1)),
        (row("no times", 1, None, 1, None), (1, 1)),
    ]
    data = write_dataset([*(case for case, _ in cases), *spread()])
    rows = written(ingest(data))
    for case, expected in cases:
        got = rows[case["impression_id"]]
        assert (got["click"], got["conversion"]) == expected, case["impression_id"]
    for name in ("click too late", "bought after a late click"):
        assert rows[name]["click_timestamp"] is None
        assert rows[name]["conversion_timestamp"] is None
    assert rows["bought too late"]["click_timestamp"] is not None
    assert rows["bought too late"]["conversion_timestamp"] is None


def test_late_events_are_counted(write_dataset: Write) -> None:
    at = START + HOUR
    late = {"event_timestamp": at, "click": 1, "conversion": 1, "click_timestamp": at + HOUR}
    data = write_dataset([late | {"conversion_timestamp": at + 3 * DAY}, *spread()])
    config = IngestConfig(
        data=str(data), fingerprint=data_fingerprint(data), as_of=AS_OF.isoformat(), split=read_info(data).split
    )
    facts = run(config, data.parent / "i", data.parent / "f")
    assert (facts["late_clicks"], facts["late_conversions"]) == (0, 1)


def test_split_boundaries_and_gap(write_dataset: Write) -> None:
    expected = {
        "train starts": (START, "train"),
        "train ends": (TRAIN_END - TICK, "train"),
        "gap starts": (TRAIN_END, "gap"),
        "gap ends": (VALID - TICK, "gap"),
        "valid starts": (VALID, "valid"),
        "valid ends": (TEST - TICK, "valid"),
        "test starts": (TEST, "test"),
        "test ends": (MATURE, "test"),
        "immature": (MATURE + TICK, None),
        "last": (AS_OF - TICK, None),
        "invisible": (AS_OF, None),
    }
    data = write_dataset([{"impression_id": name, "event_timestamp": at} for name, (at, _) in expected.items()])
    folder = ingest(data)
    rows = written(folder)
    assert {name: rows[name]["split"] if name in rows else None for name in expected} == {
        name: split for name, (_, split) in expected.items()
    }
    manifest = read_manifest(folder / "impressions")
    assert Rows.parse(manifest["rows"]) == Rows(total=11, invisible=1, immature=2, gap=2, train=2, valid=2, test=2)
    ranges = Ranges.parse(manifest["ranges"])
    assert ranges.train == ("2026-03-01T00:00:00Z", "2026-03-06T22:00:00Z")
    assert ranges.valid == ("2026-03-07T23:00:00Z", "2026-03-08T23:00:00Z")
    assert ranges.test == ("2026-03-08T23:00:00Z", "2026-03-09T23:00:00.000001Z")


def test_no_training_label_is_known_only_after_validation_starts(write_dataset: Write) -> None:
    """The gap's purpose: even a conversion at the last instant of both windows comes before validation."""
    at = TRAIN_END - TICK
    latest = {"event_timestamp": at, "click": 1, "conversion": 1, "click_timestamp": at + HOUR}
    data = write_dataset([latest | {"impression_id": "latest", "conversion_timestamp": at + HOUR + DAY}, *spread()])
    row = written(ingest(data))["latest"]
    assert (row["split"], row["conversion"]) == ("train", 1)
    assert row["conversion_timestamp"] < VALID


def test_selection_never_looks_at_a_label(write_dataset: Write) -> None:
    """Same impressions, other outcomes: the same rows, in the same splits."""
    rng = np.random.default_rng(0)
    seconds = rng.integers(0, 10 * 86_400, 400)
    fates = []
    for attempt in range(3):
        rows = []
        for number, second in enumerate(seconds):
            at = START + timedelta(seconds=int(second))
            click, conversion = rng.random(2) < 0.5
            clicked = at + timedelta(seconds=float(rng.exponential(3_000)))
            bought = clicked + timedelta(seconds=float(rng.exponential(80_000)))
            rows.append(
                {
                    "impression_id": f"m{number}", "event_timestamp": at,
                    "click": int(click), "click_timestamp": clicked if click else None,
                    "conversion": int(click and conversion),
                    "conversion_timestamp": bought if click and conversion else None,
                }
            )  # fmt: skip
        folder = ingest(write_dataset(rows, name=f"data{attempt}"), out=f"out{attempt}")
        fates.append(
            (
                {name: row["split"] for name, row in written(folder).items()},
                read_manifest(folder / "impressions")["rows"],
            )
        )
    assert fates[0] == fates[1] == fates[2]
    assert fates[0][1]["immature"] > 0


def test_later_data_changes_nothing_before_as_of(write_dataset: Write) -> None:
    """A run as of an earlier time sees what a run at that time saw."""
    then = [row for row in spread() if row["event_timestamp"] < AS_OF]
    at = TEST + HOUR
    bought = {"impression_id": "b", "event_timestamp": at, "click": 1, "click_timestamp": at + TICK, "conversion": 1}
    now = [
        *then,
        {"impression_id": "new", "event_timestamp": AS_OF},
        {"impression_id": "newer", "event_timestamp": AS_OF + 5 * DAY},
        {"impression_id": "timeless", "event_timestamp": None, "dt": "2026-03-20"},
    ]
    known = bought | {"conversion_timestamp": at + HOUR}
    before = written(ingest(write_dataset([*then, known], name="then"), out="o1"))
    after = written(ingest(write_dataset([*now, known], name="now"), out="o2"))
    assert before == after


def test_features_not_yet_known_are_invisible(write_dataset: Write) -> None:
    stamps = [AS_OF - DAY, AS_OF - HOUR, AS_OF - HOUR, AS_OF, AS_OF + DAY]
    created = [AS_OF - HOUR, AS_OF - TICK, AS_OF, AS_OF - HOUR, AS_OF + DAY]
    view = pa.table(
        {
            "item_id": ["a", "b", "c", "d", "e"],
            "event_timestamp": pa.array(stamps, UTC_US),
            "created": pa.array(created, UTC_US),
            "price": [1.0, 2.0, 3.0, 4.0, 5.0],
        }
    )
    folder = ingest(write_dataset(spread(), views={"item_profile": view}))
    table = pq.read_table(folder / "features" / "item_profile" / "part-0.parquet")
    assert table.column("item_id").to_pylist() == ["a", "b"]
    assert table.schema.field("created").type == UTC_US
    manifest = read_manifest(folder / "features")
    assert (manifest["rows"], manifest["views"]) == ({"item_profile": 2}, ["item_profile"])
    assert read_manifest(folder / "impressions")["views"] == ["item_profile"]


def test_a_feature_table_without_times_is_refused(write_dataset: Write) -> None:
    data = write_dataset(spread(), views={"item_profile": pa.table({"item_id": ["a"], "price": [1.0]})})
    with pytest.raises(DataError, match=r"item_profile needs user_id, item_id or group_id, and event_timestamp and"):
        ingest(data)


def test_rows_without_a_time_wait_for_quarantine(write_dataset: Write) -> None:
    rows = [{"impression_id": f"timeless{day}", "event_timestamp": None, "dt": f"2026-03-{day:02}"} for day in (5, 10)]
    folder = ingest(write_dataset([*rows, *spread()]))
    row = written(folder)["timeless5"]
    assert (row["split"], row["dt"]) == ("gap", "2026-03-05")
    assert read_manifest(folder / "impressions")["rows"]["total"] == 42
    # On a day that is not over yet they would be a large share of the few mature rows, and close the gate for nothing.
    assert "timeless10" not in written(folder)


def test_partition_is_kept_though_the_time_contradicts_it(write_dataset: Write) -> None:
    """Otherwise a broken clock would be repaired by being filed under its wrong day."""
    data = write_dataset([{"impression_id": "odd", "event_timestamp": START, "dt": "2026-03-04"}, *spread()])
    assert written(ingest(data))["odd"]["dt"] == "2026-03-04"


def test_as_of_defaults_to_just_after_the_last_event_in_its_day(write_dataset: Write) -> None:
    far = {"event_timestamp": START + 900 * DAY, "dt": "2026-03-05"}
    old = {"event_timestamp": START - 900 * DAY, "dt": "2026-03-05"}
    data = write_dataset([far, old, *spread()])
    last = START + 39 * 6 * HOUR
    assert (first_event(data), last_event(data)) == (START, last)
    assert default_as_of(data) == "2026-03-10T18:00:00.000001Z"
    assert read_manifest(ingest(data, default_as_of(data)) / "impressions")["rows"]["invisible"] == 1


def test_hash_split_is_by_user_and_the_same_everywhere(write_dataset: Write) -> None:
    rows = [{"user_id": f"u{n // 3}", "event_timestamp": START + n * timedelta(minutes=1)} for n in range(1500)]
    split = SplitConfig(kind="hash", valid_share=0.2, test_share=0.3, seed=7)
    zero = {"has_label_times": False, "click_window_seconds": 0, "conversion_window_seconds": 0}
    folder = ingest(write_dataset(rows, split=split, drop=("click_timestamp", "conversion_timestamp"), **zero))
    of_user: dict[str, set[str]] = {}
    for row in written(folder).values():
        of_user.setdefault(row["user_id"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in of_user.values())
    share = {name: sum(splits == {name} for splits in of_user.values()) / 500 for name in ("train", "valid", "test")}
    assert share == pytest.approx({"train": 0.5, "valid": 0.2, "test": 0.3}, abs=0.07)
    # Written down, not computed: a new version of anything must not move users between splits.
    known = {
        "u0": "train",
        "u1": "valid",
        "u2": "test",
        "u3": "test",
        "u4": "test",
        "u5": "valid",
        "u6": "valid",
        "u7": "train",
    }
    assert {user: next(iter(of_user[user])) for user in known} == known
    manifest = read_manifest(folder / "impressions")
    assert manifest["ranges"]["train"] == ["0", "0.5"]
    assert manifest["ranges"]["test"] == ["0.7", "1"]
    assert manifest["ranges"]["seed"] == 7


def test_same_inputs_same_bytes_in_order(small_shop: tuple[SimulatorConfig, Path], tmp_path: Path) -> None:
    _, data = small_shop
    prints = []
    for out in ("a", "b"):
        config = IngestConfig(
            data=str(data), fingerprint=data_fingerprint(data), as_of=default_as_of(data), split=read_info(data).split
        )
        run(config, tmp_path / out / "i", tmp_path / out / "f")
        prints.append(
            (read_manifest(tmp_path / out / "i")["fingerprint"], read_manifest(tmp_path / out / "f")["fingerprint"])
        )
    assert prints[0] == prints[1]
    for file in (tmp_path / "a" / "i").glob("dt=*/*.parquet"):
        rows = pq.read_table(str(file), partitioning=None).to_pylist()
        assert rows == sorted(rows, key=lambda row: (row["event_timestamp"], row["impression_id"]))


def test_an_unfinished_attempt_is_replaced(write_dataset: Write, tmp_path: Path) -> None:
    stale = tmp_path / "out" / "impressions" / "dt=2020-01-01" / "part-0.parquet"
    stale.parent.mkdir(parents=True)
    stale.write_text("half")
    ingest(write_dataset(spread()))
    assert not stale.exists()


def test_refusals(write_dataset: Write) -> None:
    data = write_dataset(spread())
    with pytest.raises(
        DataError, match=r"as-of 2026-02-01T00:00:00Z is not after the first logged event 2026-03-01T00:00:00Z"
    ):
        ingest(data, "2026-02-01")
    with pytest.raises(UsageError, match="as-of 'yesterday' is no ISO-8601"):
        ingest(data, "yesterday")
    with pytest.raises(DataError, match=r"take 7\.1 days before any training day"):
        ingest(data, START + 5 * DAY, split=SplitConfig(test_days=3, valid_days=2))
    with pytest.raises(UsageError, match="must be above 0"):
        ingest(data, split=SplitConfig(test_days=0))
    with pytest.raises(UsageError, match="leave training users"):
        ingest(data, split=SplitConfig(kind="hash", valid_share=0.5, test_share=0.5))
    with pytest.raises(DataError, match="no impression falls into"):  # one user only
        ingest(data, split=SplitConfig(kind="hash"))
    with pytest.raises(DataError, match="is no folder"):
        run(IngestConfig(data="/nowhere", fingerprint="", as_of="2026-03-10", split=SplitConfig()), data, data)


def test_changed_data_is_noticed(write_dataset: Write, tmp_path: Path) -> None:
    data = write_dataset(spread())
    config = IngestConfig(
        data=str(data), fingerprint=data_fingerprint(data), as_of=AS_OF.isoformat(), split=read_info(data).split
    )
    (data / "log" / "dt=2026-03-01" / "more.parquet").write_bytes(b"")
    with pytest.raises(DataError, match="changed since the run was planned"):
        run(config, tmp_path / "i", tmp_path / "f")
    assert not (tmp_path / "i").exists()


def test_counts_at_the_end_of_the_log_contain_the_labels(tmp_path: Path) -> None:
    """Why retrieval must be point in time: a user's last count of conversions ranks the test labels far better."""
    from sklearn.metrics import roc_auc_score

    from components.ingestion.sources.simulator import simulate

    config = SimulatorConfig(days=12, users=4_000, items=300, impressions=120_000, seed=1)
    simulate(config, tmp_path / "shop")
    folder = ingest(tmp_path / "shop", default_as_of(tmp_path / "shop"))
    views = f"'{folder}/features/user_activity/*.parquet'"
    rows = duckdb.sql(
        f"""SELECT l.conversion, coalesce(p.user_conversions_7d, 0), coalesce(n.user_conversions_7d, 0)
        FROM read_parquet('{folder}/impressions/*/*.parquet') l
        ASOF LEFT JOIN {views} p ON l.user_id = p.user_id AND l.event_timestamp >= p.event_timestamp
        LEFT JOIN (SELECT * FROM {views}
            QUALIFY row_number() OVER (PARTITION BY user_id ORDER BY event_timestamp DESC) = 1) n
            ON l.user_id = n.user_id WHERE l.split = 'test'"""
    ).fetchall()
    label, then, latest = np.array(rows).T
    assert roc_auc_score(label, latest) > roc_auc_score(label, then) + 0.1
