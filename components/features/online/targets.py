"""Where features are written to: one class for each kind of online store, with the same four methods."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Protocol

from components.contracts.locks import exclusive
from components.contracts.online import OFFLINE, Materialized, Place, read_materialized, write_materialized
from components.features.online import registry, sqlite_store
from components.features.online.sqlite_store import Written
from components.features.online.staging import Plan, Progress
from feature_repo import store as repo

LOCK = "materialize.lock"
SCRATCH = ".materialize-"


class Target(Protocol):
    """An online store that is locked for this run.

    `keeps_views`: whether a view that a run does not bring stays as it was.
    """

    keeps_views: bool

    def materialized(self) -> Materialized | None:
        """What was written by the last run that came to its end."""

    def resume(self, copied: Path, as_of: datetime, full: bool) -> tuple[datetime | None, bool]:
        """Up to when runs may have written that died on the way, None without any; whether this run has to be full."""

    def holds(self, view: str, rows: int) -> bool:
        """Whether the store still has what the last run said."""

    def write(self, plans: tuple[Plan, ...], copied: Path, as_of: datetime, progress: Progress) -> dict[str, Written]:
        """Carries out the plans and applies the registry."""

    def finish(self, done: Materialized) -> None:
        """States the new watermark. Until then a rerun does everything again, or goes on where this one ended."""


@contextmanager
def opened(place: Place, register: bool = True) -> Iterator[Target]:
    """The store at `place`, locked.

    Raises:
        Busy: another run is materializing this project. ServiceError: the registry or Redis does not answer.
    """
    place.folder.mkdir(parents=True, exist_ok=True)
    with exclusive(place.folder / LOCK, f"materializing the features of {place.project!r}"):
        for left in [*place.folder.glob(f"{SCRATCH}*"), *(place.folder / OFFLINE).glob(".*")]:
            shutil.rmtree(left, ignore_errors=True)  # what a killed run left
        kind = place.online_store["type"]
        if kind == "sqlite":
            yield Embedded(place, register)
            return
        # Imported where they are used: the embedded profile does without.
        if kind == "redis":
            from components.features.online import redis_store

            with redis_store.opened(place) as redis_target:
                yield redis_target
            return
        from components.features.online import other_store

        with other_store.opened(place) as other:
            yield other


class Embedded:
    """SQLite files in the place's folder, registry and all."""

    keeps_views = False

    def __init__(self, place: Place, register: bool = True) -> None:
        self.place = place
        self.register = register

    def materialized(self) -> Materialized | None:
        return read_materialized(self.place.folder)

    def resume(self, copied: Path, as_of: datetime, full: bool) -> tuple[datetime | None, bool]:
        return None, full  # a run that dies leaves nothing

    def holds(self, view: str, rows: int) -> bool:
        return sqlite_store.holds(self.place.folder, self.place.project, view, rows)

    def write(self, plans: tuple[Plan, ...], copied: Path, as_of: datetime, progress: Progress) -> dict[str, Written]:
        project, folder = self.place.project, self.place.folder
        with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=folder) as aside:
            scratch, seconds = Path(aside), {}
            for plan in plans:
                started = time.monotonic()
                sqlite_store.stage(plan, project, scratch, _counted(progress, plan))
                seconds[plan.view.name] = time.monotonic() - started
            present = tuple(plan.view.name for plan in plans)
            if self.register:
                with registry.opened(repo.scratch(project, scratch)) as store:
                    registry.apply(store, copied, present)
                    registry.record(store, present, as_of)
            written = sqlite_store.publish(plans, project, scratch, folder)
            if self.register:
                registry.swap(scratch, folder)
        return {
            view: Written(found.written, found.removed, found.seconds + seconds[view])
            for view, found in written.items()
        }

    def finish(self, done: Materialized) -> None:
        write_materialized(self.place.folder, done)


def _counted(progress: Progress, plan: Plan) -> Callable[[int], None]:
    """Adds up what was written of a view."""
    done = 0

    def add(entities: int) -> None:
        nonlocal done
        done += entities
        progress(plan.view.name, done, plan.entities)

    return add
