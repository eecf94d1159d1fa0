"""Raw logs -> attributed, mature, split impressions; feature tables cut at as-of.

What happens to a row depends on its time and on its user, never on its label:

    invisible   event_timestamp >= as-of (a row without a time: its partition's day)         counted, not written
    immature    event_timestamp + click window + conversion window > as-of (a row whose time is null or outside its
                partition's day: that day's end)                                             counted, not written
    train, gap, valid, test   by time (M = as-of - windows, the end of mature time):
                test [M - test_days, M], valid the valid_days before, gap one label window before that, train the rest
                by hash: md5 of seed and user_id, so that a user is in one split only, on any machine
                as published: test from `test_from` on; before it md5 of seed and user_id says train or valid, no gap
    gap         also: rows that no rule can place, such as a null time; validation quarantines them

Attribution: a click counts if it came no later than the click window after the impression, a conversion if it came no
later than the conversion window after its click and before as-of. Later ones become 0, their times null. Nothing else
is repaired: what contradicts itself (a conversion without click, a click before its impression) goes on as it is,
for validation to see. How complete the labels are goes into the manifest under `maturity`, what the importer said of
its source under `imported`.
"""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from components.contracts import columns as c
from components.contracts import duck
from components.contracts.artifacts import Ranges, Rows
from components.contracts.config import Config
from components.contracts.dataset import (
    FEATURES,
    LOG,
    DatasetInfo,
    SplitConfig,
    data_fingerprint,
    read_imported,
    read_info,
    view_names,
)
from components.contracts.errors import DataError
from components.contracts.files import write_manifest
from components.contracts.quality import MATURITY, Maturity
from components.contracts.times import format_utc, parse_utc
from components.ingestion.maturity import maturity
from components.ingestion.readable import rows_of
from components.ingestion.splits import TICK, can_be_placed, split_ranges, split_sql

_JUDGED = ("late_click", "late_conversion", "known_late_click", "known_late_conversion", "fate", "kept")
_PARTITION = re.compile(r"dt=(\d{4}-\d{2}-\d{2})")


class IngestConfig(Config):
    """`data` is a dataset folder, `fingerprint` its data_fingerprint when the run was planned, `as_of` ISO-8601."""

    data: str
    fingerprint: str
    as_of: str
    split: SplitConfig
    code: str = ""


def run(config: IngestConfig, impressions: Path, features: Path) -> dict[str, Any]:
    """Writes and seals the artifacts `impressions` and `features` (contracts/artifacts.py).

    A log that lacks a required column, or has it with another type, goes through with what can be done: it is
    validation that closes the gate and says why.

    Returns:
        Facts: rows by fate, ranges of the splits, late clicks and conversions turned negative, views.

    Raises:
        DataError: if the folder is no dataset, has changed since the run was planned, has a feature table without
            entity or event_timestamp, or leaves no rows for train, validation or test.
        UsageError: if as-of is no time or the split's shares or days cannot be.
    """
    folder = Path(config.data)
    info = read_info(folder)
    as_of = parse_utc(config.as_of, "as-of")
    if data_fingerprint(folder, as_of) != config.fingerprint:
        raise DataError(f"{folder} changed since the run was planned: start the run again")
    ranges = split_ranges(first_event(folder), info, config.split, as_of)
    for path in (impressions, features):
        shutil.rmtree(path, ignore_errors=True)  # what an interrupted attempt left
        path.mkdir(parents=True)
    rows, complete = _write_impressions(folder, info, config.split, ranges, as_of, impressions)
    counted = _write_features(folder, as_of, features)
    sealed = {"info": info.model_dump(mode="json"), "views": list(counted), "as_of": format_utc(as_of)}
    known: dict[str, Any] = {MATURITY: complete.model_dump(mode="json")}
    if (imported := read_imported(folder)) is not None:
        known["imported"] = imported.model_dump(mode="json")
    placed = {"rows": rows.model_dump(), "ranges": ranges.model_dump(mode="json")}
    write_manifest(impressions, **placed, **known, **sealed)
    write_manifest(features, rows=counted, **sealed)
    return {
        **placed,
        "late_clicks": complete.late_clicks,
        "late_conversions": complete.late_conversions,
        "maturity": _short(complete),
        "views": counted,
        "as_of": format_utc(as_of),
    }


def first_event(folder: Path) -> datetime:
    """Time of the first logged impression whose time agrees with its partition (see `last_event`)."""
    return _bounds(folder)[0]


def last_event(folder: Path) -> datetime:
    """Time of the last logged impression whose time falls on its partition's date, so that no broken clock sets it.

    Where no time can be read (column missing or of another type): the end of the last partition's day.

    Raises:
        DataError: if `folder` is no dataset or a partition is not named dt=YYYY-MM-DD.
    """
    return _bounds(folder)[1]


def default_as_of(folder: Path) -> str:
    """ISO-8601, one microsecond after the last logged impression: as-of is exclusive."""
    return format_utc(last_event(folder) + TICK)


def _write_impressions(
    folder: Path, info: DatasetInfo, split: SplitConfig, ranges: Ranges, as_of: datetime, out: Path
) -> tuple[Rows, Maturity]:
    with duck.connect() as db:
        source = duck.parquet(_files(folder), partitioned=True)
        have = duck.types(db, source)
        db.execute(f"CREATE VIEW placed AS {_placed(source, have, info, split_sql(have, ranges, split), as_of)}")
        fates = dict(db.execute("SELECT fate, count(*) FROM placed GROUP BY fate").fetchall())
        late = db.execute(
            "SELECT count_if(known_late_click), count_if(known_late_conversion) FROM placed WHERE kept"
        ).fetchone()
        rows = Rows(total=sum(fates.values()), **fates)
        if can_be_placed(have, ranges):
            _check_splits(folder, rows)
        order = [column for column in (c.EVENT_TIMESTAMP, *c.IDS) if column in have]
        kept = db.execute("SELECT DISTINCT dt FROM placed WHERE kept ORDER BY dt").fetchall()
        for (day,) in kept:  # a day at a time bounds what is sorted
            part = out / f"{c.PARTITION}={day}"
            part.mkdir()
            db.execute(
                f"COPY (SELECT * EXCLUDE ({', '.join(_JUDGED)}, dt), fate AS {c.SPLIT} FROM placed "
                f"WHERE kept AND dt = {duck.text(day)} ORDER BY {', '.join(order) or '1'}) "
                f"TO {duck.text(part / 'part-0.parquet')} (FORMAT parquet, COMPRESSION snappy)"
            )
        complete = maturity(db, info, _timed(have) and _labels_readable(have), as_of, late)
    return rows, complete


def _placed(source: str, have: dict[str, str], info: DatasetInfo, split: str, as_of: datetime) -> str:
    """The log with labels attributed, and the columns _JUDGED: fate is `split`'s SQL, or why there is no split."""
    event = duck.name(c.EVENT_TIMESTAMP)
    timed = _timed(have)
    window = f"to_microseconds({round(info.label_window_seconds * 1e6)})"
    late_click, late_conversion, known, replaced = "false", "false", ("false", "false"), ""
    if info.has_label_times and timed and _labels_readable(have):
        late_click = f"""coalesce({c.CLICK} = 1 AND {c.CLICK_TIMESTAMP}
            > {event} + to_microseconds({round(info.click_window_seconds * 1e6)}), false)"""
        late_conversion = f"""coalesce({c.CONVERSION} = 1 AND ({late_click}
            OR coalesce({c.CONVERSION_TIMESTAMP}
                > {c.CLICK_TIMESTAMP} + to_microseconds({round(info.conversion_window_seconds * 1e6)}), false)
            OR coalesce({c.CONVERSION_TIMESTAMP} >= {duck.instant(as_of)}, false)), false)"""
        pairs = (
            (c.CLICK, "late_click", f"0::{have[c.CLICK]}"),
            (c.CLICK_TIMESTAMP, "late_click", "NULL"),
            (c.CONVERSION, "late_conversion", f"0::{have[c.CONVERSION]}"),
            (c.CONVERSION_TIMESTAMP, "late_conversion", "NULL"),
        )
        replaced = ", ".join(f"CASE WHEN {late} THEN {value} ELSE {name} END AS {name}" for name, late, value in pairs)
        replaced = f"REPLACE ({replaced})"
        # What is late and after as-of is a negative too, but nobody knows of it yet.
        now = duck.instant(as_of)
        known = (
            f"late_click AND {c.CLICK_TIMESTAMP} < {now}",
            f"late_conversion AND coalesce({c.CONVERSION_TIMESTAMP} < {now}, true)",
        )
    visible = (
        f"coalesce({event}, dt::DATE::TIMESTAMP AT TIME ZONE 'UTC')"
        if timed
        else "dt::DATE::TIMESTAMP AT TIME ZONE 'UTC'"
    )
    # A row without a time, or with one outside its partition's day, matures with the last of that day's rows: earlier,
    # it would face a day that is only begun and make a large share of it.
    own_day = f"strftime({event}, '%Y-%m-%d') = dt"
    day_end = "(dt::DATE + 1)::TIMESTAMP AT TIME ZONE 'UTC'"
    waits = timed and info.label_window_seconds > 0
    mature = (
        f"CASE WHEN {own_day} THEN {event} ELSE {day_end} END + {window} <= {duck.instant(as_of)}" if waits else "true"
    )
    return f"""
        WITH judged AS (
            SELECT *, {late_click} AS late_click, {late_conversion} AS late_conversion,
                CASE WHEN {visible} >= {duck.instant(as_of)} THEN 'invisible' WHEN NOT {mature} THEN 'immature'
                    ELSE {split} END AS fate
            FROM {source})
        SELECT * {replaced}, {known[0]} AS known_late_click, {known[1]} AS known_late_conversion,
            fate NOT IN ('invisible', 'immature') AS kept
        FROM judged"""


def _timed(have: dict[str, str]) -> bool:
    return have.get(c.EVENT_TIMESTAMP) == duck.TIME


def _labels_readable(have: dict[str, str]) -> bool:
    return all(have.get(label) in duck.INTEGERS for label in c.LABELS) and all(
        have.get(time) == duck.TIME for time in c.LABEL_TIMESTAMPS
    )


def _check_splits(folder: Path, rows: Rows) -> None:
    empty = [split for split in c.SPLITS if not getattr(rows, split)]
    if empty:
        raise DataError(
            f"{folder}: no impression falls into {', '.join(empty)} (of {rows.total} rows {rows.invisible} are not "
            f"before as-of and {rows.immature} immature): bring more days or users, choose a later --as-of, or "
            "set other split sizes"
        )


def _write_features(folder: Path, as_of: datetime, out: Path) -> dict[str, int]:
    """Rows known before as-of, of each view."""
    counted = {}
    with duck.connect() as db:
        for view in view_names(folder):
            files = sorted((folder / FEATURES / view).glob("*.parquet"))
            rows_of(files)
            source = duck.parquet(files)
            have = duck.types(db, source)
            entity = next((column for column in (c.GROUP_ID, c.USER_ID, c.ITEM_ID) if column in have), None)
            if entity is None or {have.get(c.EVENT_TIMESTAMP), have.get(c.CREATED_TIMESTAMP)} != {duck.TIME}:
                found = ", ".join(f"{column} {kind}" for column, kind in have.items())
                raise DataError(
                    f"feature table {folder / FEATURES / view} needs user_id, item_id or group_id, and event_timestamp "
                    f"and created as UTC timestamps (it has {found}): import it again"
                )
            path = out / view / "part-0.parquet"
            path.parent.mkdir()
            known = duck.known_before(as_of)
            counted[view] = db.execute(
                f"COPY (SELECT * FROM {source} WHERE {known} ORDER BY {c.EVENT_TIMESTAMP}, {entity}, "
                f"{c.CREATED_TIMESTAMP}) TO {duck.text(path)} (FORMAT parquet, COMPRESSION snappy)"
            ).fetchone()[0]
    return counted


def _files(folder: Path) -> list[Path]:
    """The log's files in order, each whole and in a partition that is a date."""
    files = sorted((folder / LOG).glob("dt=*/*.parquet"))
    for file in files:
        match = _PARTITION.fullmatch(file.parent.name)
        try:
            datetime.fromisoformat(match[1] if match else "")
        except ValueError:
            raise DataError(f"{file.parent} is no partition of a day: name it dt=YYYY-MM-DD") from None
    rows_of(files)
    return files


def _bounds(folder: Path) -> tuple[datetime, datetime]:
    read_info(folder)
    files = _files(folder)
    with duck.connect() as db:
        source = duck.parquet(files, partitioned=True)
        if _timed(duck.types(db, source)):
            found = db.execute(
                f"SELECT min({c.EVENT_TIMESTAMP}), max({c.EVENT_TIMESTAMP}) FROM {source} "
                f"WHERE {c.EVENT_TIMESTAMP}::DATE = dt::DATE"
            ).fetchone()
            if found[0] is not None:
                return found[0].astimezone(UTC), found[1].astimezone(UTC)
    days = [datetime.fromisoformat(file.parent.name.removeprefix("dt=")).replace(tzinfo=UTC) for file in files]
    return min(days), max(days) + timedelta(days=1) - TICK


def _short(complete: Maturity) -> dict[str, Any]:
    """The line of the run record; all of it is in the manifest."""
    return {
        "immature": sum(day.immature for day in complete.days),
        "conversions": sum(day.conversions for day in complete.days),
        "to_come": round(sum(day.to_come for day in complete.days), 1),
        "share_to_come": complete.share_to_come,
        "basis": complete.basis,
    }
