"""The real file where there is one, and a synthetic one of the same header everywhere."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from components.contracts.dataset import data_fingerprint, read_info
from components.contracts.errors import DataError
from components.ingestion.ingest import IngestConfig, default_as_of, run
from components.ingestion.sources.hillstrom import CONTEXT, HEADER, SEGMENTS, import_hillstrom

REAL = Path(__file__).parents[2].parent / "shared" / "data" / "hillstrom" / "hillstrom.csv"
GOOD = "10,2) $100 - $200,142.44,1,0,Surburban,0,Phone,Womens E-Mail,0,0,0"


@pytest.fixture
def synthetic(tmp_path: Path) -> Path:
    lines = [",".join(HEADER)]
    for n in range(600):
        visit, bought = int(n % 5 == 0), int(n % 50 == 0)
        spend = 29.99 if bought else 0
        customer = f"{n % 12 + 1},1) $0 - $100,{29.99 + n},{n % 2},{(n + 1) % 2},Urban,{n % 2},Web"
        lines.append(f"{customer},{SEGMENTS[n % 3]},{visit},{bought},{spend}")
    path = tmp_path / "hillstrom.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def check(csv_file: Path, out: Path, rows: int, clicks: int, conversions: int) -> None:
    assert import_hillstrom(csv_file, out) == {"rows": rows, "clicks": clicks, "conversions": conversions}
    info = read_info(out)
    assert (info.name, info.recipe, info.clock, info.split.kind) == ("hillstrom", "hillstrom", "frozen", "hash")
    assert (info.id_features, info.has_label_times, info.label_window_seconds) == (("item_id",), False, 0)
    table = pq.read_table(str(next(out.glob("log/dt=2008-03-20/*.parquet"))), partitioning=None)
    assert table.num_rows == rows
    assert set(table.column("item_id").to_pylist()) == set(SEGMENTS)
    assert len(set(table.column("user_id").to_pylist())) == rows
    assert set(CONTEXT) < set(table.column_names)
    assert "spend" not in table.column_names  # an outcome
    assert {"segment", "visit"}.isdisjoint(table.column_names)
    stamps = table.column("event_timestamp").to_pylist()
    assert stamps == sorted(stamps)
    assert {stamp.date().isoformat() for stamp in stamps} == {"2008-03-20"}
    config = IngestConfig(data=str(out), fingerprint=data_fingerprint(out), as_of=default_as_of(out), split=info.split)
    facts = run(config, out.parent / "i", out.parent / "f")["rows"]
    assert facts["train"] + facts["valid"] + facts["test"] == rows


def test_the_real_file(tmp_path: Path) -> None:
    if not REAL.is_file():
        pytest.skip(f"{REAL} is absent: the counts of the real file (64,000, 9,394, 578) were not checked")
    check(REAL, tmp_path / "out", 64_000, 9_394, 578)


def test_a_synthetic_file(synthetic: Path, tmp_path: Path) -> None:
    check(synthetic, tmp_path / "out", 600, 120, 12)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "has the header 'a,b'"),
        (",".join(HEADER[:-1]) + "\n", "is it the challenge's file"),
        ("", "has the header ''"),
        (",".join(HEADER) + "\n", "a header and no rows"),
        (
            ",".join(HEADER) + f"\n{GOOD}\n{GOOD.replace('10,', 'ten,', 1)}\n",
            "line 3: recency is 'ten', not a number of months",
        ),
        (",".join(HEADER) + f"\n{GOOD.replace('142.44', 'nan')}\n", "line 2: history is 'nan', not an amount"),
        (",".join(HEADER) + f"\n{GOOD.replace('Womens E-Mail', 'Spam')}\n", "line 2: segment is 'Spam', not one of"),
        (",".join(HEADER) + f"\n{GOOD.replace(',0,0,0', ',2,0,0')}\n", "line 2: visit is '2', not 0 or 1"),
        (",".join(HEADER) + "\n10,2) $100 - $200,142.44\n", "line 2: .* is None"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        import_hillstrom(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_or_binary_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        import_hillstrom(tmp_path / "none.csv", tmp_path / "out")
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(DataError, match="no CSV text"):
        import_hillstrom(tmp_path / "b.csv", tmp_path / "out")
