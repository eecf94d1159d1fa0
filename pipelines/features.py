"""What is known of features, from all there is to ask: declarations, a dataset, the registry, the online store.

Plain records, which `esmm features --json` prints as they are; features_text.py makes tables of them.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal, NamedTuple

from components.contracts.artifacts import read_model
from components.contracts.columns import GROUP_ID, POSITION
from components.contracts.config import Config
from components.contracts.dataset import FEATURES, DatasetInfo, read_info, view_names
from components.contracts.errors import DataError, UsageError
from components.contracts.online import Materialized, Place, read_materialized
from components.contracts.packaged import PACKAGED_JSON, Packaged
from components.contracts.paths import Home
from components.contracts.spec import (
    CONTEXT_SOURCE,
    ID_SOURCE,
    ITEM_CONTEXT_SOURCE,
    LOGGED,
    WEIGHTS_SUFFIX,
    FeatureSpec,
)
from components.contracts.times import format_utc, parse_utc
from components.features import catalog, stats
from components.features.catalog import Entry, ViewEntry
from components.ingestion.ingest import default_as_of
from components.packaging import process, registry
from pipelines.feature_spec import DEFAULT_ENCODING, feature_spec
from serving.lookup import OnlineLookup
from serving.online.cells import Cell
from serving.online.redis_reader import RedisReader

Clock = Literal["wall", "frozen"]


class Listed(Entry):
    """`brought`: whether the dataset (or what is materialized of it) has the feature; None where that is not known."""

    brought: bool | None = None


class Use(Config):
    """A model in use that reads a feature or view. `role`: champion or previous."""

    dataset: str
    role: str
    version: int
    run: str


class Stored(Config):
    """What the online store of a dataset holds of a view. `lag_seconds`: from its newest event to the watermark."""

    dataset: str
    as_of: str
    rows: int
    newest_event: str | None
    lag_seconds: float | None


class Feature(Entry):
    """A declared feature; `effective`: the settings that matter to its encoding, declared or by default."""

    effective: dict[str, Any]
    used_by: tuple[Use, ...]


class View(ViewEntry):
    used_by: tuple[Use, ...]
    materialized: tuple[Stored, ...]


class Shown(Config):
    """What goes by a name: features of that name with the views that hold them, or a view."""

    name: str
    features: tuple[Feature, ...]
    views: tuple[View, ...]


class Looked(NamedTuple):
    """What the service would see. `model` None: the dataset has no champion, so every materialized view was asked.

    `no_group`: the model reads a view that is kept by group, and no group was given.
    """

    dataset: str
    model: int | None
    clock: Clock
    as_of: str | None
    no_group: bool
    cells: list[Cell]


def materialized_datasets(home: Home) -> list[str]:
    """Names of the datasets whose features were materialized at this home, sorted."""
    folders = [path for path in home.feast("x").parent.glob("*") if path.is_dir()]
    return sorted(folder.name for folder in folders if _state(home, folder.name) is not None)


def listed(home: Home, data: Path | None, dataset: str) -> list[Listed]:
    """Every declared feature, and the undeclared context of `data`; with what is brought where that is known.

    Raises:
        DataError: no dataset at `data`. UsageError: nothing is materialized of the dataset named.
    """
    if data is not None:
        return _listed_of(read_info(data), view_names(data))
    known = materialized_datasets(home)
    if not dataset and len(known) != 1:
        return [Listed(**entry.model_dump()) for entry in catalog.entries()]
    done = _state(home, chosen(home, dataset))
    views = done.views if done is not None else {}
    return [
        Listed(**entry.model_dump(), brought=None if entry.entity is None else entry.source in views)
        for entry in catalog.entries()
    ]


def undeclared(data: Path) -> list[str]:
    """Views that the dataset brings and nobody declared: nothing reads them."""
    declared = {view.name for view in catalog.view_entries()}
    return [name for name in view_names(data) if name not in declared]


def show(home: Home, name: str) -> Shown:
    """Everything about the features, or the view, called `name`.

    Raises:
        UsageError: there is none; the nearest name is suggested. DataError: a model in use that cannot be read.
    """
    features, views = catalog.find(name)
    sources = {entry.source for entry in features}
    holding = [view for view in catalog.view_entries() if view.name in sources]
    models = _models(home)
    return Shown(
        name=name,
        features=tuple(
            Feature(
                **entry.model_dump(),
                effective=entry.with_defaults,
                used_by=tuple(use for use, spec in models if _reads(spec, entry)),
            )
            for entry in features
        ),
        views=tuple(
            View(
                **view.model_dump(),
                used_by=tuple(use for use, spec in models if any(v.name == view.name for v in spec.views)),
                materialized=_stored(home, view.name),
            )
            for view in (views or holding)
        ),
    )


def measured(data: Path, as_of: str, name: str) -> tuple[str, tuple[stats.ViewStats, ...]]:
    """As-of (by default just after the last logged event), and statistics of the dataset's feature tables by then.

    Args:
        name: a feature or view; "" for all.

    Raises:
        DataError: no dataset, one without the tables asked for, or a table that is not as declared.
        UsageError: no time, no such feature, or one that is not stored.
    """
    read_info(data)
    brought = view_names(data)
    until = as_of or default_as_of(data)
    at = parse_utc(until, "as-of")
    if not name:
        present = tuple(view.name for view in catalog.view_entries() if view.name in brought)
        if not present:
            raise DataError(
                f"{data / FEATURES} holds no table of a declared view, so there is nothing to measure: import "
                "some with `esmm import log --features VIEW=PATH`"
            )
        return until, stats.measure(data / FEATURES, present, at)
    features, views = catalog.find(name)
    wanted = {view.name for view in views} | {entry.source for entry in features if entry.entity is not None}
    if not wanted:
        raise UsageError(
            f"{name!r} is no stored feature ({features[0].source}), so it has no table: `esmm profile show` has the "
            "log's columns"
        )
    present = tuple(sorted(wanted & set(brought)))
    if not present:
        raise DataError(
            f"{data} brings no table for view {min(wanted)!r}, which {name!r} is in: it has "
            f"{', '.join(brought) or 'no feature tables'}"
        )
    return until, stats.measure(data / FEATURES, present, at, only=features[0].name if features else name)


def looked_up(
    home: Home, data: Path | None, dataset: str, clock: Clock | None, user: str, items: list[str], group: str | None
) -> Looked:
    """What the service would see of a user, items and perhaps a group now, value by value, from the live store.

    The features are those of the dataset's champion, or without one all that are materialized.

    Raises:
        DataError: nothing is materialized, or no dataset at `data`.
        UsageError: several datasets are and none was named; nothing says which clock ages are measured by.
        ServiceError: the store does not answer, or lacks a view that the champion reads.
    """
    info = read_info(data) if data is not None else None
    if info is not None and dataset not in ("", info.name):
        raise UsageError(f"--data is dataset {info.name!r} and --dataset says {dataset!r}: give one of the two")
    name = chosen(home, info.name if info else dataset)
    champion = registry.champion(home, name)
    spec = read_model(Path(champion.source), verify=False).spec if champion else _all_of(home, name)
    measured_by = clock or (info.clock if info else _packaged_clock(home, name, champion))
    if not spec.views:
        raise DataError(
            f"champion version {champion.version if champion else '?'} of {name!r} reads no feature views: the service "
            "looks nothing up"
        )
    lookup = OnlineLookup(Place.of(home.feast(name), name), spec, measured_by)
    try:
        return Looked(
            dataset=name,
            model=champion.version if champion else None,
            clock=measured_by,
            as_of=lookup.materialized_as_of(),
            no_group=GROUP_ID in spec.keys and group is None,
            cells=_in_order(spec, lookup.inspect(user, items, group)),
        )
    finally:
        lookup.close()


def _in_order(spec: FeatureSpec, cells: list[Cell]) -> list[Cell]:
    """Entity by entity as they came, each entity's features as they are declared."""
    entities = {entity: n for n, entity in enumerate(dict.fromkeys((cell.entity, cell.key) for cell in cells))}
    declared = [(view.name, field) for view in spec.views for field in view.fields]
    order = {feature: n for n, feature in enumerate(declared)}
    return sorted(cells, key=lambda cell: (entities[cell.entity, cell.key], order[cell.view, cell.feature]))


def as_json(looked: Looked) -> dict[str, Any]:
    """The same in JSON's types."""
    cells = []
    for cell in looked.cells:
        value = cell.value if not isinstance(cell.value, float) or math.isfinite(cell.value) else str(cell.value)
        time = format_utc(cell.event_time) if cell.event_time is not None else None
        cells.append({**dataclasses.asdict(cell), "value": value, "event_time": time})
    return {**looked._asdict(), "cells": cells}


def chosen(home: Home, dataset: str) -> str:
    """The named dataset, or the only one whose features are materialized.

    Raises:
        DataError: none is, or not that one. UsageError: there are several and none was named.
    """
    known = materialized_datasets(home)
    if dataset and dataset not in known and _state(home, dataset) is not None:
        return dataset  # in Redis, filled from another machine
    if not known or (dataset and dataset not in known):
        what = f"of dataset {dataset!r} " if dataset else ""
        there = f"; there are {', '.join(known)}" if known else ""
        raise DataError(
            f"nothing {what}is materialized in {home.root}{there}: run `esmm materialize --data DIR`, or `esmm "
            "run` until a model is promoted"
        )
    if not dataset and len(known) > 1:
        raise UsageError(f"several datasets are materialized ({', '.join(known)}): choose one with --dataset")
    return dataset or known[0]


def _listed_of(info: DatasetInfo, views: tuple[str, ...]) -> list[Listed]:
    """As declared, context with the dataset's types and with the columns that nobody declared."""
    found = []
    for entry in catalog.entries():
        if entry.source == CONTEXT_SOURCE:
            continue
        brought = entry.source in views if entry.entity is not None else entry.name in info.id_features
        found.append(Listed(**entry.model_dump(), brought=brought))
    declared = {entry.name: entry for entry in catalog.entries() if entry.source == CONTEXT_SOURCE}
    absent = [
        Listed(**entry.model_dump(), brought=False) for entry in declared.values() if entry.name not in info.context
    ]
    present = [_logged(info, n, declared.get(n)) for n, kind in info.context.items() if kind != "floats"]
    ids = [entry for entry in found if entry.source == ID_SOURCE]
    return [*ids, *present, *absent, *found[len(ids) :]]


def _logged(info: DatasetInfo, name: str, declared: Entry | None) -> Listed:
    """A context column of the dataset."""
    dtype = info.context[name]
    weights = name + WEIGHTS_SUFFIX if name + WEIGHTS_SUFFIX in info.context else None
    of_item = name in info.item_context and name != POSITION
    return Listed(
        name=name,
        source=ITEM_CONTEXT_SOURCE if of_item else CONTEXT_SOURCE,
        entity=None,
        type="list of strings" + (", weighted" if weights else "") if dtype == "strings" else dtype,
        settings={"encoding": DEFAULT_ENCODING[dtype], **(declared.settings if declared else {})},
        ttl_seconds=None,
        description=declared.description if declared else "(not declared: as its type)",
        weights=weights,
        brought=True,
    )


def _models(home: Home) -> list[tuple[Use, FeatureSpec]]:
    """Champion and predecessor of every dataset with what they read."""
    found = []
    for dataset in registry.datasets(home):
        in_use = (("champion", registry.champion(home, dataset)), ("previous", registry.previous(home, dataset)))
        for role, version in in_use:
            if version is not None:
                use = Use(dataset=dataset, role=role, version=version.version, run=version.run)
                found.append((use, read_model(Path(version.source), verify=False).spec))
    return found


def _reads(spec: FeatureSpec, entry: Entry) -> bool:
    feature = spec.named(entry.name)
    if feature is None:
        return False
    return feature.source in LOGGED if entry.source == CONTEXT_SOURCE else feature.source == entry.source


def _state(home: Home, dataset: str) -> Materialized | None:
    """What is materialized, by the note in the store itself; None if nothing is.

    Raises:
        ServiceError: Redis does not answer. UsageError: the environment's profile lacks a variable.
    """
    place = Place.of(home.feast(dataset), dataset)
    if place.redis is None:
        return read_materialized(place.folder)
    reader = RedisReader(place)
    try:
        return reader.state().materialized
    finally:
        reader.close()


def _stored(home: Home, view: str) -> tuple[Stored, ...]:
    found = []
    for dataset in materialized_datasets(home):
        done = _state(home, dataset)
        if done is None or view not in done.views:
            continue
        state = done.views[view]
        as_of = state.as_of or done.as_of
        newest = state.newest_event
        lag = (parse_utc(as_of) - parse_utc(newest)).total_seconds() if newest is not None else None
        found.append(Stored(dataset=dataset, as_of=as_of, rows=state.rows, newest_event=newest, lag_seconds=lag))
    return tuple(found)


def _all_of(home: Home, dataset: str) -> FeatureSpec:
    """Every declared view that is materialized."""
    done = _state(home, dataset)
    return feature_spec(DatasetInfo(name=dataset, source=""), tuple(done.views) if done is not None else ())


def _packaged_clock(home: Home, dataset: str, champion: registry.Version | None) -> Clock:
    """As the champion's Bento says."""
    if champion is None:
        raise UsageError(
            f"dataset {dataset!r} has no champion, so nothing says which clock ages are measured by: give --data "
            "DIR or --clock"
        )
    note = process.bento_path(home, champion.bento) / "src" / PACKAGED_JSON
    return Packaged.parse(note.read_bytes(), where=str(note)).clock
