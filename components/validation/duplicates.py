"""Rows that share a key, found exactly and in bounded memory, however large the table.

The keys are dealt to passes by a hash; each pass reads only the key's columns and groups its own part.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

KEYS_A_PASS = 1_000_000
"""About 100 MB of keys at a time; a log of 42 million rows is then read 42 times, its ids alone."""


def passes(source: str, keys: tuple[str, ...], rows: int) -> Iterator[str]:
    """Queries that together give every key that occurs more than once, and how often, as `copies`. A key with a null
    in it is left out."""
    number = max(1, -(-rows // KEYS_A_PASS))
    listed = ", ".join(keys)
    whole = " AND ".join(f"{key} IS NOT NULL" for key in keys)
    for turn in range(number):
        mine = f" AND hash({listed}) % {number} = {turn}" if number > 1 else ""
        yield (
            f"SELECT {listed}, count(*) AS copies FROM {source} WHERE {whole}{mine} GROUP BY {listed} HAVING copies > 1"
        )


def table_of(db: Any, table: str, source: str, key: str, rows: int) -> int:
    """Makes a temporary table of the keys that occur more than once. Returns how many there are."""
    db.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT {key} FROM {source} LIMIT 0")
    for query in passes(source, (key,), rows):
        db.execute(f"INSERT INTO {table} SELECT {key} FROM ({query})")
    return int(db.execute(f"SELECT count(*) FROM {table}").fetchall()[0][0])


def count(db: Any, source: str, keys: tuple[str, ...], rows: int) -> int:
    """How many rows share their key with another."""
    found = [db.execute(f"SELECT sum(copies) FROM ({query})").fetchall()[0][0] for query in passes(source, keys, rows)]
    return int(sum(copies or 0 for copies in found))
