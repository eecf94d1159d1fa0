"""Online stores filled by Feast itself, with every type a model can read, and what plain Feast says of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import feast.infra.online_stores.sqlite  # noqa: F401 (keep_utc_in_sqlite has to come after it)
import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, PushSource, RepoConfig, ValueType
from feast.types import Array, Bool, Float64, Int64, String

from components.contracts import layout
from components.contracts.online import (
    Materialized,
    Place,
    ViewState,
    keep_utc_in_sqlite,
    write_materialized,
)
from components.contracts.spec import Dtype, Feature, FeatureSpec, View, raw
from components.contracts.times import format_utc
from components.scoring.raw import Column, Ragged
from serving.columns import column

PROJECT = "shop"
DAY = 86400.0
NOW = datetime(2026, 3, 20, tzinfo=UTC)
FEAST_TYPES = {
    "string": String, "int": Int64, "float": Float64, "bool": Bool, "strings": Array(String), "floats": Array(Float64),
}  # fmt: skip
VIEWS: dict[str, tuple[str, float, dict[str, Dtype]]] = {
    "user_profile": ("user_id", 365 * DAY, {"country": "string", "age": "int", "score": "float", "member": "bool"}),
    "user_activity": ("user_id", 2 * DAY, {"user_views": "int", "user_rate": "float"}),
    "item_profile": (
        "item_id", 365 * DAY,
        {"price": "float", "brand": "string", "stock": "int", "used": "bool", "tags": "strings", "tags_weights":
         "floats"},
    ),
    "item_activity": ("item_id", 7 * DAY, {"item_views": "int", "item_rate": "float", "trend": "float"}),
    "session": ("group_id", 5 * DAY, {"segment": "string", "seen": "strings", "words": "strings", "words_weights":
                                      "floats"}),
}  # fmt: skip
ENCODINGS = {"string": "id", "int": "bucket", "float": "bucket", "bool": "id", "strings": "bag"}


def spec(views: tuple[str, ...] = tuple(VIEWS)) -> FeatureSpec:
    features = [Feature(name=name, source="id", dtype="string", encoding="id") for name in ("user_id", "item_id")]
    for view in views:
        names = VIEWS[view][2]
        features += [
            Feature(name=name, source=view, dtype=dtype, encoding=ENCODINGS[dtype], weighted=f"{name}_weights" in names)
            for name, dtype in names.items()
            if dtype != "floats"
        ]
    return FeatureSpec(
        features=tuple(features),
        views=tuple(
            View(name=view, entity=VIEWS[view][0], ttl_seconds=VIEWS[view][1], fields=tuple(VIEWS[view][2]))
            for view in views
        ),
    )


def open_feast(place: Place) -> FeatureStore:
    keep_utc_in_sqlite()
    config = RepoConfig(
        project=place.project,
        provider="local",
        registry={"registry_type": "sql", "path": place.registry, "cache_ttl_seconds": 600},
        online_store=place.online_store,
        offline_store={"type": "duckdb"},
        entity_key_serialization_version=3,
    )
    return FeatureStore(config=config)


def feature_view(folder: Path, name: str, pushed: bool = False) -> FeatureView:
    entity, ttl, names = VIEWS[name]
    batch = FileSource(name=f"{name}_table", path=str(folder / f"{name}.parquet"), timestamp_field="event_timestamp")
    return FeatureView(
        name=name,
        entities=[Entity(name=entity.removesuffix("_id"), join_keys=[entity], value_type=ValueType.STRING)],
        ttl=timedelta(seconds=ttl),
        schema=[Field(name=entity, dtype=String), *(Field(name=n, dtype=FEAST_TYPES[d]) for n, d in names.items())],
        source=PushSource(name=f"{name}_push", batch_source=batch) if pushed else batch,
    )


def apply(place: Place, views: tuple[str, ...] = tuple(VIEWS), pushed: tuple[str, ...] = ()) -> FeatureStore:
    store = open_feast(place)
    entities = [
        Entity(name=name, join_keys=[f"{name}_id"], value_type=ValueType.STRING) for name in ("user", "item", "group")
    ]
    store.apply([*entities, *(feature_view(place.folder, view, view in pushed) for view in views)])
    return store


def write(store: FeatureStore, view: str, rows: list[Mapping[str, Any]]) -> None:
    """`rows` with the entity's id, `event_timestamp` and values; what is left out is null."""
    entity, _, names = VIEWS[view]
    table = {name: pd.Series([row.get(name) for row in rows], dtype=object) for name in (entity, *names)}
    stamps = pd.to_datetime([row["event_timestamp"] for row in rows], utc=True).as_unit("us")
    store.write_to_online_store(view, df=pd.DataFrame({**table, "event_timestamp": stamps}))


def note(place: Place, client: Any = None, as_of: datetime = NOW, views: Mapping[str, int] | None = None) -> None:
    """Writes what materialization leaves last."""
    states = {view: ViewState(rows=rows, as_of=format_utc(as_of)) for view, rows in (views or {}).items()}
    value = Materialized(as_of=format_utc(as_of), views=states)
    if client is None:
        write_materialized(place.folder, value)
    else:
        client.set(layout.materialized_key(place.project), value.to_json())


def random_rows(view: str, ids: list[str], seed: int, nulls: float = 0.2) -> list[dict[str, Any]]:
    """One row an id, its event up to ten days before NOW, to the microsecond."""
    rng = np.random.default_rng(seed)
    makers = {
        "string": lambda: str(rng.choice(["x", "żółty", "", "a" * 300, "日本", "\n'\""])),
        "int": lambda: int(rng.choice([0, 1, -1, 127, 128, 300, 2**31, -(2**40), 2**62, int(rng.integers(10**6))])),
        "float": lambda: float(rng.choice([0.0, -0.0, 1e-300, 3.5, -1e300, rng.normal()])),
        "bool": lambda: bool(rng.integers(2)),
    }
    entity, _, names = VIEWS[view]
    rows = []
    for id_ in ids:
        age = timedelta(microseconds=int(rng.integers(0, 10 * 86_400_000_000)))
        row: dict[str, Any] = {entity: id_, "event_timestamp": NOW - age}
        size = int(rng.integers(0, 4))
        for name, dtype in names.items():
            if dtype == "strings":
                row[name] = [f"{name}{k}" for k in range(size)]
            elif dtype == "floats":
                row[name] = rng.uniform(0, 2, size).tolist()
            elif rng.random() >= nulls:
                row[name] = makers[dtype]()
        rows.append(row)
    return rows


def by_feast(
    store: FeatureStore, spec_: FeatureSpec, user: str, items: list[str], group: str | None, now: datetime = NOW
) -> tuple[dict[str, Column], dict[str, int]]:
    """Raw columns and expired values by view, one plain `get_online_features` a view, value by value."""
    columns: dict[str, Column] = {}
    expired: dict[str, int] = {}
    dtypes = raw(spec_.stored)
    weights = {f"{feature.name}_weights" for feature in spec_.stored if feature.weighted}
    for view in spec_.views:
        keys = {"user_id": [user], "item_id": items, "group_id": [] if group is None else [group]}[view.entity]
        values: dict[str, list[Any]] = {name: [None] for name in view.fields}
        if keys:
            response = store.get_online_features(
                features=[f"{view.name}:{name}" for name in view.fields],
                entity_rows=[{view.entity: key} for key in keys],
            ).proto
            for name, result in zip(response.metadata.feature_names.val, response.results, strict=True):
                if name == view.entity:
                    continue
                values[name] = []
                for value, stamp in zip(result.values, result.event_timestamps, strict=True):
                    kind = value.WhichOneof("val")
                    plain = None if kind is None else getattr(value, kind)
                    if kind is not None and kind.endswith("_list_val"):
                        plain = list(plain.val) or None
                    event = datetime.fromtimestamp(stamp.seconds, UTC) + timedelta(microseconds=stamp.nanos // 1000)
                    if plain is not None and now - event > timedelta(seconds=view.ttl_seconds):
                        plain = None
                        if name not in weights:
                            expired[view.name] = expired.get(view.name, 0) + 1
                    values[name].append(plain)
        for name, found in values.items():
            of_all = found if view.entity == "item_id" else found * len(items)
            columns[name] = column(of_all, dtypes[name])
    return columns, expired


def assert_equal(found: Mapping[str, Column], expected: Mapping[str, Column]) -> None:
    for name, column_ in expected.items():
        mine = found[name]
        if isinstance(column_, Ragged):
            assert isinstance(mine, Ragged), name
            np.testing.assert_array_equal(mine.offsets, column_.offsets, err_msg=name)
            assert mine.values.tolist() == column_.values.tolist(), name
            assert mine.values.dtype == column_.values.dtype, name
        else:
            assert mine.dtype == column_.dtype, name
            np.testing.assert_array_equal(mine, column_, err_msg=name)
