"""Online stores to look up in, filled by the materialize stage."""

from __future__ import annotations

from pathlib import Path

from features.made import AS_OF, impressions, spec, view_table, write_clean, write_features

from components.contracts.online import Place
from components.contracts.paths import Home
from components.features.materialize import MaterializeConfig
from components.features.materialize import run as materialize
from components.features.retrieve import RetrieveConfig
from components.features.retrieve import run as retrieve
from serving.context import context_columns


def place(folder: Path, project: str = "tiny") -> Place:
    return Place.of(folder, project, {})


def given(*items):
    """The columns of a request for these items that says which device it comes from."""
    return context_columns(spec(), {"device": "web"}, {}, len(items))


def tables(clicks=0):
    """u1 and u2; u3 has nulls only. i1 fresh; i2 too old; i3 at the last moment of its seven days; i4 nulls only."""
    profiles = [
        {"user_id": "u1", "event": 1, "country": "de", "segment": "s", "age_band": 3, "member_days": 40},
        {"user_id": "u2", "event": 1, "country": "fr", "age_band": None, "member_days": 2},
        {"user_id": "u3", "event": 1},
    ]
    activity = [
        {"item_id": "i1", "event": 18, "item_clicks_7d": clicks + 7, "item_impressions_7d": 70, "item_ctr_7d": 0.1},
        {"item_id": "i2", "event": 11, "item_clicks_7d": 5, "item_impressions_7d": 50},
        {"item_id": "i3", "event": 12, "item_clicks_7d": clicks + 6, "item_impressions_7d": 0},
        {"item_id": "i4", "event": 18},
    ]
    return {
        "user_profile": view_table("user_profile", profiles),
        "item_activity": view_table("item_activity", activity),
    }


def fill(root: Path, tables_=None, as_of=AS_OF, clock="frozen", number=0) -> Path:
    """Materializes into root/home; returns the store's folder."""
    folder = root / f"made{number}"
    features = write_features(folder / "features", tables_ or tables())
    rows = [
        {"event": day, "split": split, "user_id": f"u{n % 3 + 1}", "item_id": f"i{n % 5 + 1}"}
        for day, split in ((1, "train"), (5, "valid"), (9, "test"))
        for n in range(15)
    ]
    clean = write_clean(folder / "clean", impressions(rows))
    retrieve(RetrieveConfig(dataset="tiny", spec=spec()), clean, features, folder / "dataset")
    config = MaterializeConfig(dataset="tiny", as_of=as_of, spec=spec(), clock=clock)
    materialize(config, features, folder / "dataset", folder / "expected")
    return Home(root / "home").feast("tiny")
