"""The estimate of conversions to come, held against what a longer log of the same shop later shows."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.contracts.dataset import Imported, SplitConfig, data_fingerprint, read_info, write_imported
from components.contracts.files import read_manifest
from components.contracts.quality import MATURITY, Maturity
from components.ingestion.ingest import IngestConfig, run
from components.ingestion.maturity import BINS, FINAL, still_to_come

START = datetime(2026, 3, 1, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
AS_OF = START + 8 * DAY
CLICK_WINDOW, CONVERSION_WINDOW = 3_600.0, 86_400.0

Write = Callable[..., Path]


def ingest(data: Path, out: str = "out", as_of: datetime = AS_OF) -> tuple[Path, Maturity, dict[str, Any]]:
    config = IngestConfig(
        data=str(data), fingerprint=data_fingerprint(data), as_of=as_of.isoformat(), split=read_info(data).split
    )
    folder = data.parent / out
    facts = run(config, folder / "i", folder / "f")
    return folder / "i", Maturity.parse(read_manifest(folder / "i")[MATURITY]), facts


def simulate(seed: int, rows: int = 30_000, slow: float = 60_000) -> list[dict[str, Any]]:
    """Eight days up to as-of: a third click, after some minutes, 45 % of those buy, after some hours; now and then past
    the window. Delays are exponential."""
    rng = np.random.default_rng(seed)
    shown = np.sort(rng.uniform(0, 8 * 86_400, rows))
    clicks, buys = rng.random(rows) < 0.35, rng.random(rows) < 0.45
    clicked, bought = shown + rng.exponential(1_200, rows), rng.exponential(slow, rows)

    def time(seconds: float) -> datetime:
        return START + timedelta(seconds=float(seconds))

    return [
        {
            "impression_id": f"m{n}", "user_id": f"u{n % 700}", "event_timestamp": time(shown[n]),
            "click": int(clicks[n]), "click_timestamp": time(clicked[n]) if clicks[n] else None,
            "conversion": int(clicks[n] and buys[n]),
            "conversion_timestamp": time(clicked[n] + bought[n]) if clicks[n] and buys[n] else None,
        }
        for n in range(rows)
    ]  # fmt: skip


def counts(row: dict[str, Any]) -> bool:
    """Whether the row's conversion is one in the end, whenever that is."""
    return bool(
        row["conversion"]
        and (row["click_timestamp"] - row["event_timestamp"]).total_seconds() <= CLICK_WINDOW
        and (row["conversion_timestamp"] - row["click_timestamp"]).total_seconds() <= CONVERSION_WINDOW
    )


@pytest.mark.parametrize("seed", range(4))
def test_the_estimate_is_what_the_log_later_shows(write_dataset: Write, seed: int) -> None:
    rows = simulate(seed)
    _, found, facts = ingest(write_dataset(rows))
    known = [row for row in rows if counts(row) and row["conversion_timestamp"] < AS_OF]
    coming = [row for row in rows if counts(row) and row["conversion_timestamp"] >= AS_OF]
    assert sum(day.conversions for day in found.days) == len(known)
    estimate = sum(day.to_come for day in found.days)
    # What comes is a sum of chances (variance at most its mean), what is expected rests on the conversions known.
    error = math.sqrt(len(coming) + len(coming) ** 2 / len(known))
    assert len(coming) > 100
    assert abs(estimate - len(coming)) < 4 * error
    assert found.share_to_come == pytest.approx(estimate / (estimate + len(known)))
    for day in found.days[-2:]:
        later = sum(1 for row in coming if row["event_timestamp"].strftime("%Y-%m-%d") == day.day)
        assert abs(day.to_come - later) < 4 * math.sqrt(max(later, 1) + later**2 / len(known))
    assert all(day.to_come == 0 for day in found.days[:-2])
    assert facts["maturity"]["to_come"] == round(estimate, 1)
    mature = [row for row in known if row["event_timestamp"] <= AS_OF - HOUR - DAY]
    delays = [(row["conversion_timestamp"] - row["click_timestamp"]).total_seconds() for row in mature]
    assert found.delay_median == pytest.approx(np.quantile(delays, 0.5))
    assert found.delay_p90 == pytest.approx(np.quantile(delays, 0.9))


def test_the_estimate_is_not_off_on_the_whole(write_dataset: Write) -> None:
    """One log proves little: over several, errors in units of their size must average to nothing."""
    scores = []
    for seed in range(100, 108):
        rows = simulate(seed, rows=8_000, slow=40_000)
        _, found, _ = ingest(write_dataset(rows, name=f"d{seed}"), out=f"o{seed}")
        coming = sum(1 for row in rows if counts(row) and row["conversion_timestamp"] >= AS_OF)
        estimate, known = sum(day.to_come for day in found.days), sum(day.conversions for day in found.days)
        scores.append((estimate - coming) / math.sqrt(coming + coming**2 / known))
    assert abs(np.mean(scores)) < 3 / math.sqrt(len(scores))


def test_days_by_hand(write_dataset: Write) -> None:
    def row(day: float, click: timedelta | None, bought: timedelta | None) -> dict[str, Any]:
        at = START + day * DAY
        clicked = None if click is None else at + click
        return {
            "event_timestamp": at, "click": int(click is not None), "click_timestamp": clicked,
            "conversion": int(bought is not None),
            "conversion_timestamp": clicked + bought if clicked and bought is not None else None,
        }  # fmt: skip

    minute = timedelta(minutes=1)
    mature = [row(day / 4, minute if day % 2 else None, HOUR if day % 4 == 1 else None) for day in range(28)]
    late = [row(1.1, 2 * HOUR, None), row(1.2, minute, 30 * HOUR)]
    fresh = [
        row(7.5, minute, HOUR),  # known
        row(7.5, minute, None),  # has 12 of its 24 hours behind it: all mature purchases came in the first two
        row(7.999, None, None),  # 86 s old: all mature clicks came in the first minute
        row(7.9999, None, None),  # 9 s old: half of such are clicked, half of those buy
        row(7.9999, timedelta(seconds=1), None),  # clicked 8 s ago: half of such buy
        row(7.99, 2 * HOUR, None),  # nobody knows yet of its click
        row(8, minute, HOUR),  # invisible
    ]
    _, found, facts = ingest(write_dataset([*mature, *late, *fresh]))
    last = found.days[-1]
    assert (last.day, last.impressions, last.immature, last.clicks, last.conversions) == ("2026-03-08", 6, 6, 3, 1)
    # 30 mature impressions, 15 clicks in their window, 7 conversions of those in theirs.
    p_click, p_bought = 15 / 30, 7 / 15
    assert last.to_come == pytest.approx(p_click * p_bought + p_bought, rel=0.01)
    assert [day.immature for day in found.days] == [0] * (len(found.days) - 1) + [6]
    assert [day.impressions for day in found.days][:2] == [4, 6]
    assert (found.late_clicks, found.late_conversions) == (1, 1)
    assert found.delay_median == 3600
    assert "of 30 mature impressions 50.00% were clicked, of those clicks 46.67% converted" in found.basis
    assert facts["maturity"]["immature"] == 6


def test_chance_that_it_still_comes() -> None:
    chance = still_to_come([(0, 3), (BINS // 2, 1)], 0.5)
    # Within the first part the chance falls from 1/2 to (1/2 x 1/4) / (1 - 1/2 x 3/4) = 1/5.
    assert chance[0] == pytest.approx((0.5 + 0.2) / 2)
    assert chance[1] == chance[BINS // 2 - 1] == pytest.approx(0.2)
    assert chance[BINS // 2] == pytest.approx(0.1)
    assert chance[BINS // 2 + 1] == chance[-1] == 0
    assert not still_to_come([], 0.0).any()
    assert still_to_come([(BINS - 1, 5)], 1.0)[: BINS - 1].tolist() == [1.0] * (BINS - 1)


def test_nothing_after_as_of_has_a_say(write_dataset: Write) -> None:
    """Two logs that differ only in what comes after as-of: the same rows, labels and estimate."""
    rows = simulate(9, rows=4_000)
    other = []
    for row in rows:
        bought, clicked = row["conversion_timestamp"], row["click_timestamp"]
        if clicked and clicked >= AS_OF:
            row = row | {"click": 0, "click_timestamp": None, "conversion": 0, "conversion_timestamp": None}
        elif bought and bought >= AS_OF:
            row = row | {"conversion": 0, "conversion_timestamp": None}
        other.append(row)
    assert rows != other
    one, first, _ = ingest(write_dataset(rows, name="one"), out="o1")
    two, second, _ = ingest(write_dataset(other, name="two"), out="o2")
    assert first == second
    assert sum(day.to_come for day in first.days) > 0
    assert read_manifest(one)["files"] == read_manifest(two)["files"]
    assert read_manifest(one)["rows"] == read_manifest(two)["rows"]


def test_where_there_is_nothing_to_estimate_from(write_dataset: Write) -> None:
    rows = [{"event_timestamp": START + n * 2 * HOUR, "user_id": f"u{n}"} for n in range(96)]
    _, found, _ = ingest(write_dataset(rows, name="bare"), out="o1")
    assert (found.share_to_come, found.delay_median, found.basis) == (
        None, None, "no estimate: the 84 mature impressions hold no conversion to estimate from",
    )  # fmt: skip
    assert sum(day.immature for day in found.days) == 12
    _, found, facts = ingest(
        write_dataset(
            rows, name="final", drop=("click_timestamp", "conversion_timestamp"), has_label_times=False,
            click_window_seconds=0, conversion_window_seconds=0, split=SplitConfig(kind="hash"),
        ),
        out="o2",
    )  # fmt: skip
    assert found == Maturity(basis=FINAL)
    assert facts["maturity"]["basis"] == FINAL
    _, found, _ = ingest(write_dataset(rows, name="lame", drop=("conversion",)), out="o3")
    assert "validation says more" in found.basis
    assert found.days == ()


def test_what_the_importer_said_travels_on(write_dataset: Write) -> None:
    rows = [{"event_timestamp": START + n * 2 * HOUR, "user_id": f"u{n}"} for n in range(96)]
    data = write_dataset(rows)
    folder, _, _ = ingest(data, out="o1")
    assert "imported" not in read_manifest(folder)
    account = Imported(lines=99, refused={"TIME": 3}, truncated=("a.csv.gz",), notes=("Said.",))
    write_imported(data, account)
    folder, _, _ = ingest(data, out="o2")
    assert Imported.parse(read_manifest(folder)["imported"]) == account
