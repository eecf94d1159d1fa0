"""Writes any other online store of Feast's through its own interface, batch by batch.

That interface adds and replaces, but takes nothing away, and how it treats a later event time is the store's own: rows
that are in the tables no more stay until their time to live is over.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from feast import FeatureStore, ValueType
from feast.utils import _convert_arrow_to_proto

from components.contracts.online import Materialized, Place, read_materialized, write_materialized
from components.features.online import registry, staging
from components.features.online.sqlite_store import Written
from components.features.online.staging import PLACE, Plan, Progress


@contextmanager
def opened(place: Place) -> Iterator[FeastTarget]:
    """Raises ServiceError if the registry does not answer."""
    with registry.opened(place) as store:
        yield FeastTarget(place, store)


class FeastTarget:
    keeps_views = True

    def __init__(self, place: Place, store: FeatureStore) -> None:
        self.place = place
        self.store = store

    def materialized(self) -> Materialized | None:
        return read_materialized(self.place.folder)

    def resume(self, copied: Path, as_of: datetime, full: bool) -> tuple[datetime | None, bool]:
        return None, full

    def holds(self, view: str, rows: int) -> bool:
        return True

    def write(self, plans: tuple[Plan, ...], copied: Path, as_of: datetime, progress: Progress) -> dict[str, Written]:
        present = tuple(plan.view.name for plan in plans)
        registry.apply(self.store, copied, present)
        written = {plan.view.name: self._bring(plan, progress) for plan in plans}
        registry.record(self.store, present, as_of)
        return written

    def finish(self, done: Materialized) -> None:
        write_materialized(self.place.folder, done)

    def _bring(self, plan: Plan, progress: Progress) -> Written:
        started, done = time.monotonic(), 0
        if plan.mode == "unchanged":
            return Written(0, 0, 0.0)
        view = self.store.registry.get_any_feature_view(plan.view.name, self.store.project)
        write = self.store._get_provider().online_store.online_write_batch
        keys = {plan.view.entity.join_key: ValueType.STRING}
        for batch in staging.batches(plan):
            rows = _convert_arrow_to_proto(batch.drop_columns([PLACE]), view, keys)
            write(self.store.config, view, rows, None)
            done += len(rows)
            progress(plan.view.name, done, plan.entities)
        return Written(done, 0, time.monotonic() - started)
