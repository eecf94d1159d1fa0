"""Validation at size: this stage against the same checks by hand in DuckDB, and memory over the number of days.

The peer is one SQL statement as one would write it for this log: every row rule of the stage as a `count_if` by day,
the set-wide figures beside them, and ids that occur twice, on all cores. It names no row, writes nothing and renders
nothing; the stage puts bad rows aside with their reasons, measures the profile, runs Great Expectations and writes
the page.
Run by `benchmarks.data`.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from benchmarks.figures import Figures, Ratios, figure, peak_mb
from benchmarks.interleave import rates
from components.contracts.artifacts import Rows
from components.contracts.dataset import DatasetInfo
from components.contracts.files import write_manifest
from components.contracts.spec import Dtype, Feature, FeatureSpec
from components.validation.validate import ValidateConfig, run

ROWS, DAYS, ROUNDS = 1_000_000, 10, 5
MEMORY_DAYS, ROWS_A_DAY, MEMORY_RUNS = (10, 40), 100_000, 2
START = datetime(2026, 1, 1, tzinfo=UTC)
NUMBERS, CATEGORIES = 6, 6
"""Context columns beside position, hour and device; with ids, labels, times and split they make 25."""
ONE_IN_BAD = 1000

CONTEXT: dict[str, Dtype] = {
    "position": "int", "hour": "int", "device": "string", **{f"number{n}": "float" for n in range(NUMBERS)},
    **{f"category{n}": "string" for n in range(CATEGORIES)},
}  # fmt: skip
INFO = DatasetInfo(
    name="benchmark", source="made", context=CONTEXT, click_window_seconds=3600.0, conversion_window_seconds=86400.0,
    has_label_times=True,
)  # fmt: skip
SPEC = FeatureSpec(
    features=(
        Feature(name="user_id", source="id", dtype="string", encoding="id"),
        Feature(name="item_id", source="id", dtype="string", encoding="id"),
        *(
            Feature(
                name=name, source="context", dtype=dtype, encoding="id" if dtype == "string" else "bucket",
                tower="ctr" if name == "position" else "shared",
                minimum=0.0 if dtype == "float" else None, maximum=1000.0 if dtype == "float" else None,
            )
            for name, dtype in CONTEXT.items()
        ),
    )
)  # fmt: skip


def make_log(folder: Path, rows: int, days: int) -> int:
    """Seals an impression log as ingestion leaves it, one row in a thousand bad. Returns its number of columns."""
    a_day = rows // days
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'; SET threads = 1")
        for day in range(days):
            midnight = START + timedelta(days=day)
            part = folder / f"dt={midnight.date()}"
            part.mkdir(parents=True)
            split = "train" if day < days - 3 else "valid" if day < days - 2 else "test"
            db.execute(f"COPY ({_day_sql(day * a_day, a_day, midnight, split)}) TO '{part / 'part-0.parquet'}'")
        columns = len(db.execute(f"DESCRIBE SELECT * FROM '{part / 'part-0.parquet'}'").fetchall())
    as_of = (START + timedelta(days=days + 3)).isoformat()
    ranges = {"kind": "time", "train": ["", ""], "valid": ["", ""], "test": ["", ""]}
    write_manifest(folder, rows=Rows(total=rows).model_dump(), ranges=ranges, as_of=as_of)
    return columns


def _day_sql(first: int, rows: int, midnight: datetime, split: str) -> str:
    number = f"({first} + i)"
    at = f"TIMESTAMPTZ '{midnight.isoformat()}' + to_microseconds((i * 86400000000 // {rows})::BIGINT)"
    clicked, bought = f"hash({number} * 17) % 20 = 0", f"hash({number} * 17) % 400 = 0"
    numbers = [f"(hash({number} * {11 + n}) % 10000 / 10.0)::DOUBLE AS number{n}" for n in range(NUMBERS)]
    categories = [f"'c' || (hash({number} * {31 + n}) % 100) AS category{n}" for n in range(CATEGORIES)]
    return f"""
        SELECT 'imp-' || {number} AS impression_id, 'user-' || (hash({number}) % 100000) AS user_id,
            'item-' || (hash({number} * 7) % 10000) AS item_id, {at} AS event_timestamp,
            CASE WHEN i % {ONE_IN_BAD} = 0 THEN 0 ELSE hash({number} * 3) % 20 + 1 END::BIGINT AS position,
            (i * 24 // {rows})::BIGINT AS hour, ['phone', 'web', 'tablet'][(i % 3)::BIGINT + 1] AS device,
            {", ".join([*numbers, *categories])}, ({clicked})::TINYINT AS click,
            CASE WHEN {clicked} THEN {at} + INTERVAL 30 SECOND END AS click_timestamp,
            ({bought})::TINYINT AS conversion, CASE WHEN {bought} THEN {at} + INTERVAL 60 SECOND END
            AS conversion_timestamp, '{split}' AS split
        FROM range({rows}) t(i) ORDER BY event_timestamp, impression_id"""


def by_hand(log: Path, as_of: str) -> str:
    """The same checks in one statement."""
    strings = ("impression_id", "user_id", "item_id")
    numbers = [name for name, dtype in CONTEXT.items() if dtype == "float"]
    checks = [f"count_if({name} IS NULL)" for name in (*strings, "event_timestamp", "click", "conversion", "split")]
    for name in strings:
        checks += [
            f"count_if(length({name}) NOT BETWEEN 1 AND 256)",
            rf"count_if(regexp_matches({name}, '[\x00-\x1f\x7f]'))",
        ]
    checks += ["count_if(click NOT IN (0, 1))", "count_if(conversion NOT IN (0, 1))", "count_if(conversion > click)"]
    checks += [
        "count_if(click_timestamp < event_timestamp)",
        "count_if(conversion_timestamp < click_timestamp)",
        "count_if(click = 1 AND click_timestamp IS NULL)",
        "count_if(click = 1 AND click_timestamp > event_timestamp + INTERVAL 1 HOUR)",
        "count_if(click = 0 AND click_timestamp < event_timestamp + INTERVAL 1 HOUR)",
        "count_if(click = 1 AND conversion = 1 AND conversion_timestamp IS NULL)",
        "count_if(click = 1 AND conversion = 1 AND conversion_timestamp > click_timestamp + INTERVAL 1 DAY)",
        "count_if(click = 1 AND conversion = 0 AND conversion_timestamp < click_timestamp + INTERVAL 1 DAY)",
        "count_if(event_timestamp::DATE <> dt)",
        f"count_if(event_timestamp < TIMESTAMPTZ '1990-01-01 00:00:00Z' OR event_timestamp >= TIMESTAMPTZ '{as_of}')",
        "count_if(split NOT IN ('train', 'valid', 'test', 'gap'))",
        "count_if(position NOT BETWEEN 1 AND 1000)",
        "count_if(hour NOT BETWEEN 0 AND 23)",
    ]
    checks += [f"count_if(isinf({name}))" for name in numbers]
    checks += [f"count_if({name} < 0 OR {name} > 1000)" for name in numbers]
    checks += [f"count({name})" for name in CONTEXT]
    checks += ["count(*)", "sum(click)", "sum(conversion)"]
    source = f"read_parquet('{log}/*/*.parquet', hive_partitioning = true)"
    return f"SELECT dt, split, {', '.join(checks)} FROM {source} GROUP BY ALL"


def ours(log: Path, folder: Path, rows: int) -> Callable[[], int]:
    """The stage as a run calls it; what it writes is removed."""
    features = folder / "features"
    if not features.exists():
        features.mkdir()
        write_manifest(features)

    def work() -> int:
        out = Path(tempfile.mkdtemp(dir=folder))
        facts = run(
            ValidateConfig(spec=SPEC, info=INFO), log, features, out / "clean", out / "quarantine", out / "docs.html"
        )
        assert (facts["rows"], facts["quarantined"]) == (rows, rows // ONE_IN_BAD), facts
        shutil.rmtree(out)
        return rows

    return work


def theirs(log: Path, rows: int, days: int) -> Callable[[], int]:
    """The statement by hand, on a connection of its own; ids are then compared across days."""
    sql = by_hand(log, (START + timedelta(days=days + 3)).isoformat())
    twice = f"SELECT count(*) FROM (SELECT impression_id FROM '{log}/*/*.parquet' GROUP BY 1 HAVING count(*) > 1)"

    def work() -> int:
        with duckdb.connect() as db:
            db.execute("SET TimeZone = 'UTC'")
            found = db.execute(sql).fetchall()
            assert len(found) == days
            assert db.execute(twice).fetchall() == [(0,)]
        return rows

    return work


def validation_figures(rows: int = ROWS, rounds: int = ROUNDS) -> tuple[Figures, Ratios]:
    """Rows/s of the stage and of the statement by hand, in turns, after one round that does not count; peak memory of
    the stage over logs of 10 and of 40 days.

    Returns:
        Figures by name (median, min, max, runs), and the ratios `validate_vs_duckdb_1m` (our median rate over theirs)
        and `validate_memory_40_vs_10_days`.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        log = folder / "log"
        columns = make_log(log, rows, DAYS)
        assert columns == 25, columns
        found = rates({"validate": ours(log, folder, rows), "by_hand": theirs(log, rows, DAYS)}, rounds)
    peaks = {days: [peak_of(days) for _ in range(MEMORY_RUNS)] for days in MEMORY_DAYS}
    figures = {f"{name}_rows_per_s": figure(values) for name, values in found.items()}
    figures |= {f"validate_{days}_days_peak_mb": figure(values) for days, values in peaks.items()}
    few, many = (statistics.median(peaks[days]) for days in MEMORY_DAYS)
    return figures, {
        "validate_vs_duckdb_1m": statistics.median(found["validate"]) / statistics.median(found["by_hand"]),
        "validate_memory_40_vs_10_days": many / few,
    }


def peak_of(days: int) -> float:
    """Highest resident memory, MB, of a process that validates so many days, libraries included."""
    with tempfile.TemporaryDirectory() as scratch:
        make_log(Path(scratch) / "log", days * ROWS_A_DAY, days)
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.validation", scratch, str(days * ROWS_A_DAY)],
            cwd=Path(__file__).parents[1], capture_output=True, text=True, check=True,
        )  # fmt: skip
        return float(done.stdout.split()[-1])


def _contend(folder: Path, rows: int) -> None:
    ours(folder / "log", folder, rows)()
    print(peak_mb())


if __name__ == "__main__":
    _contend(Path(sys.argv[1]), int(sys.argv[2]))
