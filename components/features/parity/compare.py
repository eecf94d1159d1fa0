"""Value by value: what was retrieved offline for an impression against what online serving had then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.contracts import columns as c
from components.contracts.parity import EVENT_TIME, SCORE, Example, FeatureParity
from components.contracts.spec import Dtype, FeatureSpec, View, raw
from components.contracts.times import format_utc
from components.features.parity.online import Online
from components.features.parity.sample import Sample, instant
from components.features.parity.settings import ParitySettings
from components.scoring.raw import Column, Ragged, columns_from_table
from components.scoring.score import Scorer, Scores

SECOND = 1_000_000
MISSING = "missing"
LONGEST = 80
"""Characters of a value that an example shows."""


@dataclass(frozen=True)
class Difference:
    """A row of the table, and which impressions it is about [n]: those at the edge of their time to live."""

    found: FeatureParity
    at_expiry: NDArray[np.bool_]


def compare(
    sample: Sample, online: Online, spec: FeatureSpec, settings: ParitySettings, scorer: Scorer | None
) -> list[FeatureParity]:
    """One row a stored column, one a view's event times, and three of the scores where there is a model."""
    values = [_values(sample, online, view, name, spec, settings) for view, name in _stored(spec)]
    times = [_times(sample, online, view) for view in spec.views]
    if scorer is None:
        return [*(each.found for each in values), *times]
    at_expiry = np.logical_or.reduce([each.at_expiry for each in values])
    return [*(each.found for each in values), *times, *_scores(sample, online, scorer, settings, at_expiry)]


def _stored(spec: FeatureSpec) -> list[tuple[View, str]]:
    views = {view.name: view for view in spec.views}
    return [(views[feature.source], name) for feature in spec.stored for name in feature.raw]


def _values(
    sample: Sample, online: Online, view: View, name: str, spec: FeatureSpec, settings: ParitySettings
) -> Difference:
    dtype = raw(spec.stored)[name]
    # As Arrow has them: integers with nulls are exact there, and floats in numpy.
    offline = [canonical(value, dtype) for value in sample.rows[name].to_pylist()]
    served = [canonical(value, dtype) for value in listed(online.columns[name])]
    differs = np.array([not same(a, b, settings.tolerance) for a, b in zip(offline, served, strict=True)], np.bool_)
    edge = differs & np.array(
        [b is None and old for b, old in zip(served, online.expired[name], strict=True)], np.bool_
    )
    for number in np.flatnonzero(edge):
        edge[number] = in_last_second(sample.seen[number].at, sample.seen[number].newest.get(view.name), view)
    gaps = [_gap(a, b) for a, b in zip(offline, served, strict=True)]
    return Difference(_row(sample, name, view.name, differs & ~edge, gaps, offline, served, int(edge.sum())), edge)


def in_last_second(at: int, event: int | None, view: View) -> bool:
    """Whether a value stamped `event` is within its time to live at `at`, and would not be if stamped a whole second.

    SQLite keeps event times in whole seconds, so that the service takes a value for too old up to a second early. In
    microseconds, exact: nothing else is excused.
    """
    if event is None:
        return False
    ttl = round(view.ttl_seconds * SECOND)
    return at - event <= ttl < at - event // SECOND * SECOND


def _times(sample: Sample, online: Online, view: View) -> FeatureParity:
    """Event times: what is known offline at whole seconds, as the store keeps them, against the row that was read."""
    known = [seen.newest.get(view.name) for seen in sample.seen]
    offline = [None if event is None else instant(event // SECOND * SECOND) for event in known]
    served = online.times[view.name]
    differs = np.array([a != b for a, b in zip(offline, served, strict=True)], np.bool_)
    gaps = [
        None if a is None or b is None else abs((a - b).total_seconds()) for a, b in zip(offline, served, strict=True)
    ]
    return _row(sample, EVENT_TIME, view.name, differs, gaps, offline, served)


def _scores(
    sample: Sample, online: Online, scorer: Scorer, settings: ParitySettings, at_expiry: NDArray[np.bool_]
) -> list[FeatureParity]:
    """At the reference position, as the service scores. Rows in the last second of a time to live differ rightly."""
    names = [name for name in scorer.info.spec.raw if name != c.POSITION]
    offline = columns_from_table(sample.rows, names)
    stored = set(raw(scorer.info.spec.stored))
    served = {name: online.columns[name] if name in stored else column for name, column in offline.items()}
    # Both in one batch of the same shape: equal rows give equal bits.
    one, other = scorer.score(offline), scorer.score(served)
    return [_score(sample, name, one, other, settings, at_expiry) for name in ("pctr", "pcvr", "pctcvr")]


def _score(
    sample: Sample, name: str, offline: Scores, served: Scores, settings: ParitySettings, at_expiry: NDArray[np.bool_]
) -> FeatureParity:
    a, b = getattr(offline, name), getattr(served, name)
    # Written so that a NaN is a difference.
    differs = ~(np.abs(a - b) <= settings.score_tolerance)
    gaps = [float(gap) if np.isfinite(gap) else None for gap in np.abs(a - b)]
    edge = int((differs & at_expiry).sum())
    return _row(sample, name, SCORE, differs & ~at_expiry, gaps, a.tolist(), b.tolist(), edge)


def _row(
    sample: Sample,
    feature: str,
    view: str,
    differs: NDArray[np.bool_],
    gaps: Sequence[float | None],
    offline: Sequence[Any],
    served: Sequence[Any],
    at_expiry: int = 0,
) -> FeatureParity:
    numbers = np.flatnonzero(differs).tolist()
    found = [gap for number in numbers if (gap := gaps[number]) is not None]
    example = None
    if numbers:
        first = numbers[0]
        example = Example(
            impression_id=sample.rows[c.IMPRESSION_ID][first].as_py(),
            at=format_utc(instant(sample.seen[first].at)),
            offline=shown(offline[first]),
            online=shown(served[first]),
        )
    return FeatureParity(
        feature=feature,
        view=view,
        checked=len(differs),
        differing=len(numbers),
        share=round(len(numbers) / max(len(differs), 1), 6),
        at_expiry=at_expiry,
        largest=max(found, default=None),
        example=example,
    )


def canonical(value: Any, dtype: Dtype) -> Any:
    """A value as both sides have it; None if it is missing: null, NaN or an empty list.

    Integers and booleans beside nulls may arrive as floats.
    """
    if value is None or (isinstance(value, (float, np.floating)) and np.isnan(value)):
        return None
    if dtype in ("strings", "floats"):
        return [canonical(entry, "string" if dtype == "strings" else "float") for entry in value] or None
    if dtype == "int" and float(value).is_integer():
        return int(value)
    if dtype == "bool" and value in (0, 1):
        return bool(value)
    return float(value) if dtype == "float" else value


def listed(column: Column) -> list[Any]:
    """[rows] as Python has them; of bags a list each."""
    if not isinstance(column, Ragged):
        return list(column.tolist())
    values = column.values.tolist()
    return [values[start:end] for start, end in pairwise(column.offsets.tolist())]


def same(a: Any, b: Any, tolerance: float) -> bool:
    """Lists have to agree entry by entry, in order."""
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(same(x, y, tolerance) for x, y in zip(a, b, strict=True))
    gap = _gap(a, b)
    return bool(a == b) if gap is None else gap <= tolerance


def _gap(a: Any, b: Any) -> float | None:
    """Difference of two finite numbers; of two lists of numbers the largest. None for anything else."""
    if isinstance(a, list) and isinstance(b, list):
        gaps = [_gap(x, y) for x, y in zip(a, b, strict=False)]
        return max((gap for gap in gaps if gap is not None), default=None)
    if isinstance(a, (int, float)) and isinstance(b, (int, float)) and not {type(a), type(b)} & {bool}:
        gap = abs(a - b)
        return float(gap) if np.isfinite(gap) else None
    return None


def shown(value: Any) -> str:
    if value is None:
        return MISSING
    text = format_utc(value) if isinstance(value, datetime) else repr(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."
