"""Any other online store, through Feast's own `get_online_features`: slower, the same answers."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import numpy as np
from feast import FeatureStore
from feast.errors import FeastError
from sqlalchemy.exc import SQLAlchemyError

from components.contracts.errors import ServiceError
from components.contracts.online import Place
from serving.online.materialized import FileNote
from serving.online.reader import Ask, State, Trip, broken
from serving.online.rows import Block

DO = "check that the online store is up, run `esmm materialize` and restart the service"


class FeastReader:
    def __init__(self, place: Place, store: FeatureStore) -> None:
        self.where = f"{place.online_store['type']} store of {place.project!r}"
        self._store = store
        self._note = FileNote(place.folder)

    def read(self, asks: Sequence[Ask]) -> Trip:
        # Before the rows: what is materialized while they are read shows up as another token next time.
        state = self.state()
        try:
            return Trip([self._block(ask) for ask in asks], state)
        except ServiceError:
            raise
        # A store of anyone's own raises what it likes.
        except (FeastError, SQLAlchemyError, sqlite3.Error, OSError, RuntimeError, ValueError, KeyError) as error:
            raise broken(self.where, error, DO) from error

    def state(self) -> State:
        return State(*self._note.read())

    def close(self) -> None:
        """The store belongs to the registry's watch."""

    def _block(self, ask: Ask) -> Block:
        fields = ask.fields
        if not ask.keys:
            return Block.empty(fields, 0)
        response = self._store.get_online_features(
            features=[":".join(fields.stored_as(number)) for number in range(len(fields.names))],
            entity_rows=[{fields.entity: key} for key in ask.keys],
        ).proto
        found = dict(zip(response.metadata.feature_names.val, response.results, strict=True))
        stamps = np.zeros((len(fields.views), len(ask.keys)), np.int64)
        for number, name in enumerate(fields.names):
            # A status says PRESENT for a null and, on some stores, for an unknown entity; only the time tells.
            times = [stamp.seconds * 1_000_000_000 + stamp.nanos for stamp in found[name].event_timestamps]
            view = fields.view_of[number]
            stamps[view] = np.maximum(stamps[view], times)
        blobs = [[value.SerializeToString() for value in found[name].values] for name in fields.names]
        return Block.decoded(fields, stamps, blobs)
