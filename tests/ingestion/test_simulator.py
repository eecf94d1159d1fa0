"""What lands on disk: layout, determinism, dirt."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from components.contracts.dataset import data_fingerprint, read_info, truth_fingerprint, view_names
from components.contracts.errors import DataError, UsageError
from components.ingestion.sources.simulator import simulate
from components.ingestion.sources.simulator_dirty import KINDS
from components.ingestion.sources.simulator_world import SimulatorConfig

CONFIG = SimulatorConfig(days=8, users=300, items=60, impressions=20_000, seed=5)
Shop = tuple[SimulatorConfig, Path]


def read(folder: Path) -> pd.DataFrame:
    parts = []
    for file in sorted(folder.glob("dt=*/*.parquet")):
        parts.append(pq.read_table(str(file), partitioning=None).to_pandas().assign(dt=file.parent.name[3:]))
    return pd.concat(parts, ignore_index=True)


def test_layout(small_shop: Shop) -> None:
    config, folder = small_shop
    info = read_info(folder)
    assert (info.name, info.clock, info.recipe, info.has_label_times) == ("shop", "frozen", "nightly", True)
    assert view_names(folder) == ("item_activity", "item_profile", "user_activity", "user_profile")
    log = read(folder / "log")
    assert len(log) == config.impressions
    assert log.impression_id.is_unique
    assert (log.event_timestamp.dt.strftime("%Y-%m-%d") == log.dt).all()
    assert log.position.between(1, 10).all()
    assert (log.event_timestamp.dt.hour == log.hour).all()
    assert log.click_timestamp.notna().equals(log.click == 1)
    assert log.conversion_timestamp.notna().equals(log.conversion == 1)
    assert (log.click_timestamp.dropna() > log.event_timestamp[log.click == 1]).all()
    assert not ((log.conversion == 1) & (log.click == 0)).any()
    end = datetime(2026, 1, 17, tzinfo=UTC)
    assert log[["event_timestamp", "click_timestamp", "conversion_timestamp"]].max().max() < end
    truth = read(folder / "truth")
    assert set(truth.impression_id) == set(log.impression_id)
    assert truth.drop(columns=["impression_id", "dt"]).apply(lambda p: p.between(0, 1).all()).all()


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    prints = {}
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        simulate(CONFIG.model_copy(update={"seed": seed}), tmp_path / name)
        files = sorted(p for p in (tmp_path / name).rglob("*.parquet"))
        prints[name] = [p.read_bytes() for p in files]
    assert prints["a"] == prints["b"] != prints["c"]
    assert data_fingerprint(tmp_path / "a") == data_fingerprint(tmp_path / "b")


def test_dirt_changes_the_asked_share_and_nothing_else(tmp_path: Path) -> None:
    simulate(CONFIG, tmp_path / "clean")
    facts = simulate(CONFIG.model_copy(update={"dirty_share": 0.03}), tmp_path / "dirty")
    clean, dirty = read(tmp_path / "clean" / "log"), read(tmp_path / "dirty" / "log")
    changed = (
        clean.astype("object").where(clean.notna(), "-") != dirty.astype("object").where(dirty.notna(), "-")
    ).any(axis=1)
    assert sum(facts["dirty"].values()) == 600
    assert set(facts["dirty"]) == set(KINDS)
    assert min(facts["dirty"].values()) > 0
    assert changed.sum() == 600
    assert changed.groupby(clean.dt).mean().between(0.01, 0.06).all()
    funnel = ((dirty.conversion == 1) & (dirty.click != 1)).groupby(dirty.dt).mean()
    assert 0 < funnel.max() < 0.01
    assert truth_fingerprint(tmp_path / "clean") == truth_fingerprint(tmp_path / "dirty")
    for view in view_names(tmp_path / "clean"):
        one, other = (tmp_path / name / "features" / view / "part-0.parquet" for name in ("clean", "dirty"))
        assert one.read_bytes() == other.read_bytes()


def test_every_kind_of_dirt_is_what_it_says(tmp_path: Path) -> None:
    simulate(CONFIG.model_copy(update={"dirty_share": 0.05}), tmp_path / "shop")
    log = read(tmp_path / "shop" / "log")
    assert log.user_id.isna().any()
    assert log.item_id.isna().any()
    assert log.event_timestamp.isna().any()
    assert log.click.isna().any()
    assert (log.click == 2).any()
    assert ((log.click == 0) & (log.conversion == 1)).any()
    assert (log.click_timestamp < log.event_timestamp).any()
    assert (log.conversion_timestamp < log.click_timestamp).any()
    assert (log.event_timestamp.dt.strftime("%Y-%m-%d") != log.dt)[log.event_timestamp.notna()].any()
    assert (log.position < 0).any()
    assert log.groupby("dt").impression_id.agg(lambda ids: ids.duplicated().any()).any()


def test_an_existing_folder_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "mine.txt").write_text("precious")
    with pytest.raises(DataError, match="not empty"):
        simulate(CONFIG, tmp_path / "shop")
    assert [p.name for p in tmp_path.iterdir()] == ["shop"]


def test_a_start_that_is_no_time_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="start 'soon'"):
        simulate(SimulatorConfig(start="soon", impressions=100), tmp_path / "shop")
    assert not list(tmp_path.iterdir())


def test_unknown_or_impossible_settings_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown key 'imressions'"):
        SimulatorConfig.parse({"imressions": 5})
    with pytest.raises(UsageError, match="days = 0"):
        SimulatorConfig.parse({"days": 0})
