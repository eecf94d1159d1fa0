"""The default limits of drift, on simulated shops through real ingestion: days that follow pass with room, broken ones
do not (docs/drift.md quotes what is asserted here)."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from components.contracts import duck
from components.contracts.dataset import FEATURES, data_fingerprint, read_info, view_names
from components.contracts.files import read_manifest
from components.contracts.quality import MATURITY, Drift, Maturity
from components.contracts.spec import Feature, FeatureSpec, View
from components.ingestion.ingest import IngestConfig, first_event, run
from components.ingestion.sources.simulator import SimulatorConfig, simulate
from components.validation.drift import DriftLimits, check
from components.validation.profile import Profile, measure
from components.validation.runner import Runner

SEEDS = (1, 2)
ROOM = 0.7
"""Honest data may come this far on the way from the reference to a limit."""
USER = ("user_impressions_7d", "user_clicks_7d", "user_conversions_7d", "user_ctr_7d")
ITEM = ("item_impressions_7d", "item_clicks_7d", "item_conversions_7d", "item_ctr_7d")
VIEWS: dict[str, tuple[str, ...]] = {
    "user_profile": ("country", "segment", "age_band"), "user_activity": USER,
    "item_profile": ("category", "brand", "price"), "item_activity": ITEM,
}  # fmt: skip
STRINGS = ("country", "segment", "category", "brand")


def feature(name: str, view: str) -> Feature:
    if name in STRINGS:
        return Feature(name=name, source=view, dtype="string", encoding="id")
    return Feature(
        name=name, source=view, dtype="float" if name == "price" or "ctr" in name else "int", encoding="bucket"
    )


SPEC = FeatureSpec(
    features=(
        Feature(name="user_id", source="id", dtype="string", encoding="id"),
        *(feature(name, view) for view, names in VIEWS.items() for name in names),
    ),
    views=tuple(
        View(
            name=view, entity="user_id" if view.startswith("user") else "item_id", ttl_seconds=7 * 86400.0, fields=names
        )
        for view, names in VIEWS.items()
    ),
)


class Shop:
    """A simulated log, profiled as of days after its first midnight."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder / f"shop{seed}"
        shop = SimulatorConfig(seed=seed, days=20, impressions=80_000, users=4000, items=1200, dirty_share=0.0)
        simulate(shop, self.folder)
        self.start = first_event(self.folder).replace(hour=0, minute=0, second=0, microsecond=0)

    def ingested(self, days: float) -> tuple[Path, Path]:
        """Ingestion's artifacts as of so many days, made once."""
        impressions, features = (self.folder.parent / f"{self.folder.name}-{name}-{days}" for name in ("log", "views"))
        if not impressions.exists():
            split = read_info(self.folder).split.model_copy(update={"valid_days": 1.0, "test_days": 1.0})
            config = IngestConfig(
                data=str(self.folder), fingerprint=data_fingerprint(self.folder), as_of=self.as_of(days), split=split
            )
            run(config, impressions, features)
        return impressions, features

    def as_of(self, days: float) -> str:
        return (self.start + timedelta(days=days)).isoformat()

    def profile(self, days: float, change: str = "", views: dict[str, str] | None = None) -> Profile:
        """What ingestion leaves, measured. `change` is a REPLACE list of the log, `views` the same by view."""
        impressions, features = self.ingested(days)
        maturity = Maturity.parse(read_manifest(impressions)[MATURITY])
        with duck.connect() as db:
            log = duck.parquet(sorted(impressions.glob("dt=*/*.parquet")), partitioned=True)
            relations = {
                view: self._changed(duck.parquet([features / view / "part-0.parquet"]), (views or {}).get(view, ""))
                for view in view_names(self.folder)
            }
            return measure(
                db, self._changed(log, change), read_info(self.folder), SPEC, relations, self.as_of(days),
                f"{self.folder}{days}", {day.day: day.impressions for day in maturity.days},
            )  # fmt: skip

    @staticmethod
    def _changed(relation: str, change: str) -> str:
        return f"(SELECT * {f'REPLACE ({change})' if change else ''} FROM {relation})"


@pytest.fixture(scope="module")
def runner() -> Runner:
    return Runner()


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Shop]:
    folder = tmp_path_factory.mktemp("shops")
    return {seed: Shop(folder, seed) for seed in SEEDS}


def drifts(runner: Runner, batch: Profile, reference: Profile) -> tuple[Drift, ...]:
    _, found, _ = check(runner, batch, reference, DriftLimits())
    assert found
    return found


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("earlier", "later"), [(10, 11), (10, 15), (10, 20), (14.5, 19), (19, 20)])
def test_days_that_follow_pass_with_room(
    runner: Runner, shops: dict[int, Shop], seed: int, earlier: float, later: float
) -> None:
    shop = shops[seed]
    found = drifts(runner, shop.profile(later), shop.profile(earlier))
    assert {drift.says for drift in found if drift.relative > ROOM} == set()


BREAKS = {
    "a value renamed": ("upper(device) AS device", "category shares of log.device"),
    "a default in place of most values": (
        "CASE WHEN hash(impression_id) % 10 < 9 THEN 'mobile' ELSE device END AS device",
        "category shares of log.device",
    ),
    "a device no longer logged": (
        "CASE WHEN device = 'tablet' THEN NULL ELSE device END AS device", "null share of log.device",
    ),
    "hours in another time zone": ("(hour + 8) % 24 AS hour", "quantile of log.hour"),
    "clicks counted twice": (
        "CASE WHEN click = 1 OR hash(impression_id) % 5 = 0 THEN 1 ELSE 0 END AS click", "click rate moved",
    ),
    "two of three conversions lost": (
        "CASE WHEN hash(impression_id) % 3 > 0 THEN 0 ELSE conversion END AS conversion", "conversion rate moved",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_log_fails(runner: Runner, shops: dict[int, Shop], name: str) -> None:
    change, said = BREAKS[name]
    shop = shops[1]
    found = drifts(runner, shop.profile(15, change), shop.profile(10))
    assert any(re.search(said, drift.says) for drift in found if not drift.passed), name


VIEW_BREAKS = {
    "prices in cents": ("item_profile", "price * 100 AS price", "of item_profile.price"),
    "a job that writes nulls": (
        "user_activity", "CASE WHEN hash(user_id) % 4 = 0 THEN NULL ELSE user_ctr_7d END AS user_ctr_7d",
        "null share of user_activity.user_ctr_7d",
    ),
    "counts of one day in place of seven": (
        "item_activity", "item_impressions_7d // 7 AS item_impressions_7d", "item_activity.item_impressions_7d",
    ),
    "segments shuffled": ("user_profile", "md5(segment)[1:4] AS segment", "category shares of user_profile.segment"),
}  # fmt: skip


@pytest.mark.parametrize("name", VIEW_BREAKS)
def test_a_broken_feature_table_fails(runner: Runner, shops: dict[int, Shop], name: str) -> None:
    view, change, said = VIEW_BREAKS[name]
    shop = shops[1]
    found = drifts(runner, shop.profile(15, views={view: change}), shop.profile(10))
    assert any(said in drift.says for drift in found if not drift.passed), name


def test_every_view_of_the_shop_is_measured(shops: dict[int, Shop]) -> None:
    found = shops[1].profile(10)
    assert set(found.views) == set(VIEWS) == {path.name for path in (shops[1].folder / FEATURES).iterdir()}
    assert all(table.columns for table in found.views.values())
    assert datetime.fromisoformat(min(found.days)).date() == shops[1].start.date()
