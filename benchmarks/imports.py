"""Getting data in: the Ali-CCP importer against the loop one would write by hand.

The peer reads the common file into a dict, then the skeleton line by line with `csv`, splits the features and writes
the same two tables through pyarrow, fifty thousand rows at a time. It checks nothing and refuses nothing. Each turn is
a process of its own, so that peak memory is the contender's; the seconds are taken inside it, imports left out.
Run by `benchmarks.data`.
"""

from __future__ import annotations

import csv
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.ali_ccp_files import Files, write
from benchmarks.figures import Figures, Ratios, figure, peak_mb
from components.ingestion.sources.ali_ccp import CONTEXT, USER_FIELDS, import_ali_ccp
from components.ingestion.sources.ali_ccp_format import COMMON, SKELETON

LINES, ROUNDS, LINES_A_GROUP = 300_000, 3, 10
FULL = Files(lines=2_000_000, groups=200_000, items=50_000)
PUBLISHED = {"lines": 42_300_000, "groups": 730_000}
"""The published training files."""
BATCH = 50_000
_TYPES = {"string": pa.string(), "strings": pa.list_(pa.string()), "floats": pa.list_(pa.float64())}
_USER_SCHEMA = pa.schema([("group_id", pa.string()), *((name, _TYPES[kind]) for name, kind in USER_FIELDS.items())])
_LOG_SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in ("impression_id", "user_id", "item_id", "group_id")),
        *((name, _TYPES[kind]) for name, kind in CONTEXT.items()),
        *((name, pa.int64()) for name in ("click", "conversion")),
    ]
)


def import_figures(lines: int, rounds: int) -> tuple[Figures, Ratios]:
    """Lines/s, processor time a line and peak MB of both, in turns, after one round that does not count.

    `lines` are those of the skeleton; the rates count all lines of both files.

    Returns:
        Figures by name (median, min, max, runs), and `import_vs_plain_loop`: our median rate over the loop's.
    """
    results: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as scratch:
        files = Path(scratch) / "raw"
        write(files, Files(lines=lines, groups=max(1, lines // LINES_A_GROUP)))
        for turn in range(rounds + 1):
            for name in CONTENDERS:
                out = Path(scratch) / f"{name}-{turn}"
                results[name].append(_in_a_process(name, files, out))
                shutil.rmtree(out)
    rates = {name: [each["lines"] / each["seconds"] for each in found[1:]] for name, found in results.items()}
    figures = {f"{name}_lines_per_s": figure(values) for name, values in rates.items()}
    for name, found in results.items():
        figures[f"{name}_cpu_us_per_line"] = figure([each["cpu"] / each["lines"] * 1e6 for each in found[1:]])
        figures[f"{name}_peak_mb"] = figure([each["peak_mb"] for each in found[1:]])
    ours, theirs = (statistics.median(rates[name]) for name in CONTENDERS)
    return figures, {"import_vs_plain_loop": ours / theirs}


def full_figures() -> Figures:
    """The importer alone on `FULL`, on four times its lines, and on as many groups as the published set has.

    Memory is that of the index of groups, which is measured in full, and of what is parsed at a time, which does not
    grow with the lines: what 42 million of them would take is stated from the slope between `FULL` and four times
    that, noise and all, as `peak(all groups) + max(0, slope) * (published lines - lines)`.
    """
    sizes = FULL, replace(FULL, lines=4 * FULL.lines), replace(FULL, groups=PUBLISHED["groups"])
    full, more, groups = (_alone(size) for size in sizes)
    slope = (more["peak_mb"] - full["peak_mb"]) / (3 * FULL.lines)
    figures = {
        "full_lines_per_s": full["lines"] / full["seconds"],
        "full_cpu_us_per_line": full["cpu"] / full["lines"] * 1e6,
        "full_peak_mb": full["peak_mb"],
        "four_times_the_lines_peak_mb": more["peak_mb"],
        "all_groups_lines_per_s": groups["lines"] / groups["seconds"],
        "all_groups_peak_mb": groups["peak_mb"],
        "extrapolated_peak_mb": groups["peak_mb"] + max(0.0, slope) * (PUBLISHED["lines"] - FULL.lines),
    }
    return {name: figure([value]) for name, value in figures.items()}


def _alone(size: Files) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as scratch:
        write(Path(scratch) / "raw", size)
        return _in_a_process("importer", Path(scratch) / "raw", Path(scratch) / "out")


def ours(files: Path, out: Path) -> int:
    facts = import_ali_ccp(files / "sample_skeleton_train.csv", files / "common_features_train.csv", out)
    return int(facts["lines"])


def plain_loop(files: Path, out: Path) -> int:
    """What one would write: a dict of users' rows, a loop over impressions."""
    out.mkdir(parents=True)
    common: dict[str, dict[str, Any]] = {}
    with (files / "common_features_train.csv").open(newline="", encoding="utf-8") as file:
        for group, _, text in csv.reader(file):
            common[group] = {"group_id": group, **_split(text, COMMON.bags)}
    users = iter(common.values())
    lines = _write(out / "users.parquet", users, _USER_SCHEMA)
    with (files / "sample_skeleton_train.csv").open(newline="", encoding="utf-8") as file:
        lines += _write(out / "log.parquet", _impressions(csv.reader(file), common), _LOG_SCHEMA)
    return lines


def _impressions(lines: Iterator[list[str]], common: dict[str, dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for sample, click, buy, group, _, text in lines:
        row = _split(text, SKELETON.bags)
        row["impression_id"], row["group_id"] = sample, group
        row["user_id"], row["item_id"] = common[group]["f101"], row["f205"]
        row["click"], row["conversion"] = int(click), int(buy)
        yield row


def _split(text: str, bags: tuple[str, ...]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for feature in text.split("\x01"):
        field, rest = feature.split("\x02")
        value, weight = rest.split("\x03")
        name = "f" + field
        if field in bags:
            row.setdefault(name, []).append(value)
            row.setdefault(name + "_weights", []).append(float(weight))
        else:
            row[name] = value
    return row


def _write(path: Path, rows: Iterator[dict[str, Any]], schema: pa.Schema) -> int:
    count, batch = 0, []
    with pq.ParquetWriter(path, schema) as writer:
        for row in rows:
            batch.append(row)
            if len(batch) == BATCH:
                writer.write_table(pa.Table.from_pylist(batch, schema))
                count, batch = count + len(batch), []
        writer.write_table(pa.Table.from_pylist(batch, schema))
    return count + len(batch)


CONTENDERS = {"importer": ours, "plain_loop": plain_loop}


def _in_a_process(name: str, files: Path, out: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.imports", name, str(files), str(out)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def _contend(name: str, files: str, out: str) -> None:
    started, cpu = time.perf_counter(), time.process_time()
    lines = CONTENDERS[name](Path(files), Path(out))
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    print(json.dumps({"lines": lines, "seconds": seconds, "cpu": cpu, "peak_mb": peak_mb()}))


if __name__ == "__main__":
    _contend(*sys.argv[1:])
