"""CSV logs: values by their role, bad lines refused one by one with their number, nothing silently changed."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.contracts.dataset import data_fingerprint, read_imported, read_info
from components.contracts.errors import DataError, UsageError
from components.ingestion.sources import csv_text
from components.ingestion.sources.importing import ImportOptions
from components.ingestion.sources.joined import import_log
from components.ingestion.sources.refused import REASONS, Refused

HEADER = "impression_id,user_id,item_id,event_timestamp,click,conversion,device\n"
GOOD = "a1,007,i1,2026-05-01T10:00:00Z,1,0,phone\n"

Bring = Callable[..., tuple[Path, dict[str, Any]]]


@pytest.fixture
def bring(tmp_path: Path) -> Bring:
    def call(text: str | bytes, name: str = "log.csv", **changes: Any) -> tuple[Path, dict[str, Any]]:
        data = text.encode() if isinstance(text, str) else text
        (tmp_path / name).write_bytes(data)
        options: dict[str, Any] = {"context": {"device": None}, "out": tmp_path / "out", "name": "mine"} | changes
        mapping = options.pop("mapping", {})
        return options["out"], import_log(options.pop("log", tmp_path / name), mapping, ImportOptions(**options))

    return call


def rows(folder: Path) -> dict[str, dict[str, Any]]:
    files = sorted(folder.glob("log/dt=*/*.parquet"))
    found = [row for file in files for row in pq.read_table(str(file), partitioning=None).to_pylist()]
    return {row["impression_id"]: row for row in found}


def refused(folder: Path) -> list[tuple[str, int, str, str]]:
    files = sorted((folder / "refused").glob("*.parquet"))
    return [tuple(row.values()) for file in files for row in pq.read_table(file).to_pylist()]


def test_values_by_role(bring: Bring) -> None:
    text = HEADER.replace("device", "device,hour,price,new,zip,empty") + (
        "a1,007,i1,2026-05-01T10:00:00Z,1,0,phone,3,1.5,true,01234,\n"
        'a2,,"i,""2""",2026-05-01 12:00:00.123456+02:00,TRUE,false,,4,2,False,99999,\n'
        "\n"
    )
    names = ("device", "hour", "price", "new", "zip", "empty")
    out, facts = bring(text, context=dict.fromkeys(names))
    assert rows(out) == {
        "a1": {
            "impression_id": "a1", "user_id": "007", "item_id": "i1",
            "event_timestamp": datetime(2026, 5, 1, 10, tzinfo=UTC), "click": 1, "conversion": 0,
            "device": "phone", "hour": 3, "price": 1.5, "new": True, "zip": "01234", "empty": None,
        },
        "a2": {
            "impression_id": "a2", "user_id": None, "item_id": 'i,"2"',
            "event_timestamp": datetime(2026, 5, 1, 10, 0, 0, 123456, tzinfo=UTC), "click": 1, "conversion": 0,
            "device": None, "hour": 4, "price": 2.0, "new": False, "zip": "99999", "empty": None,
        },
    }  # fmt: skip
    assert read_info(out).context == {
        "device": "string", "hour": "int", "price": "float", "new": "bool", "zip": "string", "empty": "string",
    }  # fmt: skip
    assert facts["refused"] == {}
    assert not (out / "refused").exists()
    account = read_imported(out)
    assert account is not None
    assert (account.lines, account.refused) == (2, {})


BAD = [
    ("COLUMNS", b"b,u,i,2026-05-01T10:00:00Z,1,0"),
    ("COLUMNS", b"b,u,i,2026-05-01T10:00:00Z,1,0,phone,more"),
    ("COLUMNS", b"b,u,i,2026-05-01T10:00:00Z,1,0,pho\rne"),
    ("QUOTES", b'b,u,i,2026-05-01T10:00:00Z,1,0,"phone'),
    ("QUOTES", b'b,u,"i" i,2026-05-01T10:00:00Z,1,0,phone'),
    ("QUOTES", b'b,u"u,i,2026-05-01T10:00:00Z,1,0,"phone'),
    ("NOT_UTF8", b"b,u,i,2026-05-01T10:00:00Z,1,0,phon\xe9"),
    ("LABEL", b"b,u,i,2026-05-01T10:00:00Z,yes,0,phone"),
    ("LABEL", b"b,u,i,2026-05-01T10:00:00Z,1,2,phone"),
    ("LABEL", b"b,u,i,2026-05-01T10:00:00Z,1.0,0,phone"),
    ("TIME", b"b,u,i,01/05/2026 10:00,1,0,phone"),
    ("TIME", b"b,u,i,2026-02-30T10:00:00Z,1,0,phone"),
    ("TIME", b"b,u,i,1772359200,1,0,phone"),
    ("TIME", b"b,u,i,infinity,1,0,phone"),
    ("TIME", b"b,u,i,0000-01-01,1,0,phone"),
    ("ID", b"b,12.0,i,2026-05-01T10:00:00Z,1,0,phone"),
]


@pytest.mark.parametrize(("reason", "line"), BAD, ids=[f"{reason}-{n}" for n, (reason, _) in enumerate(BAD)])
def test_a_bad_line_is_refused_with_its_number_and_the_others_stay(bring: Bring, reason: str, line: bytes) -> None:
    data = HEADER.encode() + GOOD.encode() + line + b"\n" + b"a2,u,i2,2026-05-01T11:00:00Z,0,0,tab\n"
    out, facts = bring(data)
    assert sorted(rows(out)) == ["a1", "a2"]
    assert rows(out)["a2"]["device"] == "tab"
    assert facts["refused"] == {reason: 1}
    found = refused(out)
    assert [(file, number, why) for file, number, why, _ in found] == [("log.csv", 3, reason)]
    assert found[0][3]
    account = read_imported(out)
    assert account is not None
    assert (account.lines, account.refused) == (3, {reason: 1})
    assert any("1 of 3 lines could not be read" in note for note in facts["notes"])


def test_a_value_of_another_type_than_said_is_refused(bring: Bring) -> None:
    text = HEADER + GOOD.replace("phone", "3") + GOOD.replace("a1", "a2").replace("phone", "1O")
    out, facts = bring(text, context={"device": "int"})
    assert [row["device"] for row in rows(out).values()] == [3]
    assert refused(out) == [("log.csv", 3, "VALUE", "device=1O")]
    assert facts["context"] == {"device": "int"}


def test_a_column_that_is_mostly_numbers_is_asked_about(bring: Bring, tmp_path: Path) -> None:
    lines = [GOOD.replace("phone", str(n)) for n in range(20)] + [GOOD.replace("phone", "1O")]
    with pytest.raises(DataError, match=r"is mostly numbers, but not '1O': say what it is with --context device:int"):
        bring(HEADER + "".join(lines))
    assert not (tmp_path / "out").exists()
    assert read_info(bring(HEADER + "".join(lines), context={"device": "string"})[0]).context == {"device": "string"}


@pytest.mark.parametrize("ids", [("12.0", "13.0"), ("1", "1e5"), ("1", "2.5"), ("1", "nan")])
def test_float_ids_are_refused_for_the_whole_column(bring: Bring, ids: tuple[str, str]) -> None:
    with pytest.raises(DataError, match=r"'user_id', mapped to user_id, holds floating-point ids \(such as '"):
        bring(HEADER + "".join(GOOD.replace("007", user) for user in ids))


def test_ids_that_only_look_like_floats_are_kept(bring: Bring) -> None:
    """`1e5` is a hexadecimal id like any other where its column holds some."""
    out, facts = bring(HEADER + GOOD.replace("007", "1e5") + GOOD.replace("007", "beef").replace("a1", "a2"))
    assert [row["user_id"] for row in rows(out).values()] == ["1e5", "beef"]
    assert facts["refused"] == {}


def test_line_endings_marks_and_odd_characters(bring: Bring) -> None:
    text = HEADER + GOOD + GOOD.replace("a1", "a\x002").replace("phone", "📱 ü")
    out, _ = bring(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode().rstrip())
    assert [row["device"] for row in rows(out).values()] == ["phone", "📱 ü"]
    assert list(rows(out)) == ["a1", "a\x002"]


def test_a_folder_of_plain_and_gzipped_files(bring: Bring, tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    without = HEADER.replace("impression_id,", "").replace(",device", "")
    (folder / "a.csv").write_text(
        without + "u1,i1,2026-05-01T10:00:00Z,0,0\nu1,i1,bad,0,0\nu2,i1,2026-05-01T10:00:01Z,0,0\n"
    )
    (folder / "b.csv.gz").write_bytes(
        gzip.compress(b"device," + without.encode() + b"tab,u3,i1,2026-05-01T10:00:00Z,0,0\n")
    )
    out, facts = bring("", log=folder)
    # Numbers count on over the files and over what is refused.
    assert {name: (row["user_id"], row["device"]) for name, row in rows(out).items()} == {
        "row-0": ("u1", None), "row-2": ("u2", None), "row-3": ("u3", "tab"),
    }  # fmt: skip
    assert refused(out) == [("logs/a.csv", 3, "TIME", "event_timestamp=bad")]
    assert facts["generated_ids"]
    again, _ = bring("", log=folder, out=tmp_path / "again")
    assert data_fingerprint(out) == data_fingerprint(again)


def test_a_gzipped_file_cut_short_keeps_what_came_before_and_says_so(bring: Bring) -> None:
    lines = [GOOD.replace("a1", f"a{n}").replace("phone", f"{n * 7919 % 1000003}") for n in range(30_000)]
    data = gzip.compress((HEADER + "".join(lines)).encode())
    out, facts = bring(data[: len(data) // 2], name="log.csv.gz")
    kept = rows(out)
    assert 1_000 < len(kept) < 29_000
    assert kept[f"a{len(kept) - 1}"]["device"] == (len(kept) - 1) * 7919 % 1000003  # the last whole line
    account = read_imported(out)
    assert account is not None
    assert account.truncated == ("log.csv.gz",)
    assert facts["refused"] == {"TRUNCATED": 1}
    assert refused(out)[0][:3] == ("log.csv.gz", len(kept) + 2, "TRUNCATED")


def test_a_line_without_end_is_refused_in_bounded_memory(bring: Bring) -> None:
    out, facts = bring(HEADER + GOOD + "x" * (20 << 20) + "\n" + GOOD.replace("a1", "a2"))
    assert facts["refused"] == {"TOO_LONG": 1}
    assert [row[1] for row in refused(out)] == [3]
    assert sorted(rows(out)) == ["a1", "a2"]


def test_more_than_a_chunk_keeps_line_numbers(bring: Bring, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_text, "CHUNK", 1 << 10)
    lines = [GOOD.replace("a1", f"a{n}") if n % 10 else f"short{n}\n" for n in range(300)]
    out, facts = bring(HEADER + "".join(lines))
    assert sorted(rows(out)) == sorted(f"a{n}" for n in range(300) if n % 10)
    assert [(line, text) for _, line, _, text in refused(out)] == [(n + 2, f"short{n}") for n in range(0, 300, 10)]
    assert facts["refused"] == {"COLUMNS": 30}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "begins with no header"),
        ("\n" + HEADER, "begins with no header"),
        (HEADER.replace(",", ";"), r"is not separated by commas \(its first line is 'impression_id;"),
        (HEADER.replace("device", "user_id"), "has the column name 'user_id' twice"),
        (HEADER.replace("device", ""), "has the column name '' twice, or a column without one"),
        (HEADER.encode("utf-16"), "cannot be read as CSV"),
        (HEADER, r"has no row that can be read: check its values"),
        (HEADER + "a,b\n", r"has no row that can be read \(first: log\.csv line 2: COLUMNS 'a,b'\)"),
        (HEADER + GOOD.replace("2026-05-01T10:00:00Z", ""), "no row has a event_timestamp"),
        (HEADER + GOOD.replace("2026-05-01T10:00:00Z", "1772359200"), r"say in what with --epoch s, ms, us or ns"),
        (HEADER.replace("click", "is_click"), r"has no column 'click' for click: say which one"),
    ],
)
def test_what_is_no_log_at_all_is_one_sentence(bring: Bring, tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as error:
        bring(text)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_both_kinds_in_one_folder_are_refused(bring: Bring, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.csv").write_text(HEADER + GOOD)
    (tmp_path / "logs" / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="holds both Parquet and CSV files"):
        bring("", log=tmp_path / "logs")


@pytest.mark.parametrize(
    ("unit", "value"),
    [("s", "1777629600"), ("ms", "1777629600123"), ("us", "1777629600123456"), ("ns", "1777629600123456789")],
)
def test_epoch_times(bring: Bring, unit: Any, value: str) -> None:
    out, _ = bring(HEADER + GOOD.replace("2026-05-01T10:00:00Z", value), epoch=unit)
    micros = {"s": 0, "ms": 123_000}.get(unit, 123_456)
    assert rows(out)["a1"]["event_timestamp"] == datetime(2026, 5, 1, 10, microsecond=micros, tzinfo=UTC)


def test_an_epoch_in_another_unit_is_noticed(bring: Bring, tmp_path: Path) -> None:
    text = HEADER + GOOD.replace("2026-05-01T10:00:00Z", "1777629600000")
    with pytest.raises(DataError, match=r"has no row that can be read .*TIME 'event_timestamp=1777629600000'"):
        bring(text, epoch="s")
    with pytest.raises(DataError, match="with --epoch us the last impression was on 1970-01-21: is that what"):
        bring(text, epoch="us")
    assert not (tmp_path / "out").exists()


def test_the_zone_of_times_without_one(bring: Bring, tmp_path: Path) -> None:
    text = (
        HEADER + GOOD.replace("10:00:00Z", "10:00:00") + GOOD.replace("a1", "a2").replace("10:00:00Z", "10:00:00-05:00")
    )
    out, facts = bring(text)
    assert rows(out)["a1"]["event_timestamp"] == datetime(2026, 5, 1, 10, tzinfo=UTC)
    assert any(
        "carries no time zone and was taken as UTC (--timezone says otherwise)" in note for note in facts["notes"]
    )
    out, facts = bring(text, timezone="Europe/Berlin", out=tmp_path / "berlin")
    assert rows(out)["a1"]["event_timestamp"] == datetime(2026, 5, 1, 8, tzinfo=UTC)
    assert rows(out)["a2"]["event_timestamp"] == datetime(2026, 5, 1, 15, tzinfo=UTC)
    assert any("was taken as Europe/Berlin." in note for note in facts["notes"])
    with pytest.raises(UsageError, match="no time zone"):
        bring(text, timezone="Mars/Olympus", out=tmp_path / "mars")


def test_progress_counts_the_bytes_of_the_file(bring: Bring, tmp_path: Path) -> None:
    seen: list[int] = []
    bring(HEADER + GOOD * 50, progress=seen.append)
    assert sum(seen) == (tmp_path / "log.csv").stat().st_size


def test_every_reason_is_explained_and_every_explained_one_occurs() -> None:
    covered = {reason for reason, _ in BAD} | {"TRUNCATED", "VALUE", "TOO_LONG"}
    assert covered == set(REASONS)


cell = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=6)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    table=st.lists(st.tuples(cell, cell, cell), max_size=12),
    noise=st.lists(st.tuples(st.integers(0, 12), st.binary(max_size=12)), max_size=4),
    chunk=st.integers(8, 200),
)
def test_against_python_csv_line_by_line(
    tmp_path_factory: pytest.TempPathFactory,
    table: list[tuple[str, str, str]],
    noise: list[tuple[int, bytes]],
    chunk: int,
) -> None:
    """Whatever lies between them, lines that Python's strict reader takes are kept, value for value; others refused."""
    lines = []
    for row in table:
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(row)
        lines.append(text.getvalue().encode())
    for place, junk in noise:
        lines.insert(min(place, len(lines)), junk.replace(b"\n", b" "))
    folder = tmp_path_factory.mktemp("csv")
    (folder / "x.csv").write_bytes(b"\n".join([b"a,b,c", *lines]) + b"\n")
    expected, wrong = [], []
    for number, line in enumerate(lines, 2):
        line = line.removesuffix(b"\r")
        if not line:
            continue
        try:
            values = next(csv.reader([line.decode()], strict=True)) if b"\r" not in line else []
        except (UnicodeDecodeError, csv.Error):
            values = []
        if len(values) == 3:
            expected.append((number, *(value or None for value in values)))
        else:
            wrong.append(number)
    account = Refused(folder / "refused")
    original, csv_text.CHUNK = csv_text.CHUNK, chunk
    try:
        csv_text.stage(folder / "x.csv", "x.csv", ["c", "a", "b"], "line", folder / "x.parquet", account, None)
    finally:
        csv_text.CHUNK = original
    account.close()
    got = pq.read_table(folder / "x.parquet").to_pylist()
    assert [(row["line"], row["a"], row["b"], row["c"]) for row in got] == expected
    assert sorted(line for _, line, _, _ in refused(folder)) == wrong
