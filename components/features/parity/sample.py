"""Which impressions are compared, and the feature tables cut down to what the online store needs for them.

Drawn by a seeded hash, so that one dataset gives one sample. Three quarters are drawn for a reason: they are spread
over the time of the test split, or a user, item or group of theirs has few rows, or a row of theirs was stamped before
the impression and written after it, which a join that leaks would show.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import pyarrow as pa

from components.contracts import columns as c
from components.contracts import duck
from components.contracts.errors import NoEvidence
from components.contracts.spec import FeatureSpec, View
from components.features import tables
from components.features.parity.settings import ParitySettings
from feature_repo import sources

OF_TIME, OF_ALL, OF_KEY = 4, 2, 2
"""Impressions looked at for each one chosen: one a stretch of time, any, and one a user, item or group."""
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MOMENTS = 24
"""States of the scratch store at most: each is a materialization."""
AT, DRAW, PLACE = "shown_at", "draw", "__place"


@dataclass(frozen=True)
class Seen:
    """What the tables say of one impression. Times in microseconds since 1970, UTC.

    `rows`: how many rows are known of its entities, a number a view, the fewest first. `late`: a row was stamped by
    then and written later. `follows`: when the next row of any of its entities becomes known, None if never. `newest`:
    event time of the newest row known, by view; views without one are left out.
    """

    at: int
    draw: int
    rows: tuple[int, ...]
    late: bool
    follows: int | None
    newest: dict[str, int]


@dataclass(frozen=True)
class Sample:
    """Impressions as retrieved, in order of time and id, and what the tables say of each."""

    rows: pa.Table
    seen: tuple[Seen, ...]


def draw(dataset: Path, features: Path, spec: FeatureSpec, settings: ParitySettings, out: Path) -> Sample:
    """Samples the test split and writes the tables of the spec's views, cut down to the sampled keys, to `out`.

    Raises:
        NoEvidence: the test split holds no impressions.
        DataError: a table that is missing, cannot be read, or lacks a key or a time.
    """
    tables.require(spec.views, sources.present(str(features)), features)
    with duck.connect(threads=None) as db:
        _pool(db, dataset, spec, settings)
        for view in spec.views:
            # Numbered, since of two rows of one moment the later counts.
            source = duck.parquet(sorted((features / view.name).glob("*.parquet")), numbered=True)
            db.execute(
                f"CREATE TEMP TABLE {_cut(view)} AS SELECT * EXCLUDE (filename, file_row_number), "
                f"row_number() OVER (ORDER BY filename, file_row_number) AS {PLACE} FROM {source} "
                f"WHERE {_of(view, 'pool')}"
            )
        pool = _seen(db, spec)
        if not pool:
            raise NoEvidence(f"no evidence: {dataset / c.TEST} holds no impressions to compare: the gate stays closed")
        names = list(pool)
        chosen = {names[number] for number in within(list(pool.values()), settings.sample)}
        db.register("chosen", pa.table({c.IMPRESSION_ID: pa.array(sorted(chosen), pa.string())}))
        source = tables.parquet(dataset / c.TEST)
        rows = db.sql(
            f"SELECT * FROM {source} WHERE {c.IMPRESSION_ID} IN (SELECT {c.IMPRESSION_ID} FROM chosen) "
            f"ORDER BY {c.EVENT_TIMESTAMP}, {c.IMPRESSION_ID}"
        ).to_arrow_table()
        db.register("sample", rows)
        for view in spec.views:
            (out / view.name).mkdir(parents=True)
            db.execute(
                f"COPY (SELECT * EXCLUDE ({PLACE}) FROM {_cut(view)} WHERE {_of(view, 'sample')} ORDER BY {PLACE}) "
                f"TO {duck.text(out / view.name / 'part-0.parquet')} (FORMAT parquet)"
            )
    return Sample(rows, tuple(pool[name] for name in rows[c.IMPRESSION_ID].to_pylist()))


def choose(pool: Sequence[Seen], count: int) -> list[int]:
    """Numbers of the impressions to compare: a quarter of few rows, a quarter late ones, the rest spread over time."""
    by_draw = sorted(range(len(pool)), key=lambda number: pool[number].draw)
    few = sorted(by_draw, key=lambda number: pool[number].rows)[: count // 4]
    late = [number for number in by_draw if pool[number].late and number not in few][: count // 4]
    rest = sorted(set(by_draw) - {*few, *late}, key=lambda number: (pool[number].at, pool[number].draw))
    wanted = min(count - len(few) - len(late), len(rest))
    return [*few, *late, *(rest[number * len(rest) // wanted] for number in range(wanted))]


def within(pool: Sequence[Seen], count: int, most: int = MOMENTS) -> list[int]:
    """As `choose`, but of no more than `most` moments; fewer impressions where features change that often."""
    chosen = choose(pool, count)
    planned = moments([pool[number] for number in chosen])
    if len(planned) <= most:
        return chosen
    kept = [planned[number * len(planned) // most] for number in range(most)]
    read = [chosen[number] for _, numbers in kept for number in numbers]
    # Others that can be read at one of these moments take the place of those that cannot.
    times = [microseconds(until) for until, _ in kept]
    others = [
        number
        for number in sorted(set(range(len(pool))) - set(read), key=lambda number: pool[number].draw)
        if any(pool[number].at <= until < (pool[number].follows or 2**63) for until in times)
    ]
    return (read + others)[:count]


def moments(seen: Sequence[Seen]) -> list[tuple[datetime, list[int]]]:
    """Times to bring the store up to, ascending, and the impressions to read then.

    What is known of an impression's entities stays the same until the next row of theirs becomes known, so impressions
    share a moment if none of them has one by then: as few moments as possible, none of which changes an answer.
    """
    left = sorted(range(len(seen)), key=lambda number: (seen[number].follows is None, seen[number].follows or 0))
    found = []
    while left:
        follows = seen[left[0]].follows
        now = [number for number in left if follows is None or seen[number].at < follows]
        left = [number for number in left if follows is not None and seen[number].at >= follows]
        found.append((instant(max(seen[number].at for number in now)), now))
    return found


def instant(since_epoch: int) -> datetime:
    return EPOCH + timedelta(microseconds=since_epoch)


def microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(microseconds=1)


def _pool(db: duckdb.DuckDBPyConnection, dataset: Path, spec: FeatureSpec, settings: ParitySettings) -> None:
    """Temporary table `pool`: the impressions to choose from, with their keys, time and draw."""
    source, keys = tables.parquet(dataset / c.TEST), ", ".join(spec.keys)
    db.execute(
        f"CREATE TEMP VIEW given AS SELECT {c.IMPRESSION_ID}, {keys}, epoch_us({c.EVENT_TIMESTAMP}) AS {AT}, "
        f"hash({c.IMPRESSION_ID}, {settings.seed}) AS {DRAW} FROM {source}"
    )
    begins, ends = db.execute(f"SELECT min({AT}), max({AT}) FROM given").fetchone()
    one = f"arg_min({c.IMPRESSION_ID}, {DRAW}) AS {c.IMPRESSION_ID}"
    stretch = max(((ends or 0) - (begins or 0)) // (OF_TIME * settings.sample), 1)
    picks = [
        f"SELECT {one} FROM given GROUP BY ({AT} - {begins or 0}) // {stretch}",
        f"(SELECT {c.IMPRESSION_ID} FROM given ORDER BY {DRAW} LIMIT {OF_ALL * settings.sample})",
        *(
            f"(SELECT {one} FROM given GROUP BY {key} ORDER BY hash({key}, {settings.seed}), {key} "
            f"LIMIT {OF_KEY * settings.sample})"
            for key in spec.keys
        ),
    ]
    wanted = " UNION ".join(picks)
    db.execute(f"CREATE TEMP TABLE pool AS SELECT * FROM given WHERE {c.IMPRESSION_ID} IN ({wanted})")


def _seen(db: duckdb.DuckDBPyConnection, spec: FeatureSpec) -> dict[str, Seen]:
    """By impression id, in order of draw."""
    found: dict[str, Seen] = {}
    for name, at, drawn in db.execute(
        f"SELECT {c.IMPRESSION_ID}, {AT}, {DRAW} FROM pool ORDER BY {DRAW}, {c.IMPRESSION_ID}"
    ).fetchall():
        found[name] = Seen(at=at, draw=drawn, rows=(), late=False, follows=None, newest={})
    for view in spec.views:
        for name, rows, late, follows, newest in db.execute(_history(view)).fetchall():
            was = found[name]
            nexts = [time for time in (was.follows, follows) if time is not None]
            found[name] = Seen(
                at=was.at,
                draw=was.draw,
                rows=tuple(sorted((*was.rows, rows))),
                late=was.late or late,
                follows=min(nexts, default=None),
                newest=was.newest | ({view.name: newest} if newest is not None else {}),
            )
    return found


def _history(view: View) -> str:
    """SQL: of each impression of the pool, what `Seen` says of one view."""
    event, created = f"epoch_us({c.EVENT_TIMESTAMP})", f"epoch_us({c.CREATED_TIMESTAMP})"
    known = f"greatest({event}, {created})"
    return (
        f"SELECT {c.IMPRESSION_ID}, count({event}) FILTER ({known} <= {AT}), "
        f"coalesce(bool_or({event} <= {AT} AND {created} > {AT}), false), "
        f"min({known}) FILTER ({known} > {AT}), max({event}) FILTER ({known} <= {AT}) "
        f"FROM pool LEFT JOIN {_cut(view)} USING ({view.entity}) GROUP BY {c.IMPRESSION_ID}"
    )


def _cut(view: View) -> str:
    return duck.name(f"rows of {view.name}")


def _of(view: View, rows: str) -> str:
    return f"{view.entity} IN (SELECT {view.entity} FROM {rows})"
