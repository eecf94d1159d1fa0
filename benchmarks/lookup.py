"""`esmm bench lookup`: features of one user and N items from a real Redis, against Feast's call and bare Redis.

20 features a user and 20 an item (8 floats, 8 integers, 4 strings, in two views), one in twenty of them null, every row
with an event time of its own, written by Feast. The contenders take turns request by request and are asked for the same
items:

    to_dict   `get_online_features(...).to_dict()`
    raw       one pipelined HMGET an entity of the same fields with redis-py, nothing decoded
    raw_packed  the same commands, put together by hand as this lookup does; nothing decoded
    cold      this lookup without a cache: every value read and decoded
    warm      this lookup, the items read before: the user and the watermark from Redis, the items from memory
"""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.figures import Figures, Ratios, figure, show
from benchmarks.redis_server import redis_server
from components.contracts import layout
from components.contracts.online import Materialized, Place, ViewState
from components.contracts.spec import Dtype, Encoding, Feature, FeatureSpec, View
from components.contracts.times import format_utc

ITEMS = 1000
SIZES = (100, 200, 500)
ROUNDS, REQUESTS = 9, 30
KINDS: tuple[tuple[str, Dtype, Encoding], ...] = (
    ("number", "float", "bucket"),
    ("count", "int", "bucket"),
    ("word", "string", "id"),
)
VIEWS = {"users": ("user_id", (8, 8, 4)), "items_a": ("item_id", (4, 4, 2)), "items_b": ("item_id", (4, 4, 2))}
NULLS = 0.05
WORDS = 200
PROJECT = "bench"


def main(as_json: bool) -> None:
    figures: Figures = {}
    ratios: Ratios = {}
    with redis_server() as (address, client), tempfile.TemporaryDirectory(prefix="bench-lookup-") as folder:
        place = Place(Path(folder), PROJECT, "production", f"sqlite:///{folder}/registry.db", address)
        store = _filled(place, client)
        for size in SIZES:
            times = _measure(place, store, client, size)
            for name, rounds in times.items():
                figures[f"{name}_{size}_p50_ms"] = figure([statistics.median(each) for each in rounds])
                every = [value for each in rounds for value in each]
                p99 = float(np.percentile(every, 99))
                figures[f"{name}_{size}_p99_ms"] = {"median": p99, "min": min(every), "max": max(every), "runs": 1.0}
            for ours in ("cold", "warm"):
                for other in ("raw", "to_dict"):
                    ratios[f"lookup_{ours}_vs_{other}_{size}"] = _ratio(times[other], times[ours])
    title = f"1 user + N items x 20 features from Redis, ms ({ROUNDS} rounds of {REQUESTS} requests each, in turns)"
    show(title, figures, ratios, as_json)


def _ratio(other: list[list[float]], ours: list[list[float]]) -> float:
    """Median over the rounds of the other's p50 over ours."""
    return statistics.median(
        statistics.median(theirs) / statistics.median(mine) for theirs, mine in zip(other, ours, strict=True)
    )


def _measure(place: Place, store: Any, client: Any, size: int) -> dict[str, list[list[float]]]:
    """Milliseconds by contender: a list a round of one value a request."""
    from serving.lookup import OnlineLookup
    from serving.online.reader import Ask

    spec = _spec()
    cold = OnlineLookup(place, spec, "wall", cache_items=0)
    warm = OnlineLookup(place, spec, "wall")
    references = [f"{view.name}:{name}" for view in spec.views for name in view.fields]
    fields_of = {entity: _hash_fields(spec, entity) for entity in ("user_id", "item_id")}
    plan = cold._plan
    reader: Any = cold._reader

    def to_dict(user: str, items: list[str]) -> Any:
        rows = [{"user_id": user, "item_id": item} for item in items]
        return store.get_online_features(features=references, entity_rows=rows).to_dict()

    def raw(user: str, items: list[str]) -> Any:
        with client.pipeline(transaction=False) as pipe:
            pipe.hmget(layout.redis_key(PROJECT, "user_id", user), fields_of["user_id"])
            for item in items:
                pipe.hmget(layout.redis_key(PROJECT, "item_id", item), fields_of["item_id"])
            return pipe.execute()

    def raw_packed(user: str, items: list[str]) -> Any:
        assert plan.user is not None
        return reader._one([Ask(plan.user, [user]), Ask(plan.items[0].fields, items)])

    contenders: dict[str, Callable[[str, list[str]], Any]] = {
        "to_dict": to_dict,
        "raw": raw,
        "raw_packed": raw_packed,
        "cold": lambda user, items: cold.rows(user, items, {}),
        "warm": lambda user, items: warm.rows(user, items, {}),
    }
    rng = np.random.default_rng(size)
    every = [f"i{number}" for number in range(ITEMS)]
    names = list(contenders)
    found: dict[str, list[list[float]]] = {name: [] for name in names}
    gc.collect()
    gc.freeze()  # as the service does
    for turn in range(ROUNDS + 1):
        times: dict[str, list[float]] = {name: [] for name in contenders}
        warm.rows("u0", every, {})  # one read of everything; within its maximum age all is answered from memory
        warm.rows("u0", every, {})
        for number in range(REQUESTS):
            user = f"u{rng.integers(100)}"
            items = rng.choice(every, size, replace=False).tolist()
            for turn_of in range(len(names)):
                name = names[(turn_of + number) % len(names)]
                started = time.perf_counter()
                contenders[name](user, items)
                times[name].append((time.perf_counter() - started) * 1e3)
        if turn:  # the first does not count
            for name, values in times.items():
                found[name].append(values)
    cold.close()
    warm.close()
    return found


def _spec() -> FeatureSpec:
    features, views = [], []
    for view, (entity, counts) in VIEWS.items():
        names = []
        for (kind, dtype, encoding), count in zip(KINDS, counts, strict=True):
            for number in range(count):
                names.append(f"{view}_{kind}_{number}")
                features.append(Feature(name=names[-1], source=view, dtype=dtype, encoding=encoding))
        views.append(View(name=view, entity=entity, ttl_seconds=30 * 86400.0, fields=tuple(names)))
    return FeatureSpec(features=tuple(features), views=tuple(views))


def _hash_fields(spec: FeatureSpec, entity: str) -> list[bytes]:
    """What a request needs of an entity: its values, and the event time of each view."""
    views = [view for view in spec.views if view.entity == entity]
    values = [layout.redis_field(view.name, name) for view in views for name in view.fields]
    return values + [layout.redis_time_field(view.name) for view in views]


def _filled(place: Place, client: Any) -> Any:
    """A Feast store with 100 users and ITEMS items, written by Feast."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, Int64, String

    config = RepoConfig(
        project=PROJECT,
        provider="local",
        registry={"registry_type": "sql", "path": place.registry, "cache_ttl_seconds": 600},
        online_store=place.online_store,
        offline_store={"type": "duckdb"},
        entity_key_serialization_version=3,
    )
    store = FeatureStore(config=config)
    types: dict[Dtype, Any] = {"float": Float64, "int": Int64, "string": String}
    spec = _spec()
    dtypes = {feature.name: feature.dtype for feature in spec.features}
    entities = {
        key: Entity(name=key.removesuffix("_id"), join_keys=[key], value_type=ValueType.STRING)
        for key in ("user_id", "item_id")
    }
    store.apply(
        [
            *entities.values(),
            *(
                FeatureView(
                    name=view.name,
                    entities=[entities[view.entity]],
                    ttl=timedelta(seconds=view.ttl_seconds),
                    schema=[
                        Field(name=view.entity, dtype=String),
                        *(Field(name=name, dtype=types[dtypes[name]]) for name in view.fields),
                    ],
                    source=FileSource(
                        path=str(place.folder / f"{view.name}.parquet"), timestamp_field="event_timestamp"
                    ),
                )
                for view in spec.views
            ),
        ]
    )
    now = datetime.now(UTC)
    rng = np.random.default_rng(0)
    for view in spec.views:
        store.write_to_online_store(view.name, df=_rows(view, dtypes, now, rng))
    note = Materialized(as_of=format_utc(now), views={view.name: ViewState(rows=ITEMS) for view in spec.views})
    client.set(layout.materialized_key(PROJECT), note.to_json())
    return store


def _rows(view: View, dtypes: dict[str, Dtype], now: datetime, rng: np.random.Generator) -> pd.DataFrame:
    count = 100 if view.entity == "user_id" else ITEMS
    makers: dict[Dtype, Callable[[], Any]] = {
        "float": lambda: rng.normal(0, 100, count).tolist(),
        "int": lambda: rng.integers(0, 100_000, count).tolist(),
        "string": lambda: [f"word-{number}" for number in rng.integers(0, WORDS, count)],
    }
    table: dict[str, Any] = {view.entity: [f"{view.entity[0]}{number}" for number in range(count)]}
    for name in view.fields:
        values, lost = makers[dtypes[name]](), rng.random(count) < NULLS
        table[name] = pd.Series([None if is_lost else v for v, is_lost in zip(values, lost, strict=True)], dtype=object)
    ages = rng.integers(0, 86_400_000_000, count)
    table["event_timestamp"] = [now - timedelta(microseconds=int(age)) for age in ages]
    return pd.DataFrame(table)
