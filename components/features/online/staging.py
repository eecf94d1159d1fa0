"""Copies the feature tables as known at an as-of to local disk, and finds in the copy what the online store needs.

Whatever is wrong with a source shows while it is copied, before anything is written online. The copy of a table is one
file, sorted by event time, key and created time: the last row of a key is its newest, so only row numbers are compared.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pyarrow as pa

from components.contracts import columns as c
from components.contracts import duck
from components.contracts.errors import DataError
from components.contracts.files import new_folder, sha256_file, sha256_json, write_manifest
from components.contracts.online import OFFLINE, ViewState
from components.contracts.times import format_utc, parse_utc
from components.features import tables
from feature_repo.declare import Declared

Mode = Literal["incremental", "full", "unchanged"]
Progress = Callable[[str, int, int], None]
"""Called with a view, its entities written so far, and how many there are to write."""
PART = "part-0.parquet"
PLACE = "__place"
"""Row number in the copy: the order entities are written in, and by which a run that was killed goes on."""
BATCH_ENTITIES = 5_000
"""Entities a batch. A view of bags may hold a thousand values an entity."""


@dataclass(frozen=True)
class Plan:
    """What has to be done for one view.

    `rows`: entities known before as-of. `entities`: those to write. `since`: the watermark to go on from, None in a
    full run. `boundary`: in a full run the table alone says what there was before this time; what is stamped later was
    pushed. `known`: hash of the rows known before as-of, whatever their order.
    """

    view: Declared
    table: Path
    mode: Mode
    rows: int
    entities: int
    since: datetime | None
    boundary: datetime
    newest_event: datetime | None
    known: str


def copy(folder: Path, source: Path, present: tuple[str, ...], as_of: datetime) -> Path:
    """The tables as known at `as_of`, in `folder`/offline/<as-of and content>. A folder of that name is used again.

    Raises:
        DataError: a table that cannot be read, without a declared column, with one of another type, with lists that
            are no bags, or with a row of no entity.
    """
    root = folder / OFFLINE
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".copy-", dir=root) as aside:
        rows = tables.write_known(source, present, as_of, Path(aside))
        hashes = [sha256_file(Path(aside) / view / PART) for view in rows]
        stamp = as_of.astimezone(UTC).strftime("%Y%m%dT%H%M%S%fZ")
        made = root / f"{stamp}-{'-'.join(value[:12] for value in hashes)}"
        if not made.exists():
            with new_folder(made) as new:
                for view in rows:
                    (Path(aside) / view).replace(new / view)
                write_manifest(new, as_of=format_utc(as_of), rows=rows)
    return made


def prune(folder: Path, current: Path) -> None:
    """Keeps the current copy and the one before it."""
    others = sorted((f for f in (folder / OFFLINE).iterdir() if f != current), key=lambda f: f.stat().st_mtime)
    for old in others[:-1]:
        shutil.rmtree(old)


def plan(copied: Path, view: Declared, before: ViewState | None, full: bool, boundary: datetime) -> Plan:
    """Compares the copy of a view with what was materialized before.

    It is brought up incrementally if exactly the rows that were known at the watermark still are, else whole.
    """
    table = copied / view.name / PART
    key = duck.name(view.entity.join_key)
    since = parse_utc(before.as_of) if before is not None and before.as_of and before.known and not full else None
    old = "false" if since is None else duck.known_before(since)
    with duck.connect() as db:
        source = duck.parquet([table])
        kinds = duck.types(db, source)
        row = f"hash({', '.join(map(duck.name, kinds))})::HUGEINT"
        counted, summed, counted_old, summed_old, newest, nobody = db.execute(
            f"SELECT count(*), sum({row}), count(*) FILTER ({old}), sum({row}) FILTER ({old}), "
            f"max({c.EVENT_TIMESTAMP}), count(*) FILTER ({key} IS NULL) FROM {source}"
        ).fetchone()
        if nobody:
            raise DataError(f"{view.name}: {nobody} rows have no {view.entity.join_key}: mend them, bring it again")
        rows, changed = db.execute(
            f"SELECT count(*), count(*) FILTER (changed) FROM ({_newest(view, table, since)})"
        ).fetchone()
    same = before is not None and since is not None and _known(kinds, counted_old, summed_old) == before.known
    mode: Mode = "full" if not same else "incremental" if changed else "unchanged"
    return Plan(
        view=view,
        table=table,
        mode=mode,
        rows=rows,
        entities=changed if same else rows,
        since=since if same else None,
        boundary=boundary,
        newest_event=newest.astimezone(UTC) if newest is not None else None,
        known=_known(kinds, counted, summed),
    )


def batches(plan: Plan, after: int = -1) -> Iterator[pa.RecordBatch]:
    """The newest row of each entity to write: entity, times, fields and PLACE, in the order of PLACE, after `after`."""
    with duck.connect() as db:
        newest = f"SELECT place FROM ({_newest(plan.view, plan.table, plan.since)}) WHERE changed AND place > {after}"
        query = (
            f"SELECT * EXCLUDE (file_row_number), file_row_number AS {PLACE} FROM {_numbered(plan.table)} "
            f"WHERE file_row_number IN ({newest}) ORDER BY {PLACE}"
        )
        yield from db.sql(query).to_arrow_reader(BATCH_ENTITIES)


def without_row(plan: Plan, keys: Iterator[list[str]]) -> Iterator[list[str]]:
    """Of each list of entities, those that the copy has no row of."""
    key = duck.name(plan.view.entity.join_key)
    with duck.connect() as db:
        db.execute(f"CREATE TEMP TABLE known AS SELECT DISTINCT {key} AS key FROM {duck.parquet([plan.table])}")
        for asked in keys:
            db.register("asked", pa.table({"key": pa.array(asked, pa.string())}))
            found = db.execute("SELECT key FROM asked WHERE key NOT IN (SELECT key FROM known)").fetchall()
            yield [row[0] for row in found]


def _newest(view: Declared, table: Path, since: datetime | None) -> str:
    """A query for each entity's newest row, `place`, and whether anything of it became known after `since`."""
    changed = "true" if since is None else f"bool_or(NOT ({duck.known_before(since)}))"
    return (
        f"SELECT max(file_row_number) AS place, {changed} AS changed FROM {_numbered(table)} "
        f"GROUP BY {duck.name(view.entity.join_key)}"
    )


def _numbered(table: Path) -> str:
    return f"read_parquet({duck.text(table)}, file_row_number = true)"


def _known(kinds: dict[str, str], rows: int, total: int | None) -> str:
    return sha256_json([kinds, rows, str(total or 0)])
