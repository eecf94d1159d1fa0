"""The Ali-CCP importer against counts made independently, with csv and split."""

from __future__ import annotations

import csv
import gzip
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from benchmarks.ali_ccp_files import SPOILS, Files, Spoiled, write
from benchmarks.imports import plain_loop
from components.contracts.dataset import data_fingerprint, read_imported, read_info
from components.contracts.errors import DataError, UsageError
from components.contracts.files import listing
from components.ingestion.sources import ali_ccp_account
from components.ingestion.sources.ali_ccp import CONTEXT, DAYS, USER_FIELDS, import_ali_ccp
from components.ingestion.sources.ali_ccp_format import COMMON, REASONS, SKELETON

REAL = Path("../shared/data/aliccp_raw")
BAGS = (*SKELETON.bags, *COMMON.bags)
COMMON_LINES = [
    b"aa,2,101\x021\x031.0\x01109_14\x025\x032.5",
    b"bb,3,101\x021\x031.0\x01121\x0298\x031.0\x01109_14\x026\x030.5",
    b"cc,1,101\x022\x031.0",
]
SKELETON_LINES = [
    b"1,1,1,aa,2,205\x0210\x031.0\x01206\x024\x031.0",
    b"2,1,0,aa,1,205\x0211\x031.0",
    b"3,0,0,bb,3,205\x0210\x031.0\x01210\x027\x031.0\x01210\x028\x030.5",
    b"4,0,1,cc,1,205\x0212\x031.0",
]

Import = Callable[..., dict[str, Any]]


def files(folder: Path, split: str = "train") -> tuple[Path, Path]:
    return folder / f"sample_skeleton_{split}.csv", folder / f"common_features_{split}.csv"


def counted(skeleton: Path, common: Path) -> dict[str, Any]:
    """Rows, clicks, conversions and values by field of clean files, by the plainest means."""
    facts: Counter[str] = Counter()
    values: Counter[str] = Counter()
    for path, head in ((skeleton, 5), (common, 2)):
        with path.open(newline="") as file:
            for line in csv.reader(file):
                facts["rows" if head == 5 else "groups"] += 1
                if head == 5:
                    facts["clicks"] += line[1] == "1"
                    facts["conversions"] += line[2] == "1"
                for feature in line[head].split("\x01"):
                    field, _, _ = feature.partition("\x02")
                    values[field] += field in BAGS
    return {**facts, "values": {field: values[field] for field in BAGS}}


def log_of(folder: Path) -> pa.Table:
    return ds.dataset(folder / "log", format="parquet").to_table()


def view_of(folder: Path) -> pa.Table:
    return ds.dataset(folder / "features" / "ali_ccp_user", format="parquet").to_table()


def refused_of(folder: Path) -> list[tuple[str, int, str, str]]:
    if not (folder / "refused").exists():
        return []
    table = ds.dataset(folder / "refused", format="parquet").to_table()
    assert table.schema.types == [pa.string(), pa.int64(), pa.string(), pa.string()]
    return [tuple(row.values()) for row in table.to_pylist()]


def check_counts(skeleton: Path, common: Path, out: Path) -> dict[str, Any]:
    """Imports clean files and compares everything countable."""
    facts = import_ali_ccp(skeleton, common, out)
    expected = counted(skeleton, common)
    assert {key: facts[key] for key in expected} == expected
    log, view = log_of(out), view_of(out)
    assert (log.num_rows, view.num_rows) == (expected["rows"], expected["groups"])
    assert sum(log.column("click").to_pylist()) == expected["clicks"]
    assert sum(log.column("conversion").to_pylist()) == expected["conversions"]
    for field, count in expected["values"].items():
        table = log if field in SKELETON.bags else view
        for column in (f"f{field}", f"f{field}_weights"):
            assert sum(len(each or ()) for each in table.column(column).to_pylist()) == count
    assert facts["lines"] == read_imported(out).lines == expected["rows"] + expected["groups"]  # type: ignore[union-attr]
    assert not refused_of(out)
    return facts


@pytest.fixture
def imported(tmp_path: Path) -> Import:
    """Imports lines written to skeleton.csv and common.csv; what was asked of the folder is read from tmp_path/out."""

    def run(
        skeleton: list[bytes] = SKELETON_LINES, common: list[bytes] = COMMON_LINES, **settings: Any
    ) -> dict[str, Any]:
        (tmp_path / "skeleton.csv").write_bytes(b"".join(line + b"\n" for line in skeleton))
        (tmp_path / "common.csv").write_bytes(b"".join(line + b"\n" for line in common))
        return import_ali_ccp(tmp_path / "skeleton.csv", tmp_path / "common.csv", tmp_path / "out", **settings)

    return run


def test_the_hand_made_sample(tmp_path: Path) -> None:
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is absent: the hand-made lines were not imported")
    facts = check_counts(*files(REAL), tmp_path / "out")
    assert (facts["rows"], facts["clicks"], facts["conversions"], facts["groups"]) == (4, 2, 2, 2)
    first = log_of(tmp_path / "out").to_pylist()[0]
    assert (first["f210"], first["f210_weights"]) == (["3881001", "3881777"], [1.0, 1.0])
    assert (first["f508"], first["f508_weights"]) == (["9351665"], [2.70805])
    assert any("1 rows have buy=1 and click=0" in note for note in facts["notes"])


def test_generated_files(tmp_path: Path) -> None:
    write(tmp_path, Files(lines=6000, groups=500, seed=11, funnel_errors=0.001))
    facts = check_counts(*files(tmp_path), tmp_path / "out")
    assert 0.02 < facts["clicks"] / facts["rows"] < 0.07
    assert facts["conversions"] > 5
    assert facts["users"] < facts["groups"]  # a user can have several groups
    assert all(facts["values"][field] > facts["groups"] for field in COMMON.bags)


def test_every_value_is_that_of_the_loop_by_hand(tmp_path: Path) -> None:
    """Also: the benchmark's peer does the same work."""
    write(tmp_path, Files(lines=2000, groups=150, seed=12))
    import_ali_ccp(*files(tmp_path), tmp_path / "out", chunk_bytes=100_000)
    assert plain_loop(tmp_path, tmp_path / "by_hand") == 2150
    for ours, theirs in ((log_of(tmp_path / "out"), "log"), (view_of(tmp_path / "out"), "users")):
        by_hand = pq.read_table(tmp_path / "by_hand" / f"{theirs}.parquet").to_pylist()
        assert len(by_hand) == ours.num_rows
        for row, expected in zip(ours.to_pylist(), by_hand, strict=True):
            expected |= {key: f"train-{expected[key]}" for key in ("impression_id", "group_id") if key in expected}
            assert {key: row[key] for key in expected} == expected


def test_rows_say_what_the_lines_say(imported: Import, tmp_path: Path) -> None:
    facts = imported()
    assert facts["conversions"] == 2
    log = log_of(tmp_path / "out").to_pylist()
    ids = [(row["impression_id"], row["user_id"], row["item_id"], row["group_id"]) for row in log]
    assert ids == [
        ("train-1", "1", "10", "train-aa"),
        ("train-2", "1", "11", "train-aa"),
        ("train-3", "1", "10", "train-bb"),
        ("train-4", "2", "12", "train-cc"),
    ]
    assert [(row["click"], row["conversion"]) for row in log] == [(1, 1), (1, 0), (0, 0), (0, 1)]
    assert [row["event_timestamp"].isoformat() for row in log[:2]] == [
        "2018-01-01T00:00:00+00:00",
        "2018-01-01T00:00:00.000001+00:00",
    ]
    assert [row["f206"] for row in log] == ["4", None, None, None]
    assert [row["f210"] for row in log] == [None, None, ["7", "8"], None]
    assert log[2]["f210_weights"] == [1.0, 0.5]
    view = view_of(tmp_path / "out").to_pylist()
    assert [row["group_id"] for row in view] == ["train-aa", "train-bb", "train-cc"]
    assert [(row["f121"], row["f109_14"], row["f109_14_weights"]) for row in view] == [
        (None, ["5"], [2.5]),
        ("98", ["6"], [0.5]),
        (None, None, None),
    ]
    assert {row[time].isoformat() for row in view for time in ("event_timestamp", "created")} == {
        "2017-12-31T23:59:59+00:00"
    }


def test_the_tables_have_the_declared_columns(imported: Import, tmp_path: Path) -> None:
    imported(name="mine")
    types = {"string": pa.string(), "strings": pa.list_(pa.string()), "floats": pa.list_(pa.float64())}
    utc = pa.timestamp("us", tz="UTC")
    (part,) = (tmp_path / "out" / "log").rglob("*.parquet")
    assert part.relative_to(tmp_path / "out").as_posix() == "log/dt=2018-01-01/part-00000.parquet"
    schema = pq.read_schema(part)
    assert dict(zip(schema.names, schema.types, strict=True)) == {
        **dict.fromkeys(("impression_id", "user_id", "item_id", "group_id"), pa.string()),
        "event_timestamp": utc,
        **{name: types[kind] for name, kind in CONTEXT.items()},
        "click": pa.int64(),
        "conversion": pa.int64(),
    }
    schema = view_of(tmp_path / "out").schema
    assert dict(zip(schema.names, schema.types, strict=True)) == {
        "group_id": pa.string(),
        **dict.fromkeys(("event_timestamp", "created"), utc),
        **{name: types[kind] for name, kind in USER_FIELDS.items()},
    }
    assert len(CONTEXT) + len(USER_FIELDS) == 2 + 14 - 2 + 2 * 9 - 2  # all 23 fields, less the two that are ids
    info = read_info(tmp_path / "out")
    assert (info.name, info.recipe, info.clock, info.split.kind) == ("mine", "ali_ccp", "frozen", "hash")
    assert set(info.item_context) == set(info.context) == set(CONTEXT)
    assert info.label_window_seconds == 0
    assert not info.has_label_times


def test_the_published_split_and_its_own_groups(tmp_path: Path) -> None:
    for split, lines in (("train", 3000), ("test", 2000)):
        write(tmp_path, Files(lines=lines, groups=200, seed=2), split)
    train, test = files(tmp_path), files(tmp_path, "test")
    facts = import_ali_ccp(*train, tmp_path / "out", *test)
    expected = [counted(*train), counted(*test)]
    for key in ("rows", "clicks", "conversions", "groups"):
        assert facts[key] == sum(each[key] for each in expected)
    log = log_of(tmp_path / "out").to_pylist()
    days = Counter(row["event_timestamp"].date().isoformat() for row in log)
    assert days == {DAYS["train"]: 3000, DAYS["test"]: 2000}
    assert all(row["group_id"].startswith(row["impression_id"].split("-")[0] + "-") for row in log)
    assert len({row["impression_id"] for row in log}) == 5000  # both files number their lines from 1
    known = {row["group_id"]: row["event_timestamp"] for row in view_of(tmp_path / "out").to_pylist()}
    assert len(known) == 400
    assert all(known[row["group_id"]] < row["event_timestamp"] for row in log)
    split = read_info(tmp_path / "out").split
    assert (split.kind, split.test_from) == ("published", "2018-01-02T00:00:00Z")


def test_every_spoiled_line_is_refused_by_name_and_no_other(tmp_path: Path) -> None:
    spoiled = write(tmp_path, Files(lines=4000, groups=400, seed=4, dirty=0.05))
    skeleton, common = files(tmp_path)
    facts = import_ali_ccp(skeleton, common, tmp_path / "out")
    refused = refused_of(tmp_path / "out")
    given = {"common_train": str(common), "skeleton_train": str(skeleton)}
    found = {Spoiled(name, line, reason) for name, path in given.items() for f, line, reason, _ in refused if f == path}
    orphans = {each for each in found if each.reason == "ORPHAN"}
    assert found - orphans == set(spoiled)
    assert {each.reason for each in spoiled} == set(SPOILS)
    bad = {(each.file, each.line) for each in spoiled}
    groups = {
        line.split(b",")[0]
        for number, line in enumerate(common.read_bytes().splitlines(), 1)
        if ("common_train", number) not in bad
    }
    lost = {
        number
        for number, line in enumerate(skeleton.read_bytes().splitlines(), 1)
        if ("skeleton_train", number) not in bad and line.split(b",")[3] not in groups
    }
    assert {each.line for each in orphans} == lost != set()
    assert facts["rows"] + facts["groups"] + len(refused) == facts["lines"] == 4400
    assert facts["rows"] + sum(f == str(skeleton) for f, *_ in refused) == 4000
    imported = read_imported(tmp_path / "out")
    assert imported is not None
    assert imported.refused == Counter(reason for _, _, reason, _ in refused) == facts["refused"]
    assert set(imported.refused) <= set(REASONS)
    assert not imported.truncated
    kept = [row["impression_id"] for row in log_of(tmp_path / "out").to_pylist()]
    gone = {line for f, line, _, _ in refused if f == str(skeleton)}
    assert kept == [f"train-{number}" for number in range(1, 4001) if number not in gone]


@pytest.mark.parametrize(
    ("skeleton", "common", "file", "line", "reason", "text"),
    [
        ([b"5,1,0,aa,2,205\x021\x031.0"], [], "skeleton.csv", 5, "FEATURE_COUNT", r"5,1,0,aa,2,205\x021\x031.0"),
        ([b"", SKELETON_LINES[0]], [], "skeleton.csv", 5, "EMPTY", ""),
        ([b"5,1,0,zz,1,205\x021\x031.0"], [], "skeleton.csv", 5, "ORPHAN", r"5,1,0,zz,1,205\x021\x031.0"),
        ([b"5,1,0,dd,1,205\x021\x031.0"], [], "skeleton.csv", 5, "ORPHAN", r"5,1,0,dd,1,205\x021\x031.0"),
        ([], [b"bb,1,101\x029\x031.0"], "common.csv", 4, "DUPLICATE_GROUP", r"bb,1,101\x029\x031.0"),
        ([], [b"cc,1,101\x022\x031.0"], "common.csv", 4, "DUPLICATE_GROUP", r"cc,1,101\x022\x031.0"),
        ([], [b"dd,1,121\x029\x031.0"], "common.csv", 4, "NO_USER", r"dd,1,121\x029\x031.0"),
        ([], [b"dd,1,205\x029\x031.0"], "common.csv", 4, "FIELD", r"dd,1,205\x029\x031.0"),
        ([], [b"\xff\xfe,1,101\x029\x031.0"], "common.csv", 4, "NOT_UTF8", r"\xff\xfe,1,101\x029\x031.0"),
    ],
)
def test_a_refused_line_is_named(
    imported: Import, tmp_path: Path, skeleton: Any, common: Any, file: str, line: int, reason: str, text: str
) -> None:
    facts = imported(SKELETON_LINES + skeleton, COMMON_LINES + common)
    assert refused_of(tmp_path / "out") == [(str(tmp_path / file), line, reason, text)]
    assert facts["refused"] == {reason: 1}
    assert facts["rows"] == 4 + (len(skeleton) == 2)
    assert facts["groups"] == 3
    row = log_of(tmp_path / "out").to_pylist()[2]
    assert (row["group_id"], row["user_id"]) == ("train-bb", "1")  # of two lines of a group the first stays


@pytest.mark.parametrize("end", [b"\r\n", b"\n"])
def test_line_ends_and_a_missing_last_one(imported: Import, tmp_path: Path, end: bytes) -> None:
    imported()
    for name, lines in (("s", SKELETON_LINES), ("c", COMMON_LINES)):
        (tmp_path / name).write_bytes(end.join(lines))
    import_ali_ccp(tmp_path / "s", tmp_path / "c", tmp_path / "other")
    assert log_of(tmp_path / "other").equals(log_of(tmp_path / "out"))
    assert not refused_of(tmp_path / "other")


def test_gzip_gives_the_same_bytes_and_so_does_a_second_time(tmp_path: Path) -> None:
    write(tmp_path / "a", Files(lines=3000, groups=300, seed=6))
    for path in files(tmp_path / "a"):
        packed = tmp_path / "b" / path.name
        packed.parent.mkdir(exist_ok=True)
        packed.write_bytes(gzip.compress(path.read_bytes(), 1))
    outs = [tmp_path / name for name in ("once", "again", "packed")]
    for out, folder in zip(outs, ("a", "a", "b"), strict=True):
        import_ali_ccp(*files(tmp_path / folder), out, chunk_bytes=20_000)
    assert data_fingerprint(outs[0]) == data_fingerprint(outs[1])
    for name in listing(outs[0]):
        if name != "import.json":  # it names the files
            assert (outs[0] / name).read_bytes() == (outs[2] / name).read_bytes()


@pytest.mark.parametrize("size", [1, 300, 5000])
def test_where_chunks_are_cut_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    write(tmp_path, Files(lines=400, groups=60, seed=7, dirty=0.03))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    facts = import_ali_ccp(*files(tmp_path), whole)
    monkeypatch.setattr(ali_ccp_account, "FILE", 10_000)
    assert import_ali_ccp(*files(tmp_path), cut, chunk_bytes=size) == facts
    assert len(list((cut / "log").rglob("*.parquet"))) > 1
    assert log_of(cut).equals(log_of(whole))
    assert view_of(cut).equals(view_of(whole))
    assert refused_of(cut) == refused_of(whole) != []


@pytest.mark.parametrize("which", [0, 1])
def test_a_gzip_cut_short(tmp_path: Path, which: int) -> None:
    write(tmp_path, Files(lines=3000, groups=300, seed=8))
    paths = list(files(tmp_path))
    text = paths[which].read_bytes()
    broken = tmp_path / "broken.gz"
    packed = gzip.compress(text)
    broken.write_bytes(packed[: len(packed) // 2])
    paths[which] = broken
    facts = import_ali_ccp(*paths, tmp_path / "out")
    imported = read_imported(tmp_path / "out")
    assert imported is not None
    assert imported.truncated == (str(broken),) == tuple(facts["truncated"])
    assert facts["refused"]["TRUNCATED"] == 1
    assert any("cut short" in note for note in facts["notes"])
    (refused,) = [row for row in refused_of(tmp_path / "out") if row[2] == "TRUNCATED"]
    line = text.split(b"\n")[refused[1] - 1]
    assert refused[0] == str(broken)
    assert line.decode().startswith(refused[3].encode().decode("unicode_escape"))
    table = view_of(tmp_path / "out") if which else log_of(tmp_path / "out")
    assert table.num_rows == refused[1] - 1 > 100  # every line before the broken one
    assert facts["rows"] + facts["groups"] + sum(facts["refused"].values()) == facts["lines"]


def test_progress_adds_up(tmp_path: Path) -> None:
    write(tmp_path, Files(lines=2000, groups=100))
    seen: list[int] = []
    import_ali_ccp(*files(tmp_path), tmp_path / "out", progress=seen.append)
    assert sum(seen) == sum(path.stat().st_size for path in files(tmp_path))


def test_what_cannot_be_imported(imported: Import, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match=r"skeleton\.csv has no good line among 3 .*skeleton\.csv line 1: COLUMNS"):
        imported(COMMON_LINES)
    assert not out.exists()
    with pytest.raises(DataError, match=r"has no good line among 0 \(it is empty"):
        imported([])
    assert not out.exists()
    skeleton, common = tmp_path / "skeleton.csv", tmp_path / "common.csv"
    with pytest.raises(DataError, match=r"none\.csv does not exist"):
        import_ali_ccp(skeleton, tmp_path / "none.csv", out)
    with pytest.raises(UsageError, match="give both --test-skeleton and --test-common"):
        import_ali_ccp(skeleton, common, out, test_skeleton=skeleton)
    with pytest.raises(UsageError, match="dataset name 'Ali CCP': use lower case"):
        import_ali_ccp(skeleton, common, out, name="Ali CCP")
    with pytest.raises(UsageError, match="is given twice"):
        import_ali_ccp(skeleton, common, out, skeleton, common)
    out.mkdir()
    (out / "mine").write_text("")
    with pytest.raises(DataError, match="already exists and is not empty"):
        imported()
