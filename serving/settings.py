"""What the service is told from outside, read once at start: a missing or wrong value stops it with a sentence."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.contracts.errors import UsageError
from components.contracts.packaged import MODEL_FOLDER, PACKAGED_JSON, Packaged
from components.contracts.paths import HOME_VARIABLE, Home

SOURCE = Path(__file__).resolve().parents[1]
"""The Bento's own source folder (`<bento>/src`), or a checkout's root."""

MAX_ITEMS = 1000
"""Items a request may ask for: beyond it, latency is no longer that of one request."""

MAX_BODY_BYTES = 1024 * 1024
"""1000 ids of 128 characters fit with some 900 bytes of context each; a 20 MB body is refused while it is read."""

THREADS = 4
"""Requests looked up at once in a worker: reading the feature store blocks, so it happens off the event loop."""


@dataclass(frozen=True)
class Settings:
    """`feast` is the live feature store's folder, None where there is no home."""

    model: Path
    packaged: Packaged
    feast: Path | None

    @staticmethod
    def load(environment: Mapping[str, str] = os.environ, source: Path = SOURCE) -> Settings:
        """Reads packaged.json beside the code and ESMM_HOME from the environment.

        Raises:
            UsageError: if the code does not lie in a Bento that packaging built.
        """
        note = source / PACKAGED_JSON
        if not note.is_file():
            raise UsageError(f"{note} is missing: the service runs from a Bento (`esmm serve`), not from a checkout")
        packaged = Packaged.parse(note.read_bytes(), where=str(note))
        home = environment.get(HOME_VARIABLE)
        return Settings(
            model=source / MODEL_FOLDER,
            packaged=packaged,
            feast=Home(Path(home).resolve()).feast(packaged.dataset) if home else None,
        )
