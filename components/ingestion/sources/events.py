"""A user's own event streams, impressions, clicks and conversions each in files of its own, as a dataset.

Columns, types and refusals are as in `joined`; which impression an event belongs to is stated in `attribution`.
`event_timestamp` is in each stream the time of its own event.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from components.contracts import columns as c
from components.contracts import duck
from components.contracts.dataset import LOG
from components.contracts.errors import UsageError
from components.ingestion.sources.attribution import Counts, attribute
from components.ingestion.sources.convert import Role
from components.ingestion.sources.importing import (
    ImportOptions,
    Work,
    check_mapping,
    finish,
    importing,
    label_windows,
    look_at_views,
)
from components.ingestion.sources.joined import number_rows, write_days
from components.ingestion.sources.reading import KEY, open_source
from components.ingestion.sources.settled import Settled, settle

Attribute = Literal["impression-id", "window"]
BY_ID: Attribute = "impression-id"
_IMPRESSION: dict[str, Role] = {
    c.IMPRESSION_ID: "id", c.USER_ID: "id", c.ITEM_ID: "id", c.GROUP_ID: "id", c.EVENT_TIMESTAMP: "time",
}  # fmt: skip
_EVENT: dict[str, Role] = {c.IMPRESSION_ID: "id", c.USER_ID: "id", c.ITEM_ID: "id", c.EVENT_TIMESTAMP: "time"}


@dataclass(frozen=True)
class Streams:
    """Files or folders, and the names of their columns (canonical or context name -> theirs)."""

    impressions: Path
    clicks: Path
    conversions: Path
    map_impressions: Mapping[str, str] = field(default_factory=dict)
    map_clicks: Mapping[str, str] = field(default_factory=dict)
    map_conversions: Mapping[str, str] = field(default_factory=dict)


def import_events(streams: Streams, options: ImportOptions, attribute_by: Attribute | None = None) -> dict[str, Any]:
    """Writes a dataset folder to `options.out`, all or nothing.

    Args:
        attribute_by: how clicks and conversions find their impressions; by default each stream by the impression's id
            if it carries one, else by user, item and time.

    Returns:
        Facts: as of `import_log`, and clicks, conversions, how many of them are unmatched or late, and exact duplicates
        that were dropped, by stream.

    Raises:
        UsageError, FeatureSpecError, DataError: as `import_log`; also if a stream lacks what it is to be attributed by.
    """
    check_mapping(streams.map_impressions, tuple(_IMPRESSION), options.context, "--map-impressions")
    check_mapping(streams.map_clicks, tuple(_EVENT), {}, "--map-clicks")
    check_mapping(streams.map_conversions, tuple(_EVENT), {}, "--map-conversions")
    with importing(options) as work:
        windows = label_windows(options, True, work.notes)
        roles: dict[str, Role] = {**_IMPRESSION, **dict.fromkeys(options.context, "context")}
        source = open_source(work.db, streams.impressions, "impressions")
        shown = settle(work, source, roles, (c.IMPRESSION_ID, c.GROUP_ID), streams.map_impressions, "--map-impressions")
        look_at_views(work, shown.context, streams.map_impressions)
        has_ids = c.IMPRESSION_ID in shown.columns
        dropped: dict[str, int] = {}
        by_id = {}
        for what, path, mapping in (
            ("clicks", streams.clicks, streams.map_clicks),
            ("conversions", streams.conversions, streams.map_conversions),
        ):
            events = settle(work, open_source(work.db, path, what), _EVENT, (*c.IDS,), mapping, f"--map-{what}")
            by_id[what] = _by_id(events, attribute_by, has_ids, work.notes)
            dropped[what] = _keep_once(work, what, events)
        read = list(shown.columns)
        generated = number_rows(shown, "The stream of impressions", work.notes)
        first, last, total = shown.bounds(work)
        staged = work.staging / "shown"
        write_days(work.db, shown.rows, first.date().isoformat(), staged, keep_key=True)
        days = sorted(staged.glob("dt=*"))
        files = [file for day in days for file in sorted(day.glob("*.parquet"))]
        work.db.execute(f"CREATE TEMP VIEW shown AS SELECT * FROM {duck.parquet(files)}")
        counts = attribute(work.db, by_id["clicks"], by_id["conversions"], windows)
        rows = sum(_write_day(work, day, read, shown) for day in days)
        dropped = {"impressions": total - rows, **dropped}
        streamed = {what: work.db.execute(f"SELECT count(*) FROM {what}").fetchone()[0] for what in by_id}
        _note(work, streamed, dropped, counts)
        facts = finish(work, shown.context, windows, True, first, last)
    return {"rows": rows, **streamed, **vars(counts), "duplicates": dropped, "generated_ids": generated, **facts}


def _by_id(events: Settled, attribute_by: Attribute | None, has_ids: bool, notes: list[str]) -> bool:
    """Whether the stream is attributed by impression id.

    Raises:
        UsageError: if it, or the impressions, lack what it is to be attributed by.
    """
    what, carries = events.source.what, c.IMPRESSION_ID in events.columns
    if attribute_by == BY_ID and not (carries and has_ids):
        whose = f"{what} {events.source.path}" if not carries else "the impressions"
        raise UsageError(
            f"{whose} have no impression_id to attribute by: map it, or give --attribute window (user, item and time)"
        )
    by_id = carries and has_ids if attribute_by is None else attribute_by == BY_ID
    missing = [column for column in (c.USER_ID, c.ITEM_ID) if column not in events.columns]
    if not by_id and missing:
        raise UsageError(
            f"{what} {events.source.path} have no {' and no '.join(missing)}, and no impression_id that the "
            f"impressions share: map them with --map-{what} OURS=THEIRS"
        )
    if attribute_by is None:
        how = "impression_id" if by_id else "user, item and time (they carry no impression_id that impressions share)"
        notes.append(f"{what.capitalize()} are attributed by {how}.")
    return by_id


def _keep_once(work: Work, what: str, events: Settled) -> int:
    """Table `what` of the distinct events that have a time. Returns how many were equal to another."""
    columns = ", ".join(events.columns)
    total = work.db.execute(f"SELECT count(*) FROM {events.rows}").fetchone()[0]
    kept = work.db.execute(
        f"CREATE TEMP TABLE {what} AS SELECT {columns}, min({KEY}) AS {KEY} FROM {events.rows} GROUP BY {columns}"
    ).fetchone()[0]
    return int(total - kept)


def _write_day(work: Work, staged: Path, read: list[str], shown: Settled) -> int:
    """The day's impressions with their labels. Of equal ones the last stays, for which ties were decided."""
    out = work.folder / LOG / staged.name
    out.mkdir(parents=True)
    files = duck.parquet(sorted(staged.glob("*.parquet")))
    equal = ", ".join(duck.name(column) for column in read)
    columns = ", ".join(duck.name(column) for column in shown.columns)
    (rows,) = work.db.execute(
        f"""COPY (
            SELECT {columns},
                ({c.CLICK_TIMESTAMP} IS NOT NULL)::BIGINT AS {c.CLICK}, {c.CLICK_TIMESTAMP},
                ({c.CONVERSION_TIMESTAMP} IS NOT NULL)::BIGINT AS {c.CONVERSION}, {c.CONVERSION_TIMESTAMP}
            FROM (SELECT * FROM {files} QUALIFY row_number() OVER (PARTITION BY {equal} ORDER BY {KEY} DESC) = 1)
            LEFT JOIN labels USING ({KEY}) ORDER BY {c.EVENT_TIMESTAMP}, {c.IMPRESSION_ID}, {KEY}
        ) TO {duck.text(out / "part-0.parquet")} (FORMAT parquet, COMPRESSION snappy)"""
    ).fetchone()
    return int(rows)


def _note(work: Work, streamed: dict[str, int], dropped: dict[str, int], counts: Counts) -> None:
    found = vars(counts)
    for what, total in streamed.items():
        work.notes.append(
            f"Of {total} {what}, {found[f'{what}_unmatched']} belong to no impression and {found[f'{what}_late']} came "
            "after their window."
        )
    if any(dropped.values()):
        listed = ", ".join(f"{count} {what}" for what, count in dropped.items() if count)
        work.notes.append(f"Exact duplicates dropped: {listed}.")
