"""The online side: a scratch store brought up to just after each impression, and read as the service reads it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from components.contracts import columns as c
from components.contracts.online import Place
from components.contracts.spec import FeatureSpec, raw
from components.features.online.bring_up import bring_up
from components.features.parity.lookup import Lookup, Opener
from components.features.parity.sample import Sample, moments
from components.scoring.raw import Column, Ragged

TICK = timedelta(microseconds=1)
"""An as-of is exclusive, and what was stamped or written at the impression's own time was known."""


@dataclass
class Online:
    """What was read for n impressions. `columns`: raw columns of the stored features, as the service would score them.

    `times`: by view the event time of the row that was read, None without one [n]. `expired`: by column, whether the
    service took a value for too old [n].
    """

    columns: dict[str, Column]
    times: dict[str, list[datetime | None]]
    expired: dict[str, list[bool]]
    moments: int


@dataclass
class _Read:
    columns: dict[str, Column] = field(default_factory=dict)
    times: dict[str, datetime | None] = field(default_factory=dict)
    expired: set[str] = field(default_factory=set)


def walk(sample: Sample, features: Path, spec: FeatureSpec, opened: Opener, project: str = "parity") -> Online:
    """Reads each impression from a store of its own in a temporary folder, brought up moment by moment.

    Args:
        features: the tables, cut down to the sample.

    Raises:
        DataError: a table is not as declared. ServiceError: the store does not have what the model reads.
    """
    present = tuple(view.name for view in spec.views)
    reads: dict[int, _Read] = {}
    now = [0.0]
    planned = moments(sample.seen)
    rows = sample.rows.select(list(spec.keys)).to_pylist()
    with tempfile.TemporaryDirectory(prefix="esmm-parity-") as folder:
        place = Place.of(Path(folder) / "feast", project, {})
        bring_up(place, features, present, planned[0][0] + TICK)
        with _closing(opened(place, spec, lambda: now[0])) as lookup:
            for until, numbers in planned:
                if until is not planned[0][0]:
                    bring_up(place, features, present, until + TICK, register=False)
                for number in numbers:
                    now[0] = sample.seen[number].at / 1e6
                    reads[number] = _read(lookup, rows[number], spec)
    return _together([reads[number] for number in range(len(rows))], spec, len(planned))


@contextmanager
def _closing(lookup: Lookup) -> Iterator[Lookup]:
    try:
        yield lookup
    finally:
        lookup.close()


def _read(lookup: Lookup, row: Mapping[str, Any], spec: FeatureSpec) -> _Read:
    user, items, group = row[c.USER_ID], [row[c.ITEM_ID]], row.get(c.GROUP_ID)
    found = lookup.rows(user, items, {}, group).columns
    read = _Read(columns={name: found[name] for name in raw(spec.stored)})
    for cell in lookup.inspect(user, items, group):
        read.times[cell.view] = cell.event_time
        if cell.status == "expired":
            read.expired.add(cell.feature)
    return read


def _together(reads: list[_Read], spec: FeatureSpec, moments: int) -> Online:
    names = list(raw(spec.stored))
    return Online(
        columns={name: concatenated([read.columns[name] for read in reads]) for name in names},
        times={view.name: [read.times.get(view.name) for read in reads] for view in spec.views},
        expired={name: [name in read.expired for read in reads] for name in names},
        moments=moments,
    )


def concatenated(columns: Sequence[Column]) -> Column:
    """One column of all rows, in their order."""
    ragged = [column for column in columns if isinstance(column, Ragged)]
    if not ragged:
        return np.concatenate([np.asarray(column) for column in columns])
    lengths = np.concatenate([np.diff(column.offsets) for column in ragged])
    # An empty bag's values may be of another type.
    values = [column.values for column in ragged if len(column.values)] or [ragged[0].values]
    return Ragged(np.concatenate(values), np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))
