"""Which split an impression belongs to: by its time and its user, never by its label."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

from components.contracts import columns as c
from components.contracts import duck
from components.contracts.artifacts import Ranges
from components.contracts.dataset import DatasetInfo, SplitConfig
from components.contracts.errors import DataError, UsageError
from components.contracts.times import format_utc, parse_utc

TICK = timedelta(microseconds=1)


def split_ranges(first: datetime, info: DatasetInfo, split: SplitConfig, as_of: datetime) -> Ranges:
    """Half-open bounds of the splits. The end of test is a microsecond after the last instant that is mature.

    Args:
        first: time of the first logged event.

    Raises:
        DataError: if as-of is not after the first event, or the log is too short to be split.
        UsageError: if days are not positive, shares leave no training users, or `test_from` is no time within the log.
    """
    if as_of <= first:
        raise DataError(
            f"as-of {format_utc(as_of)} is not after the first logged event {format_utc(first)}: choose a later --as-of"
        )
    if split.kind == "hash":
        return _by_hash(split)
    window = timedelta(seconds=info.label_window_seconds)
    mature = as_of - window
    end = mature + TICK if window else mature
    if split.kind == "published":
        return _as_published(first, end, split)
    return _in_time(first, window, mature, end, split, as_of)


def _by_hash(split: SplitConfig) -> Ranges:
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


def _as_published(first: datetime, end: datetime, split: SplitConfig) -> Ranges:
    """Train and validation share the time before `test_from`; the users tell them apart."""
    if not 0 < split.valid_share < 1:
        raise UsageError(f"valid_share {split.valid_share:g} must be above 0 and below 1: some users must train")
    test_from = parse_utc(split.test_from, "the split's test_from")
    if not first < test_from < end:
        raise UsageError(
            f"the split's test_from {format_utc(test_from)} is not within the log's mature time, after "
            f"{format_utc(first)} and before {format_utc(end)}: set the time of the first published test event"
        )
    before = (format_utc(first), format_utc(test_from))
    return Ranges(
        kind="published", train=before, valid=before, test=(format_utc(test_from), format_utc(end)), seed=split.seed
    )


def _in_time(
    first: datetime, window: timedelta, mature: datetime, end: datetime, split: SplitConfig, as_of: datetime
) -> Ranges:
    if split.valid_days <= 0 or split.test_days <= 0:
        raise UsageError(f"valid_days {split.valid_days} and test_days {split.test_days} must be above 0")
    test_start = mature - timedelta(days=split.test_days)
    valid_start = test_start - timedelta(days=split.valid_days)
    train_end = valid_start - window
    if train_end <= first:
        needed = 2 * window + timedelta(days=split.test_days + split.valid_days)
        raise DataError(
            f"the log covers {format_utc(first)} to as-of {format_utc(as_of)}, but {split.test_days:g} test days, "
            f"{split.valid_days:g} validation days and two label windows take {needed / timedelta(days=1):.1f} days "
            "before any training day: bring more days, set fewer test and validation days, or split by hash"
        )
    return Ranges(
        kind="time",
        train=(format_utc(first), format_utc(train_end)),
        valid=(format_utc(valid_start), format_utc(test_start)),
        test=(format_utc(test_start), format_utc(end)),
        seed=split.seed,
    )


def split_sql(have: dict[str, str], ranges: Ranges, split: SplitConfig) -> str:
    """SQL for the split of a visible, mature row; `gap` where no rule can place it.

    Args:
        have: columns of the log and their DuckDB types.
    """
    if not can_be_placed(have, ranges):
        return f"'{c.GAP}'"
    # 52 bits of md5: a uniform number that any machine, language and version computes alike.
    user = f"(('0x' || substr(md5('{ranges.seed}:' || {duck.name(c.USER_ID)}), 1, 13))::BIGINT / {2**52}::DOUBLE)"
    event = duck.name(c.EVENT_TIMESTAMP)
    if ranges.kind == "published":
        test_from = duck.instant(parse_utc(ranges.test[0]))
        return (
            f"CASE WHEN {event} IS NULL OR {duck.name(c.USER_ID)} IS NULL THEN '{c.GAP}' "
            f"WHEN {event} >= {test_from} THEN '{c.TEST}' "
            f"WHEN {user} >= {1 - Decimal(str(split.valid_share))} THEN '{c.VALID}' ELSE '{c.TRAIN}' END"
        )
    parts = (ranges.train, c.TRAIN), (ranges.valid, c.VALID), (ranges.test, c.TEST)
    if ranges.kind == "hash":
        place, bounds = user, [(*r, s) for r, s in parts]
    else:
        # Training reaches back without end: a clock that is wrong by years is for validation to notice.
        place = event
        bounds = [(duck.instant(parse_utc(r[0])), duck.instant(parse_utc(r[1])), s) for r, s in parts]
        bounds[0] = ("'-infinity'::TIMESTAMPTZ", *bounds[0][1:])
    cases = " ".join(f"WHEN {place} >= {low} AND {place} < {high} THEN '{name}'" for low, high, name in bounds)
    return f"CASE {cases} ELSE '{c.GAP}' END"


def can_be_placed(have: dict[str, str], ranges: Ranges) -> bool:
    """Whether the columns that the split looks at are there, with the types they must have."""
    by_user, by_time = have.get(c.USER_ID) == "VARCHAR", have.get(c.EVENT_TIMESTAMP) == duck.TIME
    return {"hash": by_user, "time": by_time}.get(ranges.kind, by_user and by_time)
