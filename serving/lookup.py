"""Online features of one user, of one group of their features and of the items to rank, read through Feast.

What Feast leaves to its caller happens here: a value older than its view's time to live is taken as missing, and an
entity nothing is stored about is told from one whose values are null. Imports neither DuckDB nor anything of training.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import feast.infra.online_stores.sqlite  # noqa: F401 (keep_utc_in_sqlite has to come after it)
import numpy as np
from feast import FeatureStore, RepoConfig
from feast.errors import FeastError
from numpy.typing import NDArray
from sqlalchemy.exc import SQLAlchemyError

from components.contracts import columns as c
from components.contracts.errors import ServiceError
from components.contracts.online import (
    ENTITY_KEY_VERSION,
    MATERIALIZED,
    ONLINE,
    REGISTRY,
    keep_utc_in_sqlite,
    read_materialized,
)
from components.contracts.spec import WEIGHTS_SUFFIX, Dtype, FeatureSpec, View, raw
from components.contracts.times import parse_utc
from components.scoring.raw import Column
from serving.columns import column, objects, repeated

REGISTRY_SECONDS = 30
"""How long a change of the registry may go unnoticed; it is read again off the request path."""


@dataclass(frozen=True)
class Lookup:
    """`columns`: raw columns for the scorer, [items] each. `expired`: stored values too old, each counted once.

    `unknown_group` is None for a model that reads no view of groups.
    """

    columns: dict[str, Column]
    unknown_user: bool = False
    unknown_group: bool | None = None
    unknown_items: list[str] = field(default_factory=list)
    expired: int = 0


class NullLookup:
    """The lookup of a model that reads no feature views: ids and context are all there is."""

    def rows(
        self, user_id: str, item_ids: list[str], context: Mapping[str, Column], group_id: str | None = None
    ) -> Lookup:
        return Lookup(_given(user_id, item_ids, context))

    def materialized_as_of(self) -> str | None:
        return None

    def close(self) -> None:
        """There is nothing to close."""


class OnlineLookup:
    """Reads a dataset's live feature store. Safe to share between threads.

    Args:
        feast_dir: the store's folder (contracts/online.py).
        project: the Feast project, which is the dataset's name.
        clock: what a value's age is measured from: "wall" the present, "frozen" the as-of of the materialization.

    Raises:
        ServiceError: if nothing is materialized there, or a view or feature of the spec is not.
    """

    def __init__(self, feast_dir: Path, project: str, spec: FeatureSpec, clock: Literal["wall", "frozen"]) -> None:
        self.folder = feast_dir
        self.spec = spec
        self.clock = clock
        self._as_of: tuple[int, datetime] | None = None
        absent = [name for name in (REGISTRY, ONLINE, MATERIALIZED) if not (feast_dir / name).is_file()]
        if absent:
            raise ServiceError(
                f"{feast_dir} holds no {absent[0]}, so no features are materialized for {project!r}: run "
                "`esmm materialize`, or check --home"
            )
        try:
            self._store = _open(feast_dir, project)
            self._check_views()
        except (FeastError, SQLAlchemyError, sqlite3.Error) as error:
            raise self._broken(error) from error
        self._dtypes: dict[str, Dtype] = raw(spec.stored)
        self._weights = {feature.name + WEIGHTS_SUFFIX for feature in spec.stored if feature.weighted}

    def rows(
        self, user_id: str, item_ids: list[str], context: Mapping[str, Column], group_id: str | None = None
    ) -> Lookup:
        """Raw columns for each of `item_ids`, in their order: ids, context, and every stored feature of the spec.

        Args:
            context: raw columns of the context, [items] each.
            group_id: None if the request says none; then what is stored by group is missing.

        Raises:
            ServiceError: if the store was deleted or no longer has a view or feature of the spec.
        """
        columns = _given(user_id, item_ids, context)
        now = self._now()
        asked = {c.USER_ID: [user_id], c.GROUP_ID: [] if group_id is None else [group_id], c.ITEM_ID: item_ids}
        found: dict[str, NDArray[np.bool_]] = {}
        expired = 0
        for view in self.spec.views:
            wanted = [name for name in view.fields if name in self._dtypes]
            if not wanted:
                continue
            keys = asked[view.entity]
            stamps, values = self._read(view, wanted, keys) if keys else (np.zeros(1), {n: [None] for n in wanted})
            found[view.entity] = found.get(view.entity, False) | (stamps > 0)
            old = (stamps > 0) & (now - stamps > view.ttl_seconds)
            for name, stored in values.items():
                if name not in self._weights:
                    expired += sum(stored[i] is not None for i in np.flatnonzero(old))
                kept = [None if is_old else value for value, is_old in zip(stored, old.tolist(), strict=True)]
                made = column(kept, self._dtypes[name])
                columns[name] = made if view.entity == c.ITEM_ID else repeated(made, len(item_ids))
        known = found.get(c.ITEM_ID, np.ones(len(item_ids), np.bool_)).tolist()
        return Lookup(
            columns=columns,
            unknown_user=c.USER_ID in found and not found[c.USER_ID][0],
            unknown_group=not found[c.GROUP_ID][0] if c.GROUP_ID in found else None,
            unknown_items=[item for item, is_known in zip(item_ids, known, strict=True) if not is_known],
            expired=expired,
        )

    def materialized_as_of(self) -> str | None:
        """As-of of the values in the store, or None if that cannot be read any more."""
        done = read_materialized(self.folder)
        return done.as_of if done is not None else None

    def close(self) -> None:
        """Stops the registry's refresh and closes its connections."""
        self._store.registry._exit_handler()
        self._store.registry.read_engine.dispose()

    def _read(self, view: View, names: list[str], keys: list[str]) -> tuple[NDArray[np.float64], dict[str, list[Any]]]:
        """Event time of each key's row in epoch seconds [keys] (0: no row), and the values by feature."""
        try:
            response = self._store.get_online_features(
                features=[f"{view.name}:{name}" for name in names], entity_rows=[{view.entity: key} for key in keys]
            ).proto
        except (FeastError, SQLAlchemyError, sqlite3.Error, ValueError, KeyError) as error:
            raise self._broken(error) from error
        stamps = np.zeros(len(keys))
        values: dict[str, list[Any]] = {}
        for name, result in zip(response.metadata.feature_names.val, response.results, strict=True):
            if name in self._dtypes:
                # A status says PRESENT for a null and, on Redis, for an unknown entity; only the time tells.
                times = [stamp.seconds + stamp.nanos / 1e9 for stamp in result.event_timestamps]
                stamps = np.maximum(stamps, times)
                values[name] = [_value(proto) for proto in result.values]
        return stamps, values

    def _now(self) -> float:
        """Epoch seconds that ages are measured from."""
        if self.clock == "wall":
            return datetime.now(UTC).timestamp()
        try:
            changed = (self.folder / MATERIALIZED).stat().st_mtime_ns
        except FileNotFoundError as error:
            raise self._broken(error) from error
        if self._as_of is None or self._as_of[0] != changed:
            done = read_materialized(self.folder)
            if done is None:
                raise ServiceError(f"{self.folder / MATERIALIZED} is gone: run `esmm materialize`")
            self._as_of = changed, parse_utc(done.as_of)
        return self._as_of[1].timestamp()

    def _check_views(self) -> None:
        for view in self.spec.views:
            stored = {f.name for f in self._store.get_feature_view(view.name, allow_registry_cache=True).features}
            lost = [name for name in raw(self.spec.from_source(view.name)) if name not in stored]
            if lost:
                raise ServiceError(
                    f"view {view.name!r} in {self.folder} has no feature {lost[0]!r}, which the model reads: "
                    "materialize with the code the model was trained with, or train it again"
                )

    def _broken(self, error: Exception) -> ServiceError:
        reason = " ".join(str(error).split())
        return ServiceError(
            f"the feature store in {self.folder} does not answer ({reason}): run `esmm materialize` and restart the "
            "service"
        )


def _open(folder: Path, project: str) -> FeatureStore:
    """Registry read-only and refreshed by a thread; no offline store, whose libraries the service does not have."""
    config = RepoConfig(
        project=project,
        provider="local",
        registry={
            "registry_type": "sql",
            "path": f"sqlite:///file:{folder / REGISTRY}?mode=ro&uri=true",
            "cache_ttl_seconds": REGISTRY_SECONDS,
            "cache_mode": "thread",
        },
        online_store={"type": "sqlite", "path": str(folder / ONLINE)},
        offline_store=None,
        entity_key_serialization_version=ENTITY_KEY_VERSION,
    )
    keep_utc_in_sqlite()
    store = FeatureStore(config=config)
    # As the setting of this name, which warns about the thread: what is served is never half-written here.
    store.registry.serve_features_while_materializing = True
    return store


def _given(user_id: str, item_ids: list[str], context: Mapping[str, Column]) -> dict[str, Column]:
    return {c.USER_ID: objects([user_id] * len(item_ids)), c.ITEM_ID: objects(item_ids), **context}


def _value(proto: Any) -> Any:
    """The stored value; None if there is none, which an empty list is too."""
    kind = proto.WhichOneof("val")
    if kind is None:
        return None
    value = getattr(proto, kind)
    return (list(value.val) or None) if kind.endswith("_list_val") else value
