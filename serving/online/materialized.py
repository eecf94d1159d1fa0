"""The note of what is materialized: parsed only when it changed."""

from __future__ import annotations

from pathlib import Path

from components.contracts.errors import EsmmError, ServiceError
from components.contracts.online import MATERIALIZED, Materialized, read_materialized


class FileNote:
    """`materialized.json` of a folder. `token` differs once the file was written again."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / MATERIALIZED
        self._last: tuple[tuple[int, int, int] | None, Materialized | None] = (None, None)

    def read(self) -> tuple[tuple[int, int, int] | None, Materialized | None]:
        """Token and note; None and None where there is no file. Raises ServiceError for a file that is not ours."""
        try:
            stat = self.path.stat()
        except FileNotFoundError:
            return None, None
        token = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        last = self._last
        if last[0] != token:
            try:
                last = self._last = token, read_materialized(self.path.parent)
            except EsmmError as error:
                raise ServiceError(f"{error}: run `esmm materialize`") from None
        return last


class TextNote:
    """The note as a value of the online store itself, under `key`."""

    def __init__(self, key: str) -> None:
        self.key = key
        self._last: tuple[bytes | None, Materialized | None] = (None, None)

    def read(self, text: bytes | None) -> Materialized | None:
        """Raises ServiceError for a text that is not ours."""
        last = self._last
        if last[0] != text:
            try:
                note = None if text is None else Materialized.parse(text, where=f"key {self.key!r} of the online store")
            except EsmmError as error:
                raise ServiceError(f"{error}: run `esmm materialize`") from None
            last = self._last = text, note
        return last[1]
