"""What every import of a user's own logs has in common: options, checks, and the folder that is written."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from components.contracts import columns as c
from components.contracts import duck
from components.contracts.dataset import (
    LOG,
    REFUSED,
    DatasetInfo,
    Imported,
    SplitConfig,
    write_imported,
    write_info,
)
from components.contracts.errors import DataError, UsageError
from components.contracts.files import new_folder
from components.contracts.spec import Dtype, check_name
from components.ingestion.sources.byte_chunks import Progress
from components.ingestion.sources.convert import Clock, Epoch, check_timezone
from components.ingestion.sources.refused import Refused
from components.ingestion.sources.views import ViewTable, check_unique, read_view, write_view

RECIPE = "own"
CLICK_WINDOW_SECONDS = 3600.0
CONVERSION_WINDOW_SECONDS = 86400.0
_EARLIEST = 2000
"""A log that ends before this year was not counted in the unit that --epoch says."""


@dataclass(frozen=True)
class ImportOptions:
    """How a user's own logs become the dataset folder `out`.

    Attributes:
        name: of the dataset; also of its Feast project and registered model, so lower case letters, digits and _.
        context: columns logged with the impression and sent with a request; their type, or None for that of the file
            (a CSV column's is found from its values).
        item_context: those of them whose value belongs to the item, not to the whole request.
        features: view name -> Parquet file or folder with user_id, item_id or group_id, event_timestamp, optionally
            created (event_timestamp where absent), and the view's fields.
        click_window_seconds, conversion_window_seconds: for logs with click and conversion times; an hour and a day
            where not given. Without times labels are taken as final and there are no windows.
        split: how to divide; by default in time if the log is long enough, else by a hash of the user.
        clock: `frozen` for a recording, whose features do not age while the service runs.
        timezone: of times that carry none; UTC where not given.
        epoch: what integer time columns count from 1970; they are refused where it is not given.
        progress: called with the bytes of CSV files that were read since the last call.
    """

    out: Path
    name: str
    context: Mapping[str, Dtype | None] = field(default_factory=dict)
    item_context: tuple[str, ...] = ()
    features: Mapping[str, Path] = field(default_factory=dict)
    click_window_seconds: float | None = None
    conversion_window_seconds: float | None = None
    split: SplitConfig | None = None
    id_features: tuple[str, ...] = (c.USER_ID, c.ITEM_ID)
    clock: Literal["wall", "frozen"] = "frozen"
    timezone: str = ""
    epoch: Epoch | None = None
    progress: Progress | None = None


@dataclass
class Work:
    """An import under way. `staging` is emptied before the folder is shown."""

    db: Any
    options: ImportOptions
    folder: Path
    staging: Path
    refused: Refused
    clock: Clock
    notes: list[str]
    lines: int = 0
    views: dict[str, ViewTable] = field(default_factory=dict)


@contextmanager
def importing(options: ImportOptions) -> Iterator[Work]:
    """A folder to fill, all or nothing.

    Raises:
        UsageError: an option that cannot be. FeatureSpecError: a name that is reserved.
        DataError: `out` is not empty, or a file cannot be read.
    """
    _check(options)
    with duck.connect() as db:
        if options.timezone:
            check_timezone(db, options.timezone)
        with new_folder(options.out) as folder:
            notes: list[str] = []
            clock = Clock(options.timezone or "UTC", options.epoch, bool(options.timezone), notes)
            staging = folder / ".staging"
            staging.mkdir()
            work = Work(db, options, folder, staging, Refused(folder / REFUSED), clock, notes)
            yield work
            shutil.rmtree(staging)


def check_dataset_name(name: str) -> None:
    """Raises UsageError for a name that a Feast project or a registered model cannot have."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name):
        raise UsageError(f"dataset name {name!r}: use lower case letters, digits and _, beginning with a letter")


def _check(options: ImportOptions) -> None:
    check_dataset_name(options.name)
    for column in options.context:
        check_name(column)
        if column in c.IDS:
            raise UsageError(f"context column {column!r} is an id: leave it out of --context, ids are features already")
    for view in options.features:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", view):
            raise UsageError(f"view name {view!r}: use lower case letters, digits and _, beginning with a letter")
    if not set(options.item_context) <= set(options.context):
        raise UsageError(f"item context {', '.join(options.item_context)} must be among the context columns")
    if not set(options.id_features) <= {c.USER_ID, c.ITEM_ID}:
        raise UsageError(f"id features {', '.join(options.id_features)}: only user_id and item_id can be")


def check_mapping(mapping: Mapping[str, str], known: Sequence[str], context: Mapping[str, Any], option: str) -> None:
    """Raises UsageError for a mapping of a column that the file is not asked for."""
    for canonical in mapping:
        if canonical not in known and canonical not in context:
            columns = f"{', '.join(known)} or a context column" if context else ", ".join(known)
            raise UsageError(f"{option} {canonical}=...: no such column; map one of {columns}")


def label_windows(options: ImportOptions, has_label_times: bool, notes: list[str]) -> tuple[float, float]:
    """Seconds in which a click and a conversion count; zero without label times.

    Raises:
        UsageError: a window without times, or none above zero with them.
    """
    click, conversion = options.click_window_seconds, options.conversion_window_seconds
    if not has_label_times:
        if click or conversion:
            raise UsageError(
                "a click or conversion window needs the times of clicks and conversions: map click_timestamp and "
                "conversion_timestamp, or give no window"
            )
        return 0.0, 0.0
    if click is None or conversion is None:
        click = CLICK_WINDOW_SECONDS if click is None else click
        conversion = CONVERSION_WINDOW_SECONDS if conversion is None else conversion
        notes.append(
            f"Windows not given: clicks count for {click:g} s after their impression, conversions for {conversion:g} s "
            "after their click."
        )
    if click <= 0 or conversion <= 0:
        raise UsageError(
            "the log has click and conversion times, so it needs a click window and a conversion window above 0 "
            "seconds: say how long after an impression a click counts, and after a click a conversion"
        )
    return float(click), float(conversion)


def look_at_views(work: Work, context: dict[str, Dtype], mapping: Mapping[str, str]) -> None:
    """Before anything long is done. Their entity and time may have the log's names (`mapping`).

    Raises:
        DataError, UsageError: a view that cannot be read or has a name that another or the context has.
    """
    for view, path in work.options.features.items():
        work.views[view] = read_view(work.db, view, path, work.clock, mapping)
    check_unique(context, {view: found.fields for view, found in work.views.items()})


def finish(
    work: Work,
    context: dict[str, Dtype],
    windows: tuple[float, float],
    has_label_times: bool,
    first: datetime,
    last: datetime,
) -> dict[str, Any]:
    """Writes views, import.json and dataset.json once the log is written. Returns the facts all imports share.

    Raises:
        DataError: if the last event shows that --epoch names another unit than the times'.
    """
    options, notes = work.options, work.notes
    if options.epoch and last.year < _EARLIEST:
        raise DataError(
            f"with --epoch {options.epoch} the last impression was on {last:%Y-%m-%d}: is that what the times count?"
        )
    split = options.split or _choose_split(first, last, sum(windows), notes)
    counts = {view: write_view(work.db, view, found, work.folder, notes) for view, found in work.views.items()}
    work.refused.close()
    refused = dict(sorted(work.refused.counts.items()))
    if refused:
        notes.append(
            f"{sum(refused.values())} of {work.lines} lines could not be read and lie in {REFUSED}/ (first: "
            f"{work.refused.example}): {', '.join(f'{reason} {count}' for reason, count in refused.items())}."
        )
    if work.refused.truncated:
        notes.append(f"Cut short, so nobody knows what is lost: {', '.join(work.refused.truncated)}.")
    write_imported(
        work.folder,
        Imported(lines=work.lines, refused=refused, truncated=tuple(work.refused.truncated), notes=tuple(notes)),
    )
    write_info(
        work.folder,
        DatasetInfo(
            name=options.name,
            source="tables",
            context=context,
            item_context=options.item_context,
            click_window_seconds=windows[0],
            conversion_window_seconds=windows[1],
            has_label_times=has_label_times,
            split=split,
            id_features=options.id_features,
            recipe=RECIPE,
            clock=options.clock,
        ),
    )
    return {
        "days": len(list((work.folder / LOG).glob("dt=*"))),
        "context": context,
        "views": counts,
        "split": split.kind,
        "has_label_times": has_label_times,
        "refused": refused,
        "notes": notes,
    }


def _choose_split(first: datetime, last: datetime, window: float, notes: list[str]) -> SplitConfig:
    """In time if training keeps at least as long as validation and test together, else by hash."""
    split = SplitConfig()
    held_out = split.valid_days + split.test_days
    needed = timedelta(days=2 * held_out, seconds=2 * window)
    if last - first >= needed:
        notes.append(f"Split in time: the last {split.test_days:g} mature days test, {split.valid_days:g} validate.")
        return split
    notes.append(
        f"Split by a hash of the user: the log covers {(last - first) / timedelta(days=1):.1f} days, and a split in "
        f"time needs {needed / timedelta(days=1):.1f}."
    )
    return SplitConfig(kind="hash")
