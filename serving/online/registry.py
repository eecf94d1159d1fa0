"""Feast's registry, read off the request path: which views there are, with which features, and which are pushed.

A registry that cannot be read any more does not stop the service: it goes on with what was read last, says so in the
log and in /info, and takes notice when the registry is back.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
from dataclasses import dataclass
from typing import Any

from feast import FeatureStore, RepoConfig
from feast.errors import FeastError
from feast.utils import _utc_now
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from components.contracts.errors import ServiceError
from components.contracts.online import ENTITY_KEY_VERSION, Place, keep_utc_in_sqlite
from components.contracts.spec import FeatureSpec, raw
from serving.online.reader import broken

SECONDS = 30.0
"""How long a change of the registry may go unnoticed."""
DO = "run `esmm materialize` and restart the service"

log = logging.getLogger("bentoml.esmm")


@dataclass(frozen=True)
class Views:
    """The views of one reading of the registry: `pushed` have a stream source, `lost` says what the model misses."""

    pushed: frozenset[str]
    lost: str | None


class RegistryWatch:
    """Raises ServiceError on construction if the registry cannot be read or lacks a view or feature of the spec."""

    def __init__(self, place: Place, spec: FeatureSpec, seconds: float = SECONDS) -> None:
        self.where = str(place.folder) if place.redis is None else f"the registry of {place.project!r}"
        self._spec = spec
        self._seconds = seconds
        self.unreachable: str | None = None
        """Why the registry could not be read the last time; None if it could."""
        try:
            self.store = _open(place)
            self._read_proto: Any = None
            self._views = self._look()
        except (FeastError, SQLAlchemyError, sqlite3.Error, ImportError) as error:
            raise broken(self.where, error, DO) from error
        if self._views.lost is not None:
            self.close()
            raise ServiceError(self._views.lost)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="feast-registry", daemon=True)
        self._thread.start()

    def views(self) -> Views:
        """Of the registry as read last. Raises ServiceError if it has lost a view or feature that the model reads."""
        if self.store.registry.cached_registry_proto is not self._read_proto:
            self._views = self._look()
        if self._views.lost is not None:
            raise ServiceError(self._views.lost)
        return self._views

    def refresh(self) -> None:
        """Reads the registry again; what was read last stays in force if that fails."""
        registry = self.store.registry
        try:
            proto = registry.proto()
        # Whatever a driver raises, the thread has to live on.
        except Exception as error:
            reason = " ".join(str(error).split())
            if self.unreachable is None:
                log.warning("the registry does not answer, serving with what was read last: %s", reason)
            self.unreachable = reason
            return
        if self.unreachable is not None:
            log.info("the registry answers again")
            self.unreachable = None
        registry.cached_registry_proto = proto
        registry.cached_registry_proto_created = _utc_now()

    def close(self) -> None:
        closing = getattr(self, "_closing", None)
        if closing is not None:
            closing.set()
        self.store.registry.read_engine.dispose()

    def _watch(self) -> None:
        while not self._closing.wait(self._seconds):
            self.refresh()

    def _look(self) -> Views:
        proto = self.store.registry.cached_registry_proto
        found = {view.spec.name: view.spec for view in proto.feature_views if view.spec.project == self.store.project}
        lost = None
        for view in self._spec.views:
            wanted = raw(self._spec.from_source(view.name))
            spec = found.get(view.name)
            if spec is None:
                lost = (
                    f"the feature store in {self.where} has no view {view.name!r}, which the model reads: run `esmm "
                    "materialize` with its table, or serve a model that does without"
                )
                break
            stored = {feature.name for feature in spec.features}
            absent = [name for name in wanted if name not in stored]
            if absent:
                lost = (
                    f"view {view.name!r} in {self.where} has no feature {absent[0]!r}, which the model reads: "
                    "materialize with the code the model was trained with, or train it again"
                )
                break
        pushed = frozenset(name for name, spec in found.items() if spec.HasField("stream_source"))
        self._read_proto = proto
        return Views(pushed, lost)


def _open(place: Place) -> FeatureStore:
    """Registry read-only and never refreshed by Feast; no offline store, whose libraries the service does not have."""
    config = RepoConfig(
        project=place.project,
        provider="local",
        registry={"registry_type": "sql", "path": _read_only(place), "cache_ttl_seconds": 0, "cache_mode": "sync"},
        online_store=place.online_store,
        offline_store=None,
        entity_key_serialization_version=ENTITY_KEY_VERSION,
    )
    store = FeatureStore(config=config)
    if place.redis is None:
        import feast.infra.online_stores.sqlite  # noqa: F401 (keep_utc_in_sqlite has to come after it)

        keep_utc_in_sqlite()
    # As the setting of this name, which warns about the thread: what is served is never half-written here.
    store.registry.serve_features_while_materializing = True
    return store


def _read_only(place: Place) -> str:
    """The registry's URL, so that serving can neither make a registry nor change one."""
    url = make_url(place.registry)
    if url.get_backend_name() == "sqlite":
        return f"sqlite:///file:{url.database}?mode=ro&uri=true"
    if url.get_backend_name() == "postgresql":
        said = str(url.query.get("options", ""))
        url = url.update_query_dict({"options": f"{said} -c default_transaction_read_only=on".strip()})
    return url.render_as_string(hide_password=False)
