"""Repeated keys: exact across files and passes, whatever the memory a pass is given."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.contracts import duck
from components.validation import duplicates


def write(folder: Path, days: list[list[str | None]]) -> str:
    for number, ids in enumerate(days):
        pq.write_table(pa.table({"id": pa.array(ids, pa.string())}), folder / f"{number}.parquet")
    return duck.parquet(sorted(folder.glob("*.parquet")))


@pytest.mark.parametrize("keys_a_pass", [1, 7, 100, 10**6])
@pytest.mark.parametrize("different", [3, 150, 10**9])
def test_finds_what_counting_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys_a_pass: int, different: int
) -> None:
    """`different` 3: nearly all are copies; 10^9: nearly none."""
    chance = random.Random(keys_a_pass)
    days = [[chance.choice([None, "", str(chance.randrange(different)) * 3]) for _ in range(60)] for _ in range(4)]
    counts = Counter(key for day in days for key in day if key is not None)
    monkeypatch.setattr(duplicates, "KEYS_A_PASS", keys_a_pass)
    with duck.connect() as db:
        source = write(tmp_path, days)
        number = duplicates.table_of(db, "twice", source, "id", 240)
        found = [key for (key,) in db.execute("SELECT id FROM twice").fetchall()]
        rows = duplicates.count(db, source, ("id",), 240)
    expected = {key for key, count in counts.items() if count > 1}
    assert (set(found), len(found), number) == (expected, len(expected), len(expected))
    assert rows == sum(counts[key] for key in expected)


def test_a_pass_takes_about_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "KEYS_A_PASS", 1000)
    with duck.connect() as db:
        source = write(tmp_path, [[f"id-{n}" for n in range(5000)] * 2])
        sizes = [len(db.execute(query).fetchall()) for query in duplicates.passes(source, ("id",), 10_000)]
    assert len(sizes) == 10
    assert sum(sizes) == 5000
    assert max(sizes) < 600


def test_keys_of_several_columns_with_a_null_are_no_copies(tmp_path: Path) -> None:
    table = pa.table({"a": ["x", "x", "x", None, None], "b": [1, 1, 2, 1, 1]})
    pq.write_table(table, tmp_path / "0.parquet")
    with duck.connect() as db:
        assert duplicates.count(db, duck.parquet([tmp_path / "0.parquet"]), ("a", "b"), 5) == 2
