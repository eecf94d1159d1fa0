"""Brings an online store up to an as-of from the feature tables: whole, or only what became known since the last time.

The tables are copied to local disk first, and whatever is wrong with them is found there; then the store is written,
in a way of its own for each kind; the watermark comes last (docs/adr/0006-materialization.md).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from components.contracts.config import Config
from components.contracts.errors import DataError
from components.contracts.online import Materialized, Place, ViewState
from components.contracts.times import format_utc, parse_utc
from components.features.online import staging, targets
from components.features.online.sqlite_store import Written
from components.features.online.staging import Mode, Plan, Progress
from components.features.online.targets import Target
from components.features.tables import declared


class ViewReport(Config):
    """`rows`: entities known at as-of; `written` of them were brought up, `removed` others are not in the table.

    `lag_seconds`: as-of minus `newest_event`, the latest event time; both None for a view without rows.
    """

    rows: int
    written: int
    removed: int
    mode: Mode
    lag_seconds: float | None
    newest_event: str | None
    seconds: float


class Report(Config):
    as_of: str
    views: dict[str, ViewReport]


def bring_up(
    place: Place,
    tables: Path,
    present: tuple[str, ...],
    as_of: datetime,
    *,
    full: bool = False,
    progress: Progress | None = None,
    staged: Callable[[Path], None] | None = None,
    register: bool = True,
) -> Report:
    """Brings the declared views `present` up to `as_of` from `tables`/<view>/*.parquet, and applies the registry.

    A view goes incrementally if the rows known at its last watermark are still exactly those, else whole.

    Args:
        as_of: exclusive, of both event and created time.
        full: every view whole, whatever was materialized before.
        progress: called with a view, its entities written so far, and how many there are.
        staged: called with the folder of the copied tables, after everything is checked and before it is written.
        register: False leaves the registry of an embedded store as an earlier call for the same views made it; for a
            store that is thrown away, whose registry would cost more than its rows.

    Raises:
        DataError: an as-of older than the watermark, a table that cannot be read or is not as declared; nothing was
            written. Busy: another run is materializing this project. ServiceError: a server does not answer.
    """
    with targets.opened(place, register) as target:
        before = target.materialized()
        _refuse_older(before, as_of, place)
        copied = staging.copy(place.folder, tables, present, as_of)
        plans = _plans(target, copied, present, before, full, as_of)
        if staged is not None:
            staged(copied)
        written = target.write(plans, copied, as_of, progress or (lambda view, done, total: None))
        states = {plan.view.name: _state(plan, as_of) for plan in plans}
        kept = before.views if before is not None and target.keeps_views else {}
        target.finish(Materialized(as_of=format_utc(as_of), views={**kept, **states}))
        staging.prune(place.folder, copied)
    return Report(
        as_of=format_utc(as_of), views={plan.view.name: _report(plan, written[plan.view.name], as_of) for plan in plans}
    )


def _refuse_older(before: Materialized | None, as_of: datetime, place: Place) -> None:
    """Online values never go back in time."""
    if before is not None and parse_utc(before.as_of) > as_of:
        raise DataError(
            f"as-of {format_utc(as_of)} is older than {before.as_of}, up to which {place.project!r} is materialized: "
            "nothing was written; choose a later as-of"
            + (f", or remove {place.folder} to start over" if place.redis is None else "")
        )


def _plans(
    target: Target, copied: Path, present: tuple[str, ...], before: Materialized | None, full: bool, as_of: datetime
) -> tuple[Plan, ...]:
    reached, full = target.resume(copied, as_of, full)
    states = before.views if before is not None else {}
    plans = []
    for view in declared(present):
        state = states.get(view.name)
        whole = full or state is None or not target.holds(view.name, state.rows)
        watermark = parse_utc(state.as_of) if state is not None and state.as_of else as_of
        plans.append(staging.plan(copied, view, state, whole, max(reached or watermark, watermark)))
    return tuple(plans)


def _state(plan: Plan, as_of: datetime) -> ViewState:
    newest = format_utc(plan.newest_event) if plan.newest_event is not None else None
    return ViewState(rows=plan.rows, as_of=format_utc(as_of), newest_event=newest, known=plan.known)


def _report(plan: Plan, written: Written, as_of: datetime) -> ViewReport:
    newest = plan.newest_event
    return ViewReport(
        rows=plan.rows,
        written=written.written,
        removed=written.removed,
        mode=plan.mode,
        lag_seconds=(as_of - newest).total_seconds() if newest is not None else None,
        newest_event=format_utc(newest) if newest is not None else None,
        seconds=round(written.seconds, 3),
    )
