"""Splits as published: test by time, validation by user, and nothing placed that no rule can place."""

from __future__ import annotations

from datetime import timedelta

import pytest
from ingestion.runs import HOUR, START, Write, ingest, spread, written

from components.contracts.artifacts import Ranges
from components.contracts.dataset import SplitConfig
from components.contracts.errors import UsageError
from components.contracts.files import read_manifest


def published(test_from: str = "2026-03-02T01:00:00Z", share: float = 0.2, seed: int = 7) -> SplitConfig:
    return SplitConfig(kind="published", test_from=test_from, valid_share=share, seed=seed)


FINAL = {
    "has_label_times": False, "click_window_seconds": 0, "conversion_window_seconds": 0,
    "drop": ("click_timestamp", "conversion_timestamp"),
}  # fmt: skip


def test_a_published_split_is_by_time_for_test_and_by_user_before(write_dataset: Write) -> None:
    rows = [{"user_id": f"u{n % 500}", "event_timestamp": START + n * timedelta(minutes=1)} for n in range(3000)]
    lost = [
        {"impression_id": "nobody", "user_id": None, "event_timestamp": START},
        {"impression_id": "never", "event_timestamp": None, "dt": "2026-03-01"},
    ]
    folder = ingest(write_dataset([*rows, *lost], split=published(), **FINAL))
    placed = written(folder)
    test_from = START + 25 * HOUR
    of_user: dict[str, set[str]] = {}
    for name in (f"m{n}" for n in range(3000)):
        row = placed[name]
        assert (row["split"] == "test") == (row["event_timestamp"] >= test_from)
        if row["split"] != "test":
            of_user.setdefault(row["user_id"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in of_user.values())
    assert sum(splits == {"valid"} for splits in of_user.values()) / 500 == pytest.approx(0.2, abs=0.05)
    assert (placed["nobody"]["split"], placed["never"]["split"]) == ("gap", "gap")
    # Written down, not computed, as for the split by hash: the user's place in [0, 1) is the same.
    known = {"u0": "train", "u2": "valid", "u3": "valid", "u1": "train"}
    assert {user: next(iter(of_user[user])) for user in known} == known
    ranges = Ranges.parse(read_manifest(folder / "impressions")["ranges"])
    before = ("2026-03-01T00:00:00Z", "2026-03-02T01:00:00Z")
    assert ranges == Ranges(
        kind="published", train=before, valid=before, test=(before[1], "2026-03-11T00:00:00Z"), seed=7
    )
    assert read_manifest(folder / "impressions")["rows"]["gap"] == 2


def test_a_published_split_of_a_log_with_windows_leaves_immature_rows_out(write_dataset: Write) -> None:
    rows = [{"user_id": f"u{n}", "event_timestamp": START + n * HOUR} for n in range(240)]
    folder = ingest(write_dataset(rows, split=published("2026-03-05")))
    manifest = read_manifest(folder / "impressions")
    assert manifest["ranges"]["test"] == ["2026-03-05T00:00:00Z", "2026-03-09T23:00:00.000001Z"]
    assert manifest["rows"]["immature"] == 24
    assert manifest["rows"]["test"] == 240 - 96 - 24


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (published(""), "the split's test_from '' is no ISO-8601 time"),
        (published("soon"), "the split's test_from 'soon' is no ISO-8601 time"),
        (
            published("2026-03-01"),
            "test_from 2026-03-01T00:00:00Z is not within the log's mature time, after 2026-03-01",
        ),
        (published("2026-03-12"), "is not within the log's mature time, after .* and before 2026-03-11T00:00:00Z"),
        (published(share=0), "valid_share 0 must be above 0 and below 1"),
        (published(share=1), "valid_share 1 must be above 0 and below 1"),
    ],
)
def test_a_published_split_that_cannot_be(write_dataset: Write, split: SplitConfig, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ingest(write_dataset(spread(), split=split, **FINAL))
