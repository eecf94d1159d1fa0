"""The public Ali-CCP set (Alibaba click and conversion prediction) from its raw files, at any size.

Two files a split: the skeleton has a line an impression, the common file a line of user features for each *group* of
impressions. Both are read in chunks; only the index from group to user stays in memory. Log and features keep every
value of a field that has several, with its weight. There are no times in the files: the training split is put on one
day, the published test split on the next, a microsecond a line, and labels are final.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.contracts import columns as c
from components.contracts.dataset import FEATURES, LOG, DatasetInfo, Imported, SplitConfig, write_imported, write_info
from components.contracts.errors import DataError, UsageError
from components.contracts.files import new_folder
from components.contracts.spec import WEIGHTS_SUFFIX, Dtype
from components.contracts.times import format_utc
from components.ingestion.sources.ali_ccp_account import Account, Tables
from components.ingestion.sources.ali_ccp_format import COMMON, SKELETON, Shape
from components.ingestion.sources.ali_ccp_lines import Parsed, Refused
from components.ingestion.sources.byte_chunks import Progress
from components.ingestion.sources.importing import check_dataset_name

NAME = "ali_ccp"
VIEW = "ali_ccp_user"
DAYS = {c.TRAIN: "2018-01-01", c.TEST: "2018-01-02"}
"""Synthetic: they tell the published splits apart, nothing else."""
CHUNK = 1 << 20
"""Bytes of text parsed at once: its arrays still fit a processor's cache, larger chunks were slower."""
_SECOND = 1_000_000
_TIME = pa.timestamp("us", tz="UTC")


def _feature_types(shape: Shape) -> dict[str, Dtype]:
    """The shape's columns of features, f<field>, in the order they are written; the required field is an id."""
    found: dict[str, Dtype] = {f"f{field}": "string" for field in shape.single if field != shape.required}
    for field in shape.bags:
        found |= {f"f{field}": "strings", f"f{field}{WEIGHTS_SUFFIX}": "floats"}
    return found


CONTEXT = _feature_types(SKELETON)
USER_FIELDS = _feature_types(COMMON)


class _Part:
    """A split of the published set: its two files, its day, and what `group -> user` its common file gave."""

    def __init__(self, split: str, skeleton: Path, common: Path) -> None:
        self.split, self.skeleton, self.common = split, skeleton, common
        self.midnight = int(datetime.fromisoformat(DAYS[split]).replace(tzinfo=UTC).timestamp()) * _SECOND
        self.users: dict[str, str] = {}


def import_ali_ccp(
    train_skeleton: Path,
    train_common: Path,
    out: Path,
    test_skeleton: Path | None = None,
    test_common: Path | None = None,
    name: str = NAME,
    progress: Progress | None = None,
    chunk_bytes: int = CHUNK,
) -> dict[str, Any]:
    """Writes a dataset folder to `out`, all or nothing; files are plain or gzip, told apart by their first bytes.

    With test files the split is as published (validation: a seeded hash of the users of the training file), without by
    a hash. `progress` is called with the bytes read from the files since its last call.

    Returns:
        Facts: lines, rows, clicks, conversions, groups, users, values by field that has several, refused by reason,
        truncated files, notes.

    Raises:
        DataError: if a file cannot be read, no line of a skeleton is good, or `out` exists and is not empty.
        UsageError: if only one of the test files is given, a file is given twice, or the name cannot be.
    """
    check_dataset_name(name)
    if (test_skeleton is None) != (test_common is None):
        raise UsageError("the test split has two files: give both --test-skeleton and --test-common, or neither")
    parts = [_Part(c.TRAIN, train_skeleton, train_common)]
    if test_skeleton and test_common:
        parts.append(_Part(c.TEST, test_skeleton, test_common))
    given = [path for part in parts for path in (part.common, part.skeleton)]
    for path in given:
        if not path.is_file():
            raise DataError(f"{path} does not exist or is no file: give one of the raw Ali-CCP files")
        if given.count(path) > 1:
            raise UsageError(
                f"{path} is given twice: skeleton and common features are two files, train and test others"
            )
    with new_folder(out) as folder:
        account = Account(folder, progress)
        facts: Counter[str] = Counter()
        values: Counter[str] = Counter()
        users: set[str] = set()
        for part in parts:
            common = _import_common(part, account, chunk_bytes)
            skeleton = _import_skeleton(part, account, facts, chunk_bytes)
            if not skeleton.rows:
                raise DataError(
                    f"{part.skeleton} has no good line among {account.lines[str(part.skeleton)]} "
                    f"({'; '.join(account.examples) or 'it is empty'}): is it the skeleton of {part.common}?"
                )
            facts.update(rows=skeleton.rows, groups=common.rows)
            values.update(common.values)
            values.update(skeleton.values)
            users.update(part.users.values())
            part.users.clear()
        account.close()
        write_imported(folder, _imported(account, facts))
        write_info(folder, _info(name, parts))
    return {
        "lines": sum(account.lines.values()),
        **{key: facts[key] for key in ("rows", "clicks", "conversions", "groups")},
        "users": len(users),
        "values": dict(values),
        "refused": dict(sorted(account.reasons.items())),
        "truncated": account.truncated,
        "notes": account.notes,
    }


def _import_common(part: _Part, account: Account, size: int) -> Tables:
    """features/ali_ccp_user, and `part.users`. User features are known a second before the split's day."""
    since = pa.scalar(part.midnight - _SECOND, _TIME)
    tables = Tables(account.folder / FEATURES / VIEW, f"part-{part.split}")
    for first, parsed in account.parsed(part.common, COMMON, size):
        groups = parsed.head["common_feature_index"]
        again = []
        pairs = zip(groups.to_pylist(), parsed.single[COMMON.required].to_pylist(), strict=True)
        for row, (group, user) in enumerate(pairs):
            if group in part.users:
                again.append(row)
            else:
                part.users[group] = user
        account.refuse(part.common, first, _refused(parsed, again, "DUPLICATE_GROUP"))
        columns = {
            c.GROUP_ID: _prefixed(part.split, groups),
            c.EVENT_TIMESTAMP: pa.repeat(since, len(groups)),
            c.CREATED_TIMESTAMP: pa.repeat(since, len(groups)),
            **_features(parsed, COMMON),
        }
        tables.add(_without(pa.table(columns), again), parsed.size)
    tables.close()
    return tables


def _import_skeleton(part: _Part, account: Account, facts: Counter[str], size: int) -> Tables:
    """log/dt=...: the time of an impression is its line's number in microseconds of the split's day."""
    tables = Tables(account.folder / LOG / f"{c.PARTITION}={DAYS[part.split]}", "part")
    for first, parsed in account.parsed(part.skeleton, SKELETON, size):
        groups = parsed.head["common_feature_index"].dictionary_encode()
        users = pa.array([part.users.get(group) for group in groups.dictionary.to_pylist()], pa.string())
        users = users.take(groups.indices)
        orphans = np.flatnonzero(pc.is_null(users).to_numpy(zero_copy_only=False)).tolist()
        account.refuse(part.skeleton, first, _refused(parsed, orphans, "ORPHAN"))
        columns = {
            c.IMPRESSION_ID: _prefixed(part.split, parsed.head["sample_id"]),
            c.USER_ID: users,
            c.ITEM_ID: parsed.single[SKELETON.required],
            c.GROUP_ID: _prefixed(part.split, groups.dictionary).take(groups.indices),
            c.EVENT_TIMESTAMP: pa.array(part.midnight + (first - 1) + parsed.lines, _TIME),
            **_features(parsed, SKELETON),
            c.CLICK: parsed.head["click"],
            c.CONVERSION: parsed.head["buy"],
        }
        table = _without(pa.table(columns), orphans)
        click, conversion = (table.column(label).to_numpy() for label in c.LABELS)
        facts["clicks"] += int((click == 1).sum())
        facts["conversions"] += int((conversion == 1).sum())
        facts["conversions without click"] += int(((click == 0) & (conversion == 1)).sum())
        tables.add(table, parsed.size)
    tables.close()
    return tables


def _features(parsed: Parsed, shape: Shape) -> dict[str, pa.Array]:
    found = {f"f{field}": parsed.single[field] for field in shape.single if field != shape.required}
    for field, (ids, weights) in parsed.bags.items():
        found |= {f"f{field}": ids, f"f{field}{WEIGHTS_SUFFIX}": weights}
    return found


def _prefixed(split: str, names: pa.Array) -> pa.Array:
    """Sample ids and group indices count within their split."""
    return pc.binary_join_element_wise(f"{split}-", names, "")


def _refused(parsed: Parsed, rows: list[int], reason: str) -> list[Refused]:
    return [Refused(int(parsed.lines[row]), reason, parsed.text(row)) for row in rows]


def _without(table: pa.Table, rows: list[int]) -> pa.Table:
    return table.take(pa.array(np.delete(np.arange(table.num_rows), rows))) if rows else table


def _imported(account: Account, facts: Counter[str]) -> Imported:
    for file, lines in account.lines.items():
        refused = account.refused[file]
        account.notes.append(f"{file}: {lines} lines, {lines - refused} kept, {refused} refused.")
    if facts["conversions without click"]:
        account.notes.append(
            f"{facts['conversions without click']} rows have buy=1 and click=0: they are in the log, for validation to "
            "quarantine."
        )
    account.notes.append("The files have no times: days are synthetic, labels are final, windows are zero.")
    return Imported(
        lines=sum(account.lines.values()),
        refused=dict(sorted(account.reasons.items())),
        truncated=tuple(account.truncated),
        notes=tuple(account.notes),
    )


def _info(name: str, parts: list[_Part]) -> DatasetInfo:
    published = len(parts) > 1
    day = datetime.fromisoformat(DAYS[c.TEST]).replace(tzinfo=UTC)
    split = SplitConfig(kind="published", test_from=format_utc(day)) if published else SplitConfig(kind="hash")
    return DatasetInfo(
        name=name,
        source="Ali-CCP (Alibaba click and conversion prediction, raw files); times are synthetic, the files have none",
        context=CONTEXT,
        item_context=tuple(CONTEXT),
        split=split,
        recipe=NAME,
        reference_position=1,
        clock="frozen",
    )
