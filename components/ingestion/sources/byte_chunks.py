"""A file, plain or gzip, as chunks of whole lines: bounded memory whatever the file holds."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from components.contracts.errors import DataError

GZIP = b"\x1f\x8b"
LONGEST = 8 << 20
"""Bytes of a line."""
_PIECE = 1 << 16
"""Bytes read at once; gzip can make a thousand times as many of them, and no more."""
_SHOWN = 200

Progress = Callable[[int], None]


@dataclass
class Chunk:
    """Whole lines, each ended by \\n, the first of which is line `line` of the file (from 1).

    `reason` is set for a line that cannot be parsed at all (TRUNCATED, TOO_LONG): then `data` is its beginning alone.
    """

    line: int
    data: bytes
    reason: str = ""


@dataclass
class Source:
    """Reads one file once. After the last chunk, `lines` counts all its lines and `broken` says why it ended early."""

    path: Path
    progress: Progress | None = None
    lines: int = 0
    broken: str = field(default="", init=False)

    def chunks(self, size: int) -> Iterator[Chunk]:
        """Chunks of at most about `size` bytes (one longer line excepted), cut at the same places for plain and gzip.

        Raises:
            DataError: if the file cannot be opened or read.
        """
        rest, skipping = b"", False
        for block in _blocks(self._bytes(), size):
            data = block
            if skipping:
                _, newline, data = block.partition(b"\n")
                if not newline:
                    continue
                skipping = False
            data = rest + data if rest else data
            cut = data.rfind(b"\n") + 1
            if cut:
                yield self._whole(data[:cut])
            rest = data[cut:]
            if len(rest) > LONGEST:
                yield self._one(rest, "TOO_LONG")
                rest, skipping = b"", True
        if rest and self.broken:
            yield self._one(rest, "TRUNCATED")
        elif rest:
            yield self._whole(rest + b"\n")

    def _whole(self, data: bytes) -> Chunk:
        data = data.replace(b"\r\n", b"\n") if b"\r" in data else data
        chunk = Chunk(self.lines + 1, data)
        self.lines += data.count(b"\n")
        return chunk

    def _one(self, beginning: bytes, reason: str) -> Chunk:
        self.lines += 1
        return Chunk(self.lines, beginning[:_SHOWN], reason)

    def _bytes(self) -> Iterator[bytes]:
        try:
            with self.path.open("rb") as file:
                packed = file.read(len(GZIP)) == GZIP
                file.seek(0)
                pieces = self._counted(iter(lambda: file.read(_PIECE), b""))
                yield from self._unpacked(pieces) if packed else pieces
        except OSError as error:
            raise DataError(f"{self.path} cannot be read ({error.strerror}): check its path and its rights") from None

    def _counted(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            if self.progress:
                self.progress(len(piece))
            yield piece

    def _unpacked(self, raw: Iterator[bytes]) -> Iterator[bytes]:
        """Decompressed bytes of all gzip members, up to the first byte that cannot be trusted."""
        member = zlib.decompressobj(wbits=31)
        for piece in raw:
            while piece:
                if member.eof:  # another member may follow, or padding
                    piece = piece.lstrip(b"\0")
                    if not piece:
                        break
                    member = zlib.decompressobj(wbits=31)
                before = member.copy()
                try:
                    data = member.decompress(piece)
                except zlib.error as error:
                    yield from _until_broken(before, piece)
                    self.broken = f"gzip data broken ({error})"
                    return
                yield data
                piece = member.unused_data
        if not member.eof:
            self.broken = "gzip data cut short"


def _until_broken(member: zlib._Decompress, piece: bytes) -> Iterator[bytes]:
    """What can be had of a piece with an error in it: byte by byte until the error shows."""
    for at in range(len(piece)):
        try:
            yield member.decompress(piece[at : at + 1])
        except zlib.error:
            return


def _blocks(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    """The same bytes in blocks of exactly `size`, the last one shorter."""
    held: list[bytes] = []
    have = 0
    for piece in pieces:
        held.append(piece)
        have += len(piece)
        if have >= size:
            data = b"".join(held)
            whole = len(data) - len(data) % size
            yield from (data[at : at + size] for at in range(0, whole, size))
            held, have = [data[whole:]], len(data) - whole
    if have:
        yield b"".join(held)
