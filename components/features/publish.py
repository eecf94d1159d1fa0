"""Fills a new online store beside the live one and swaps it in, so that a reader sees the old values or the new.

Feast writes its SQLite store batch by batch: a run that dies half-way would leave a mixture. So Feast fills a store of
its own in a scratch folder, and SQLite's backup copies it over the live files, each in one transaction that a crash
rolls back; readers keep their connections. What is live is then exactly the tables: nothing of an older run stays.
"""

from __future__ import annotations

import io
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager, redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path

import feast.infra.online_stores.sqlite  # noqa: F401 (keep_utc_in_sqlite has to come after it)
from feast import FeatureStore

from components.contracts.errors import DataError
from components.contracts.files import new_folder, sha256_file, write_manifest
from components.contracts.locks import exclusive
from components.contracts.online import (
    OFFLINE,
    ONLINE,
    REGISTRY,
    Materialized,
    keep_utc_in_sqlite,
    read_materialized,
    write_materialized,
)
from components.contracts.times import format_utc, parse_utc
from components.features import tables
from components.features.point_in_time import ibis_in_utc
from feature_repo import store as repo

PART_KEYS, PART_KEYS_WITH_BAGS = 200_000, 20_000
"""Entities materialized at a time: Feast takes a view's newest rows into memory whole, as Python objects."""
LOCK = "materialize.lock"
SCRATCH = ".materialize-"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)


@contextmanager
def writing(live: Path, project: str) -> Iterator[None]:
    """Holds the store's lock and clears what a killed run left. Raises Busy if another one is materializing."""
    live.mkdir(parents=True, exist_ok=True)
    with exclusive(live / LOCK, f"materializing the features of {project!r}"):
        for left in [*live.glob(f"{SCRATCH}*"), *(live / OFFLINE).glob(".*")]:
            shutil.rmtree(left, ignore_errors=True)
        yield


def refuse_older(live: Path, as_of: datetime) -> None:
    """Raises DataError if the store already holds features of a later as-of: online values never go back in time."""
    done = read_materialized(live)
    if done is not None and parse_utc(done.as_of) > as_of:
        raise DataError(
            f"as-of {format_utc(as_of)} is older than {done.as_of}, up to which {live} is materialized: nothing was "
            "written; choose a later as-of, or remove that folder to start over"
        )


def copy_offline(live: Path, features: Path, present: tuple[str, ...], as_of: datetime) -> tuple[Path, dict[str, int]]:
    """The tables as known at `as_of`, in a folder named by as-of and content. Returns the folder and rows by view.

    A folder of the same name holds the same rows and is used again.
    """
    root = live / OFFLINE
    root.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".copy-", dir=root) as aside:
        rows = tables.write_known(features, present, as_of, Path(aside))
        hashes = [sha256_file(Path(aside) / view / "part-0.parquet") for view in rows]
        stamp = as_of.strftime("%Y%m%dT%H%M%S%fZ")
        folder = root / f"{stamp}-{'-'.join(value[:6] for value in hashes)}"
        if not folder.exists():
            with new_folder(folder) as made:
                for view in rows:
                    (Path(aside) / view).replace(made / view)
                write_manifest(made, as_of=format_utc(as_of), rows=rows)
    return folder, rows


@contextmanager
def filled(live: Path, project: str, offline: Path, present: tuple[str, ...], as_of: datetime) -> Iterator[Path]:
    """Yields a scratch folder with registry.db and online.db, filled by Feast from `offline` up to `as_of`."""
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=live) as scratch:
        keep_utc_in_sqlite()
        with ibis_in_utc(), redirect_stdout(io.StringIO()):  # Feast prints what the caller says better
            store = repo.open_store(project, Path(scratch))
            for part, views in _parts(offline, present, Path(scratch) / "part"):
                repo.apply(store, part, views)
                store.materialize(EPOCH, as_of - TICK, feature_views=list(views))
            repo.apply(store, offline, present)
        _close(store)
        yield Path(scratch)


def _parts(offline: Path, present: tuple[str, ...], scratch: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Folders of tables to materialize one after the other: small views as they are, then each large one in parts."""
    counts = {view: tables.parts(offline, view, PART_KEYS, PART_KEYS_WITH_BAGS) for view in present}
    small = tuple(view for view in present if counts[view] == 1)
    if small:
        yield offline, small
    for view in present:
        for number in range(counts[view] if counts[view] > 1 else 0):
            tables.write_part(offline, view, number, counts[view], scratch)
            yield scratch, (view,)
            shutil.rmtree(scratch)


def publish(scratch: Path, live: Path, as_of: datetime, project: str, present: tuple[str, ...]) -> Materialized:
    """Swaps the filled store in. `materialized.json` comes last: until then a rerun does everything again."""
    counted = {view: _entities(scratch / ONLINE, project, view) for view in present}
    _swap(scratch / ONLINE, live / ONLINE, wal=True)
    _swap(scratch / REGISTRY, live / REGISTRY, wal=False)
    done = Materialized(as_of=format_utc(as_of), views=counted)
    write_materialized(live, done)
    return done


def prune(live: Path, current: Path) -> None:
    """Keeps the current offline folder and the one before it."""
    others = sorted((f for f in (live / OFFLINE).iterdir() if f != current), key=lambda f: f.stat().st_mtime)
    for old in others[:-1]:
        shutil.rmtree(old)


def _swap(new: Path, live: Path, wal: bool) -> None:
    with closing(sqlite3.connect(new)) as source, closing(sqlite3.connect(live, timeout=60)) as target:
        if wal:
            # Readers go on with the old values while the new are written.
            target.execute("PRAGMA journal_mode = WAL")
        source.backup(target)
        if wal:
            target.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _entities(online: Path, project: str, view: str) -> int:
    with closing(sqlite3.connect(online)) as db:
        table = f"{project}_{view}".replace('"', '""')
        return int(db.execute(f'SELECT count(DISTINCT entity_key) FROM "{table}"').fetchone()[0])


def _close(store: FeatureStore) -> None:
    """Feast leaves its connections to the garbage collector; the scratch files go before that."""
    store.registry.write_engine.dispose()
    connection = store._get_provider().online_store._conn
    if connection is not None:
        connection.close()
