"""A user's own log, one row an impression with its labels, as a dataset.

Columns are found by the mapping (canonical name = theirs), else by the canonical name itself. Types are settled here,
once: ids become strings, times UTC microseconds, labels integers. A value that is merely bad (a null id, click = 2)
stays as it is, for validation to quarantine; one that its column's type cannot hold is refused, and counted; a type
that is wrong is refused for the whole file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.contracts import columns as c
from components.contracts import duck
from components.contracts.dataset import LOG
from components.contracts.errors import DataError
from components.ingestion.sources.convert import Converted, Role
from components.ingestion.sources.importing import (
    ImportOptions,
    check_mapping,
    finish,
    importing,
    label_windows,
    look_at_views,
)
from components.ingestion.sources.reading import KEY, open_source
from components.ingestion.sources.settled import Settled, settle

_ROLES: dict[str, Role] = {
    c.IMPRESSION_ID: "id", c.USER_ID: "id", c.ITEM_ID: "id", c.GROUP_ID: "id", c.EVENT_TIMESTAMP: "time",
    c.CLICK: "label", c.CONVERSION: "label",
}  # fmt: skip
_OPTIONAL = (c.IMPRESSION_ID, c.GROUP_ID, *c.LABEL_TIMESTAMPS)


def import_log(log: Path, mapping: Mapping[str, str], options: ImportOptions) -> dict[str, Any]:
    """Writes a dataset folder to `options.out`, all or nothing.

    Args:
        log: a Parquet or CSV file, or a folder with some (at any depth; partition columns must be in the files).
        mapping: canonical or context name -> their column; names not given are looked up as they are.

    Returns:
        Facts: rows, days, context types, rows of each view, split, lines refused by reason, and `notes`, a sentence for
        each thing decided.

    Raises:
        UsageError: a name, window or mapping that cannot be. FeatureSpecError: a name that is reserved.
        DataError: a file, column or type that cannot be used, no usable row, or `out` not empty.
    """
    check_mapping(mapping, (*_ROLES, *c.LABEL_TIMESTAMPS), options.context, "--map")
    roles: dict[str, Role] = {
        **_ROLES, **dict.fromkeys(options.context, "context"), **dict.fromkeys(c.LABEL_TIMESTAMPS, "time"),
    }  # fmt: skip
    with importing(options) as work:
        found = settle(work, open_source(work.db, log, "the log"), roles, _OPTIONAL, mapping, "--map")
        timed = _has_label_times(log, found)
        windows = label_windows(options, timed, work.notes)
        look_at_views(work, found.context, mapping)
        generated = number_rows(found, "The log", work.notes)
        if not timed:
            work.notes.append(
                "The log has no click and conversion times: its labels are taken as final, windows are zero."
            )
        first, last, rows = found.bounds(work)
        write_days(work.db, found.rows, first.date().isoformat(), work.folder / LOG)
        facts = finish(work, found.context, windows, timed, first, last)
    return {"rows": rows, "generated_ids": generated, **facts}


def _has_label_times(log: Path, found: Settled) -> bool:
    times = [column for column in c.LABEL_TIMESTAMPS if column in found.columns]
    if len(times) == 1:
        raise DataError(
            f"{log} has {times[0]} but not the other of {' and '.join(c.LABEL_TIMESTAMPS)}: map both, or rename it "
            "to have labels taken as final"
        )
    return bool(times)


def number_rows(found: Settled, what: str, notes: list[str]) -> bool:
    """Makes an impression_id of the row's number where there is none. Returns whether it did."""
    if c.IMPRESSION_ID in found.columns:
        return False
    found.columns = {c.IMPRESSION_ID: Converted(f"'row-' || {KEY}"), **found.columns}
    notes.append(f"{what} has no impression_id: rows were numbered in the order of the files' names.")
    return True


def write_days(db: Any, rows: str, first_day: str, out: Path, keep_key: bool = False) -> None:
    """Rows by the UTC day of their event, in their order; those without a time go to `first_day`."""
    day = f"coalesce(strftime({c.EVENT_TIMESTAMP}, '%Y-%m-%d'), {duck.text(first_day)})"
    columns = "*" if keep_key else f"* EXCLUDE ({KEY})"
    db.execute(
        f"COPY (SELECT {columns}, {day} AS {c.PARTITION} FROM {rows}) TO {duck.text(out)} "
        f"(FORMAT parquet, COMPRESSION snappy, PARTITION_BY ({c.PARTITION}))"
    )
