"""One pass over the log, some files at a time: every row's reasons as bits, what they add up to, good and bad apart.

DuckDB evaluates all rules in one query a batch of files, grouped by file, bits and split. Only the groups and the
numbers of the bad rows come back, so memory does not depend on how many days there are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from components.contracts import columns as c
from components.contracts import duck
from components.validation import duplicates, tables
from components.validation.rules import DUPLICATED, RowRule
from components.validation.runner import EXAMPLES, Outcome, text
from components.validation.suite import REASONS, ROW

ROWS_A_BATCH = 1_000_000
BITS = 62
"""Rules in one BIGINT; more rules take more of them."""
SAMPLED = 1000
"""Bad rows of a group among which examples are looked for."""
WRITERS = 4
"""Files written at a time; each holds a row group in memory."""
ENGINE = "DuckDB"
ROW_CODES = tuple(code for code, (scope, _) in REASONS.items() if scope == ROW)


@dataclass
class DayCount:
    """One partition. A row with two reasons counts under both."""

    rows: int = 0
    bad: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


@dataclass
class Scan:
    """What the pass found. Counts by split, `clicks` and `values` are of good rows, but `all_splits`."""

    days: dict[str, DayCount] = field(default_factory=dict)
    all_splits: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)
    conversions: Counter[str] = field(default_factory=Counter)
    clicks: int = 0
    values: Counter[str] = field(default_factory=Counter)
    """Rows with a value, by context column."""
    outcomes: tuple[Outcome, ...] = ()
    whole: list[tables.File] = field(default_factory=list)
    """The log's files in which every row is good ..."""
    apart: list[Path] = field(default_factory=list)
    """... and those written with the good rows of the others."""

    @property
    def good(self) -> list[Path]:
        """Files that together hold the good rows."""
        return sorted([*(file.path for file in self.whole), *self.apart])

    @property
    def rows(self) -> int:
        return sum(day.rows for day in self.days.values())

    @property
    def bad(self) -> int:
        return sum(day.bad for day in self.days.values())

    @property
    def reasons(self) -> dict[str, int]:
        """Rows by reason, in the order of the codes."""
        total: Counter[str] = Counter()
        for day in self.days.values():
            total.update(day.reasons)
        return {code: total[code] for code in ROW_CODES if total[code]}


@dataclass(frozen=True)
class Columns:
    """What to read of the log: SQL by column for all healthy ones, and which of them are context."""

    reads: dict[str, str]
    context: tuple[str, ...]

    @property
    def healthy(self) -> frozenset[str]:
        return frozenset(self.reads)


def scan(
    db: Any, files: Sequence[tables.File], rules: Sequence[RowRule], columns: Columns, kept: Path, quarantine: Path
) -> Scan:
    """Evaluates the rules whose columns are healthy, and writes soiled files apart into `kept` and `quarantine`.

    Raises:
        DataError: if a file cannot be read, naming it.
    """
    found = Scan(days={file.day: DayCount() for file in files})
    runnable = [rule for rule in rules if columns.healthy >= set(rule.needs)]
    total = sum(file.rows for file in files)
    repeated = 0
    if c.IMPRESSION_ID in columns.healthy and total:
        source = duck.parquet([file.path for file in files])
        repeated = duplicates.table_of(db, DUPLICATED, source, c.IMPRESSION_ID, total)
    usable = [r for r in runnable if r.code != "DUPLICATE_ID" or repeated]
    tally = Tally(usable)
    for batch in tables.batches([file for file in files if file.rows], ROWS_A_BATCH):
        _scan_batch(db, batch, tally, columns, found, kept, quarantine)
    if not found.bad:
        tables.write_no_bad(files, quarantine)
    found.outcomes = tuple(_outcome(rule, rule in runnable, tally, columns, found.rows) for rule in rules)
    return found


class Tally:
    """Rules by the place of their bit, how many rows each found, and examples."""

    def __init__(self, rules: Sequence[RowRule]) -> None:
        self.rules = rules
        self.words = [rules[start : start + BITS] for start in range(0, len(rules), BITS)]
        self.counts: dict[RowRule, int] = dict.fromkeys(rules, 0)
        self.examples: dict[RowRule, list[str]] = {rule: [] for rule in rules}

    def sql(self) -> list[str]:
        """An integer expression a word, with the bit of each rule that objects to the row."""
        return [
            " | ".join(f"CASE WHEN {rule.bad} THEN {1 << bit} ELSE 0 END::BIGINT" for bit, rule in enumerate(word))
            for word in self.words
        ]

    def of(self, words: Sequence[int]) -> tuple[RowRule, ...]:
        """The rules behind the bits, in order."""
        return tuple(
            rule
            for word, rules in zip(words, self.words, strict=True)
            for bit, rule in enumerate(rules)
            if word >> bit & 1
        )

    def wants(self, rule: RowRule) -> bool:
        return bool(rule.shows) and len(self.examples[rule]) < EXAMPLES

    def show(self, rule: RowRule, values: Sequence[Any]) -> None:
        example = " / ".join(text(value) for value in values)
        if self.wants(rule) and example not in self.examples[rule]:
            self.examples[rule].append(example)


@dataclass(frozen=True)
class Group:
    """Rows of one file with the same bits and split. `bad` are their numbers, none for good rows."""

    file: int
    split: str | None
    rows: int
    clicks: int
    conversions: int
    values: tuple[int, ...]
    rules: tuple[RowRule, ...]
    bad: Any


def _scan_batch(
    db: Any, batch: list[tables.File], tally: Tally, columns: Columns, found: Scan, kept: Path, quarantine: Path
) -> None:
    groups = _groups(db, batch, tally, columns)
    for group in groups:
        _count(group, batch[group.file].day, tally, columns, found)
    _find_examples(db, batch, groups, tally, columns)
    soiled: list[tuple[tables.File, tables.Bad]] = []
    for number, file in enumerate(batch):
        bad = _bad(group for group in groups if group.file == number and group.rules)
        if bad is None:
            found.whole.append(file)
        else:
            soiled.append((file, bad))
    with ThreadPoolExecutor(WRITERS) as pool:
        written = pool.map(lambda pair: tables.write_apart(pair[0], pair[1], kept, quarantine), soiled)
        found.apart += [path for path in written if path is not None]


def _source(batch: Sequence[tables.File], columns: Columns) -> str:
    """The batch's rows as the rules see them, with their file's number in the batch and their own in the file."""
    source = duck.parquet([file.path for file in batch], partitioned=True, numbered=True)
    reads = ", ".join(f"{sql} AS {duck.name(name)}" for name, sql in columns.reads.items())
    return f"(SELECT {reads}{', ' * bool(reads)}{c.PARTITION}, file_index, file_row_number FROM {source})"


def _groups(db: Any, batch: Sequence[tables.File], tally: Tally, columns: Columns) -> list[Group]:
    words = [f"{sql} AS w{number}" for number, sql in enumerate(tally.sql())]
    names = [f"w{number}" for number in range(len(words))]
    healthy = columns.healthy
    plain = [name for name in (c.SPLIT, c.CLICK, c.CONVERSION) if name in healthy]
    counted = [f"count_if({name} = 1)::BIGINT" if name in healthy else "0" for name in (c.CLICK, c.CONVERSION)]
    filled = [duck.name(name) for name in columns.context]
    split = c.SPLIT if c.SPLIT in healthy else "NULL"
    soiled = " OR ".join(f"{name} <> 0" for name in names) or "false"
    inner = ", ".join(["file_index", "file_row_number", *dict.fromkeys([*plain, *filled]), *words])
    table = db.sql(
        f"SELECT file_index, {split} AS split, count(*), {', '.join([*counted, *(f'count({f})' for f in filled)])}, "
        f"{', '.join([*names, ''])} list(file_row_number) FILTER ({soiled}) AS bad "
        f"FROM (SELECT {inner} FROM {_source(batch, columns)}) GROUP BY {', '.join(['file_index', split, *names])}"
    ).to_arrow_table()
    lists = table.column(table.num_columns - 1)
    first = 5 + len(filled)
    found = []
    for number, line in enumerate(zip(*(column.to_pylist() for column in table.columns[:-1]), strict=True)):
        rules = tally.of(line[first:])
        bad = lists[number].values.to_numpy(zero_copy_only=False).astype(np.int64) if rules else None
        found.append(Group(line[0], line[1], line[2], line[3], line[4], line[5:first], rules, bad))
    return sorted(found, key=lambda group: (group.file, str(group.split), tuple(map(tally.rules.index, group.rules))))


def _count(group: Group, day: str, tally: Tally, columns: Columns, found: Scan) -> None:
    counted = found.days[day]
    counted.rows += group.rows
    split = group.split
    if split is not None:
        found.all_splits[split] += group.rows
    for rule in group.rules:
        tally.counts[rule] += group.rows
    if group.rules:
        counted.bad += group.rows
        for code in _codes(group.rules):
            counted.reasons[code] += group.rows
        return
    if split is not None:
        found.splits[split] += group.rows
        found.conversions[split] += group.conversions
    found.clicks += group.clicks
    found.values.update(dict(zip(columns.context, group.values, strict=True)))


def _codes(rules: Sequence[RowRule]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(rule.code for rule in rules))


def _bad(groups: Iterable[Group]) -> tables.Bad | None:
    """The bad rows of a file, or None if it has none."""
    found = list(groups)
    if not found:
        return None
    rows = np.concatenate([group.bad for group in found])
    which = np.repeat(np.arange(len(found)), [len(group.bad) for group in found])
    order = np.argsort(rows, kind="stable")
    return tables.Bad(rows[order], which[order], tuple(_codes(group.rules) for group in found))


def _find_examples(
    db: Any, batch: Sequence[tables.File], groups: Sequence[Group], tally: Tally, columns: Columns
) -> None:
    """Looks up values of some bad rows for the rules that have too few examples, in the log's order."""
    wanted: dict[tuple[int, int], tuple[RowRule, ...]] = {}
    for group in groups:
        rules = tuple(rule for rule in group.rules if tally.wants(rule))
        if rules:
            first = np.sort(group.bad)[:SAMPLED]
            wanted.update({(group.file, int(row)): rules for row in first})
    if not wanted:
        return
    shown = list(dict.fromkeys(name for rules in wanted.values() for rule in rules for name in rule.shows))
    places = pa.table(
        {"f": pa.array([f for f, _ in wanted], pa.int64()), "r": pa.array([r for _, r in wanted], pa.int64())}
    )
    source = _source(batch, columns)
    # Times and lists as text: not all of them exist in Python.
    kinds = duck.types(db, source)
    values = ", ".join(duck.name(n) + ("" if kinds[n] in ("VARCHAR", "DOUBLE") else "::VARCHAR") for n in shown)
    db.register("wanted_rows", places)
    rows = db.execute(
        f"SELECT file_index, file_row_number, {values} FROM {source} "
        "SEMI JOIN wanted_rows ON file_index = f AND file_row_number = r ORDER BY 1, 2"
    ).fetchall()
    db.unregister("wanted_rows")
    for file, row, *cells in rows:
        by_name = dict(zip(shown, cells, strict=True))
        for rule in wanted[file, row]:
            tally.show(rule, [by_name[name] for name in rule.shows])


def _outcome(rule: RowRule, ran: bool, tally: Tally, columns: Columns, rows: int) -> Outcome:
    facts: dict[str, Any] = {
        "suite": "log rows", "kind": ENGINE, "code": rule.code, "scope": ROW, "says": rule.says, "needs": rule.needs,
    }  # fmt: skip
    if not ran or not rows:
        lacking = sorted(set(rule.needs) - columns.healthy) or ["rows"]
        return Outcome(**facts, status="not run", problem=f"not run: it needs {', '.join(lacking)}")
    bad = tally.counts.get(rule, 0)
    return Outcome(
        **facts, status="failed" if bad else "passed", observed=f"{bad:,} of {rows:,} rows", unexpected=bad, rows=rows,
        examples=tuple(tally.examples.get(rule, ())),
    )  # fmt: skip
