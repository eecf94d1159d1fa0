"""The retrieve stage: each impression with the features that were known when it was shown."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from itertools import count, groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.contracts import columns as c
from components.contracts import duck
from components.contracts.artifacts import Rows
from components.contracts.config import Config
from components.contracts.errors import DataError
from components.contracts.files import read_manifest, write_manifest
from components.contracts.quality import QUALITY
from components.contracts.spec import FeatureSpec, raw
from components.features import tables

PART_ROWS = 250_000
BAG_PART_ROWS = 25_000
"""With bags, of which a row may hold hundreds of values."""


class RetrieveConfig(Config):
    """`spec` is the union of what the run, the champion and its predecessor need."""

    dataset: str
    spec: FeatureSpec
    code: str = ""


def run(
    config: RetrieveConfig, clean: Path, features: Path, dataset: Path, part_rows: int | None = None
) -> dict[str, Any]:
    """Writes and seals the artifact `dataset`: train|valid|test/part-*.parquet, in order of time and impression id.

    Every impression of `clean` outside the gap is in it exactly once, with null where a feature was not known.
    Without views in the spec no feature store is opened: ids and context are all there is.

    Args:
        clean, features: artifacts of validation and ingestion.
        part_rows: impressions a file, and in memory at a time here. None: fewer where there are bags.

    Returns:
        Facts: rows by split, the share of rows with a value of each stored feature.

    Raises:
        DataError: a context column, group_id or a view that is missing though a feature needs it, a column of another
            type, a null among a bag's values, or rows lost on the way.
    """
    clean_facts, feature_facts = read_manifest(clean), read_manifest(features)
    spec = config.spec
    if part_rows is None:
        part_rows = BAG_PART_ROWS if "strings" in spec.raw.values() else PART_ROWS
    shutil.rmtree(dataset, ignore_errors=True)  # what an interrupted attempt left
    dataset.mkdir(parents=True)
    before, columns = _columns(clean, spec)
    written, filled = dict.fromkeys(c.SPLITS, 0), dict.fromkeys((f.name for f in spec.stored), 0)
    for split in c.SPLITS:
        (dataset / split).mkdir()
    numbers = {split: count() for split in c.SPLITS}
    for split, rows in _parts(_joined(_impressions(clean, columns), features, spec, part_rows), part_rows):
        pq.write_table(_assemble(rows, spec), dataset / split / f"part-{next(numbers[split]):05d}.parquet")
        written[split] += len(rows)
        for name in filled:
            filled[name] += _known(rows[name])
    _check_kept(before, written)
    rows_facts = Rows.parse({**clean_facts.get("rows", {}), **written, c.GAP: before.get(c.GAP, 0)}, "rows")
    _check_ids(clean, dataset)
    write_manifest(
        dataset,
        rows=rows_facts.model_dump(),
        ranges=clean_facts["ranges"],
        info=clean_facts["info"],
        as_of=clean_facts["as_of"],
        views=[view.name for view in spec.views],
        spec=spec.model_dump(mode="json"),
        features=feature_facts["fingerprint"],
        **{key: clean_facts[key] for key in (QUALITY,) if key in clean_facts},
    )
    total = max(sum(written.values()), 1)
    return {
        "rows": written,
        "views": [view.name for view in spec.views] or "none: ids and context only",
        "known": {name: round(count / total, 4) for name, count in filled.items()},
    }


def _joined(query: str, features: Path, spec: FeatureSpec, batch_rows: int) -> Iterator[pa.Table]:
    """The rows of `query`, in its order, with the stored features; as they are where the spec has no views."""
    if not spec.views:
        with duck.connect() as db:
            for batch in db.sql(query).to_arrow_reader(batch_rows):
                yield pa.Table.from_batches([batch])
        return
    # Feast takes seconds to import; a dataset without views does without.
    from components.features.point_in_time import PointInTime

    with PointInTime(features, spec) as store:
        yield from store.stream(query, batch_rows)


def _columns(clean: Path, spec: FeatureSpec) -> tuple[dict[str, int], list[str]]:
    """Rows of each split, and SQL of the columns to read."""
    source = tables.parquet(clean, "*/*.parquet")
    with duck.connect() as db:
        have = {str(row[0]): str(row[1]) for row in db.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()}
        absent = [name for name in raw(spec.context) if name not in have]
        if absent:
            raise DataError(
                f"the log has no context column {', '.join(absent)}, which a model needs: bring it again, or start "
                "with a new dataset name"
            )
        if c.GROUP_ID in spec.keys and c.GROUP_ID not in have:
            keyed = ", ".join(view.name for view in spec.views if view.entity == c.GROUP_ID)
            raise DataError(
                f"the log has no column {c.GROUP_ID}, by which the features of view {keyed} are kept: import the log "
                "with it, or leave the view out of the dataset"
            )
        counted = dict(db.execute(f"SELECT {c.SPLIT}, count(*) FROM {source} GROUP BY ALL").fetchall())
    columns = [*_ids(spec), c.EVENT_TIMESTAMP, *raw(spec.context), *c.LABELS]
    return counted, [duck.name(column) for column in columns]


def _ids(spec: FeatureSpec) -> tuple[str, ...]:
    return (c.IMPRESSION_ID, *spec.keys)


def _impressions(clean: Path, columns: list[str]) -> str:
    """SQL of the impressions to retrieve: split by split, in order of time and id. DuckDB sorts, on disk if it must."""
    splits = ", ".join(map(duck.text, c.SPLITS))
    return (
        f"SELECT {c.SPLIT}, {', '.join(columns)} FROM {tables.parquet(clean, '*/*.parquet')} "
        f"WHERE {c.SPLIT} IN ({splits}) "
        f"ORDER BY list_position([{splits}], {c.SPLIT}), {c.EVENT_TIMESTAMP}, {c.IMPRESSION_ID}"
    )


def _parts(batches: Iterable[pa.Table], part_rows: int) -> Iterator[tuple[str, pa.Table]]:
    """Cuts what comes in batches of any size, sorted by split, into tables of one split and `part_rows` rows.

    The last of a split is shorter. Where batches end depends on DuckDB's threads, so equal inputs give equal bytes only
    if it shows nowhere: each part is one chunk.
    """
    for split, found in groupby(_by_split(batches), key=itemgetter(0)):
        waiting: list[pa.Table] = []
        rows = 0
        for _, table in found:
            while rows + len(table) >= part_rows:
                cut = part_rows - rows
                yield split, pa.concat_tables([*waiting, table.slice(0, cut)]).combine_chunks()
                table, waiting, rows = table.slice(cut), [], 0
            waiting.append(table)
            rows += len(table)
        if rows:
            yield split, pa.concat_tables(waiting).combine_chunks()


def _by_split(batches: Iterable[pa.Table]) -> Iterator[tuple[str, pa.Table]]:
    for batch in batches:
        for split in c.SPLITS:
            rows = batch.filter(pc.equal(batch[c.SPLIT], split)) if len(batch) else batch
            if len(rows):
                yield split, rows


def _assemble(rows: pa.Table, spec: FeatureSpec) -> pa.Table:
    columns = {name: rows[name] for name in (*_ids(spec), c.EVENT_TIMESTAMP)}
    for name, dtype in raw(spec.context).items():
        try:
            columns[name] = rows[name].cast(tables.ARROW_TYPES[dtype])
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise DataError(
                f"context column {name!r} is {rows[name].type} and cannot be read as {dtype} ({error}): import the log "
                "again"
            ) from None
        if dtype == "strings" and columns[name].combine_chunks().flatten().null_count:
            raise DataError(
                f"context column {name!r} has lists with a null among their values, which no request can send: write "
                "the values that there are, or an empty list"
            )
    columns |= {name: rows[name] for name in raw(spec.stored)}
    columns |= {label: rows[label].cast(pa.int64()) for label in c.LABELS}
    columns[c.EVENT_TIMESTAMP] = rows[c.EVENT_TIMESTAMP].cast(pa.timestamp("us", tz="UTC"))
    return pa.table(columns)


def _known(column: pa.ChunkedArray) -> int:
    """Rows that have a value. An empty list is none."""
    if pa.types.is_list(column.type):
        return int(pc.sum(pc.greater(pc.list_value_length(column), 0)).as_py() or 0)
    return len(column) - int(column.null_count)


def _check_kept(before: dict[str, int], written: dict[str, int]) -> None:
    lost = [
        f"{split}: {before.get(split, 0)} in, {count} out"
        for split, count in written.items()
        if before.get(split, 0) != count
    ]
    if lost:
        raise DataError(f"retrieval did not keep every impression ({'; '.join(lost)}): the sample would be biased")


def _check_ids(clean: Path, dataset: Path) -> None:
    """Reads back what was written: the same impressions in the same split, by an order-free hash of their ids."""
    hashed = f"sum(hash({c.IMPRESSION_ID})::HUGEINT), count(*)"
    with duck.connect() as db:
        for split in c.SPLITS:
            if not any((dataset / split).glob("*.parquet")):
                continue
            given = db.execute(
                f"SELECT {hashed} FROM {tables.parquet(clean, '*/*.parquet')} WHERE {c.SPLIT} = '{split}'"
            ).fetchone()
            kept = db.execute(f"SELECT {hashed} FROM {tables.parquet(dataset / split)}").fetchone()
            if given != kept:
                raise DataError(f"split {split} does not hold exactly the impressions it was given: run it again")
