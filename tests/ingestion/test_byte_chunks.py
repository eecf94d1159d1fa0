from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import pytest

from components.contracts.errors import DataError
from components.ingestion.sources.byte_chunks import LONGEST, Chunk, Source

LINES = [f"line {number}".encode() * (number % 7 + 1) for number in range(1, 400)]
TEXT = b"\n".join(LINES) + b"\n"


def read(path: Path, data: bytes, size: int = 100) -> tuple[list[Chunk], Source]:
    path.write_bytes(data)
    source = Source(path)
    return list(source.chunks(size)), source


@pytest.mark.parametrize("size", [1, 7, 64, 1000, 1 << 20])
def test_chunks_are_whole_lines_and_know_their_number(tmp_path: Path, size: int) -> None:
    chunks, source = read(tmp_path / "f", TEXT, size)
    assert b"".join(chunk.data for chunk in chunks) == TEXT
    line = 1
    for chunk in chunks:
        assert (chunk.line, chunk.data[-1:], chunk.reason) == (line, b"\n", "")
        line += chunk.data.count(b"\n")
    assert source.lines == line - 1 == len(LINES)
    assert not source.broken


def test_gzip_is_told_by_its_bytes_and_cut_at_the_same_places(tmp_path: Path) -> None:
    plain, _ = read(tmp_path / "plain.gz", TEXT)
    packed, source = read(tmp_path / "packed.csv", gzip.compress(TEXT))
    members, _ = read(tmp_path / "members", gzip.compress(TEXT[:700]) + gzip.compress(TEXT[700:]) + b"\0" * 512)
    assert packed == plain == members
    assert not source.broken


def test_windows_line_ends_and_a_last_line_without_one(tmp_path: Path) -> None:
    chunks, source = read(tmp_path / "f", TEXT.replace(b"\n", b"\r\n")[:-2], 33)
    assert b"".join(chunk.data for chunk in chunks) == TEXT
    assert source.lines == len(LINES)


def test_an_empty_file_has_no_chunk(tmp_path: Path) -> None:
    assert read(tmp_path / "f", b"")[0] == []


@pytest.mark.parametrize("cut", [11, 200, -9, -1])
def test_a_gzip_cut_short_keeps_what_came_before(tmp_path: Path, cut: int) -> None:
    packed = gzip.compress(TEXT)[:cut]
    held = zlib.decompressobj(wbits=31).decompress(packed)
    chunks, source = read(tmp_path / "f", packed)
    assert source.broken == "gzip data cut short"
    assert b"".join(chunk.data for chunk in chunks if not chunk.reason) == held[: held.rfind(b"\n") + 1]
    partial = held[held.rfind(b"\n") + 1 :]
    assert [chunk.data for chunk in chunks if chunk.reason == "TRUNCATED"] == ([partial] if partial else [])
    assert source.lines == held.count(b"\n") + bool(partial)


def test_a_gzip_with_broken_bytes_keeps_what_came_before(tmp_path: Path) -> None:
    text = b"".join(b"%d %d\n" % (number, number * 7919 % 104729) for number in range(50_000))
    packed = bytearray(gzip.compress(text))
    packed[len(packed) // 2 :] = b"\xff" * (len(packed) - len(packed) // 2)
    chunks, source = read(tmp_path / "f", bytes(packed), 1 << 16)
    assert source.broken.startswith("gzip data broken")
    got = b"".join(chunk.data for chunk in chunks if not chunk.reason)
    assert text.startswith(got[: len(text) // 3])
    assert len(got) > len(text) // 3
    assert chunks[-1].reason in ("TRUNCATED", "")


def test_a_wrong_checksum_is_noticed(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(TEXT))
    packed[-6] ^= 1
    chunks, source = read(tmp_path / "f", bytes(packed))
    assert b"".join(chunk.data for chunk in chunks) == TEXT
    assert "incorrect data check" in source.broken


def test_an_endless_line_is_skipped_without_being_held(tmp_path: Path) -> None:
    chunks, source = read(tmp_path / "f", b"a\n" + b"x" * (2 * LONGEST) + b"\nb\n", 1 << 20)
    assert [(chunk.line, chunk.reason) for chunk in chunks] == [(1, ""), (2, "TOO_LONG"), (3, "")]
    assert [chunk.data for chunk in chunks] == [b"a\n", b"x" * 200, b"b\n"]
    assert source.lines == 3


def test_progress_adds_up_to_the_file(tmp_path: Path) -> None:
    path, seen = tmp_path / "f", []
    path.write_bytes(gzip.compress(TEXT))
    list(Source(path, seen.append).chunks(100))
    assert sum(seen) == path.stat().st_size


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        list(Source(tmp_path).chunks(100))
