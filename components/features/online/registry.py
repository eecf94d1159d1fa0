"""Feast's registry: the views over the copied tables, and up to when each is materialized."""

from __future__ import annotations

import io
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path

from feast import FeatureStore
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from components.contracts.errors import ServiceError
from components.contracts.online import REGISTRY, Place
from feature_repo import store as repo

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)
"""Feast's end of a materialization is inclusive, an as-of is not."""


@contextmanager
def opened(place: Place) -> Iterator[FeatureStore]:
    """The store at `place`, closed afterwards. Raises ServiceError if its registry does not answer."""
    try:
        store = repo.open_store(place.project, place.folder, place)
        store.registry.list_feature_views(place.project)
    except SQLAlchemyError as error:
        raise _unreachable(place, error) from error
    try:
        yield store
    except SQLAlchemyError as error:
        raise _unreachable(place, error) from error
    finally:
        _close(store)


def apply(store: FeatureStore, tables: Path, present: tuple[str, ...]) -> None:
    """Registers the present views over `tables`. Views that are not present stay: somebody may be served from them."""
    with redirect_stdout(io.StringIO()):  # Feast prints what the caller says better
        repo.apply(store, tables, present)


def record(store: FeatureStore, present: tuple[str, ...], as_of: datetime) -> None:
    """Tells Feast up to when the views are materialized: its own command line goes on from there."""
    for view in present:
        found = store.registry.get_any_feature_view(view, store.project)
        store.registry.apply_materialization(found, store.project, EPOCH, as_of - TICK)


def swap(new: Path, live: Path) -> None:
    """Puts the registry made in the folder `new` in the place of the one in `live`, in one transaction."""
    with closing(sqlite3.connect(new / REGISTRY)) as source, closing(sqlite3.connect(live / REGISTRY)) as target:
        source.backup(target)


def _unreachable(place: Place, error: SQLAlchemyError) -> ServiceError:
    reason = str(error).splitlines()[0]
    where = make_url(place.registry).render_as_string(hide_password=True)
    return ServiceError(
        f"the feature registry {where} does not answer ({reason}): start it or correct its address, and run again"
    )


def _close(store: FeatureStore) -> None:
    """Feast leaves its connections to the garbage collector; the files and servers may go before that."""
    for engine in {store.registry.read_engine, store.registry.write_engine}:
        engine.dispose()
    connection = getattr(store._get_provider().online_store, "_conn", None)
    if connection is not None:
        connection.close()
