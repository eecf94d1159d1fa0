"""Raw logs -> attributed, mature, split impressions; feature tables cut at as-of.

What happens to a row depends on its time and on its user, never on its label:

    invisible   event_timestamp >= as-of (a row without a time: its partition's day)         counted, not written
    immature    event_timestamp + click window + conversion window > as-of (a row whose time is null or outside its
                partition's day: that day's end)                                             counted, not written
    train, gap, valid, test   by time (M = as-of - windows, the end of mature time):
                test [M - test_days, M], valid the valid_days before, gap one label window before that, train the rest
                by hash: md5 of seed and user_id, so that a user is in one split only, on any machine
    gap         also: rows that no rule can place, such as a null time; validation quarantines them

Attribution: a click counts if it came no later than the click window after the impression, a conversion if it came no
later than the conversion window after its click and before as-of. Later ones become 0, their times null. Nothing else
is repaired: what contradicts itself (a conversion without click, a click before its impression) goes on as it is,
for validation to see.
"""

from __future__ import annotations

import re
import shutil
from datetime import UTC, datetime, timedelta
from decimal import Decimal
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
    read_info,
    view_names,
)
from components.contracts.errors import DataError, UsageError
from components.contracts.files import write_manifest
from components.contracts.times import format_utc, parse_utc

_TICK = timedelta(microseconds=1)
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
    if data_fingerprint(folder) != config.fingerprint:
        raise DataError(f"{folder} changed since the run was planned: start the run again")
    ranges = split_ranges(folder, info, config.split, as_of)
    for path in (impressions, features):
        shutil.rmtree(path, ignore_errors=True)  # what an interrupted attempt left
        path.mkdir(parents=True)
    facts = _write_impressions(folder, info, ranges, as_of, impressions)
    counted = _write_features(folder, as_of, features)
    sealed = {"info": info.model_dump(mode="json"), "views": list(counted), "as_of": format_utc(as_of)}
    write_manifest(impressions, rows=facts["rows"], ranges=ranges.model_dump(mode="json"), **sealed)
    write_manifest(features, rows=counted, **sealed)
    return {**facts, "ranges": ranges.model_dump(mode="json"), "views": counted, "as_of": format_utc(as_of)}


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
    return format_utc(last_event(folder) + _TICK)


def split_ranges(folder: Path, info: DatasetInfo, split: SplitConfig, as_of: datetime) -> Ranges:
    """Half-open bounds of the splits. The end of test is a microsecond after the last instant that is mature.

    Raises:
        DataError: if as-of is not after the first event, or the log is too short to be split.
        UsageError: if days are not positive, or shares leave no training users.
    """
    first = first_event(folder)
    if as_of <= first:
        raise DataError(
            f"as-of {format_utc(as_of)} is not after the first logged event {format_utc(first)}: choose a later --as-of"
        )
    if split.kind == "hash":
        valid, test = Decimal(str(split.valid_share)), Decimal(str(split.test_share))
        if valid <= 0 or test <= 0 or valid + test >= 1:
            raise UsageError(
                f"split shares valid {valid} and test {test} must be above 0 and leave training users: "
                "set them so that their sum is below 1"
            )
        edges = [format(edge.normalize(), "f") for edge in (Decimal(0), 1 - valid - test, 1 - test, Decimal(1))]
        return Ranges(
            kind="hash",
            train=(edges[0], edges[1]),
            valid=(edges[1], edges[2]),
            test=(edges[2], edges[3]),
            seed=split.seed,
        )
    if split.valid_days <= 0 or split.test_days <= 0:
        raise UsageError(f"valid_days {split.valid_days} and test_days {split.test_days} must be above 0")
    window = timedelta(seconds=info.label_window_seconds)
    mature = as_of - window
    test_start = mature - timedelta(days=split.test_days)
    valid_start = test_start - timedelta(days=split.valid_days)
    train_end = valid_start - window
    if train_end <= first:
        needed = 2 * window + timedelta(days=split.test_days + split.valid_days)
        raise DataError(
            f"the log covers {format_utc(first)} to as-of {format_utc(as_of)}, but {split.test_days:g} test days, "
            f"{split.valid_days:g} validation days and two label windows take {_days(needed)} before any training day: "
            "bring more days, set fewer test and validation days, or split by hash"
        )
    end = mature + _TICK if window else mature
    return Ranges(
        kind="time",
        train=(format_utc(first), format_utc(train_end)),
        valid=(format_utc(valid_start), format_utc(test_start)),
        test=(format_utc(test_start), format_utc(end)),
        seed=split.seed,
    )


def _write_impressions(folder: Path, info: DatasetInfo, ranges: Ranges, as_of: datetime, out: Path) -> dict[str, Any]:
    days = _partitions(folder)
    with duck.connect() as db:
        source = duck.parquet([file for files in days.values() for file in files], partitioned=True)
        have = duck.types(db, source)
        db.execute(f"CREATE VIEW placed AS {_placed(source, have, info, ranges, as_of)}")
        fates = dict(db.execute("SELECT fate, count(*) FROM placed GROUP BY fate").fetchall())
        late = db.execute("SELECT count_if(late_click), count_if(late_conversion) FROM placed WHERE kept").fetchone()
        rows = Rows(total=sum(fates.values()), **fates)
        if _can_be_placed(have, ranges):
            _check_splits(folder, rows)
        order = [column for column in (c.EVENT_TIMESTAMP, *c.IDS) if column in have]
        kept = db.execute("SELECT DISTINCT dt FROM placed WHERE kept ORDER BY dt").fetchall()
        for (day,) in kept:  # a day at a time bounds what is sorted
            part = out / f"{c.PARTITION}={day}"
            part.mkdir()
            db.execute(
                f"COPY (SELECT * EXCLUDE (fate, kept, late_click, late_conversion, dt), fate AS {c.SPLIT} FROM placed "
                f"WHERE kept AND dt = {duck.text(day)} ORDER BY {', '.join(order) or '1'}) "
                f"TO {duck.text(part / 'part-0.parquet')} (FORMAT parquet, COMPRESSION snappy)"
            )
    return {"rows": rows.model_dump(), "late_clicks": late[0], "late_conversions": late[1]}


def _placed(source: str, have: dict[str, str], info: DatasetInfo, ranges: Ranges, as_of: datetime) -> str:
    """The log with labels attributed, + late_click, late_conversion, fate (split or why not) and kept."""
    event = duck.name(c.EVENT_TIMESTAMP)
    timed = have.get(c.EVENT_TIMESTAMP) == duck.TIME
    window = f"to_microseconds({round(info.label_window_seconds * 1e6)})"
    late_click, late_conversion, replaced = "false", "false", ""
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
                    ELSE {_split(have, ranges)} END AS fate
            FROM {source})
        SELECT * {replaced}, fate NOT IN ('invisible', 'immature') AS kept FROM judged"""


def _split(have: dict[str, str], ranges: Ranges) -> str:
    """SQL for the split of a visible, mature row; `gap` where no rule can place it."""
    if not _can_be_placed(have, ranges):
        return f"'{c.GAP}'"
    parts = (ranges.train, c.TRAIN), (ranges.valid, c.VALID), (ranges.test, c.TEST)
    if ranges.kind == "hash":
        # 52 bits of md5: a uniform number that any machine, language and version computes alike.
        digits = f"substr(md5('{ranges.seed}:' || {duck.name(c.USER_ID)}), 1, 13)"
        place, bounds = f"(('0x' || {digits})::BIGINT / {2**52}::DOUBLE)", [(*r, s) for r, s in parts]
    else:
        # Training reaches back without end: a clock that is wrong by years is for validation to notice.
        place = duck.name(c.EVENT_TIMESTAMP)
        bounds = [(duck.instant(parse_utc(r[0])), duck.instant(parse_utc(r[1])), s) for r, s in parts]
        bounds[0] = ("'-infinity'::TIMESTAMPTZ", *bounds[0][1:])
    cases = " ".join(f"WHEN {place} >= {low} AND {place} < {high} THEN '{split}'" for low, high, split in bounds)
    return f"CASE {cases} ELSE '{c.GAP}' END"


def _can_be_placed(have: dict[str, str], ranges: Ranges) -> bool:
    if ranges.kind == "hash":
        return have.get(c.USER_ID) == "VARCHAR"
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
            source = duck.parquet(sorted((folder / FEATURES / view).glob("*.parquet")))
            have = duck.types(db, source)
            entity = next((column for column in (c.USER_ID, c.ITEM_ID) if column in have), None)
            if entity is None or {have.get(c.EVENT_TIMESTAMP), have.get(c.CREATED_TIMESTAMP)} != {duck.TIME}:
                found = ", ".join(f"{column} {kind}" for column, kind in have.items())
                raise DataError(
                    f"feature table {folder / FEATURES / view} needs user_id or item_id, and event_timestamp and "
                    f"created as UTC timestamps (it has {found}): import it again"
                )
            path = out / view / "part-0.parquet"
            path.parent.mkdir()
            known = duck.known_before(as_of)
            counted[view] = db.execute(
                f"COPY (SELECT * FROM {source} WHERE {known} ORDER BY {c.EVENT_TIMESTAMP}, {entity}, "
                f"{c.CREATED_TIMESTAMP}) TO {duck.text(path)} (FORMAT parquet, COMPRESSION snappy)"
            ).fetchone()[0]
    return counted


def _partitions(folder: Path) -> dict[str, list[Path]]:
    """Date -> its files, both in order."""
    days: dict[str, list[Path]] = {}
    for file in sorted((folder / LOG).glob("dt=*/*.parquet")):
        match = _PARTITION.fullmatch(file.parent.name)
        try:
            datetime.fromisoformat(match[1] if match else "")
        except ValueError:
            raise DataError(f"{file.parent} is no partition of a day: name it dt=YYYY-MM-DD") from None
        days.setdefault(file.parent.name.removeprefix("dt="), []).append(file)
    return days


def _bounds(folder: Path) -> tuple[datetime, datetime]:
    read_info(folder)
    days = _partitions(folder)
    midnights = [datetime.fromisoformat(day).replace(tzinfo=UTC) for day in days]
    with duck.connect() as db:
        source = duck.parquet([file for files in days.values() for file in files], partitioned=True)
        if duck.types(db, source).get(c.EVENT_TIMESTAMP) == duck.TIME:
            found = db.execute(
                f"SELECT min({c.EVENT_TIMESTAMP}), max({c.EVENT_TIMESTAMP}) FROM {source} "
                f"WHERE {c.EVENT_TIMESTAMP}::DATE = dt::DATE"
            ).fetchone()
            if found[0] is not None:
                return found[0].astimezone(UTC), found[1].astimezone(UTC)
    return midnights[0], midnights[-1] + timedelta(days=1) - _TICK


def _days(span: timedelta) -> str:
    return f"{span / timedelta(days=1):.1f} days"
