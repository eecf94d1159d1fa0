"""What the service is told from outside, read once at start: a missing or wrong value stops it with a sentence."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from components.contracts.errors import UsageError
from components.contracts.online import Place
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

CACHE_VARIABLE = "ESMM_CACHE_ITEMS"
CACHED_ITEMS = 100_000
"""Items whose rows a worker keeps unless the variable says otherwise: some 30 MB at 20 features."""


@dataclass(frozen=True)
class Settings:
    """`place` is where the features are served from, None where the environment does not say: in production the
    profile's variables do, on one machine the home."""

    model: Path
    packaged: Packaged
    place: Place | None
    cache_items: int

    @staticmethod
    def load(environment: Mapping[str, str] = os.environ, source: Path = SOURCE) -> Settings:
        """Reads packaged.json beside the code, and ESMM_HOME, ESMM_PROFILE and ESMM_CACHE_ITEMS from the environment.

        Raises:
            UsageError: if the code does not lie in a Bento that packaging built; a variable that the profile needs is
                not set, or one holds what it cannot.
        """
        note = source / PACKAGED_JSON
        if not note.is_file():
            raise UsageError(f"{note} is missing: the service runs from a Bento (`esmm serve`), not from a checkout")
        packaged = Packaged.parse(note.read_bytes(), where=str(note))
        home = environment.get(HOME_VARIABLE)
        dataset = packaged.dataset
        folder = Home(Path(home).resolve()).feast(dataset) if home else Path()
        place = Place.of(folder, dataset, environment)
        return Settings(
            model=source / MODEL_FOLDER,
            packaged=packaged,
            place=place if home or place.redis is not None else None,
            cache_items=_cache_items(environment.get(CACHE_VARIABLE)),
        )


def _cache_items(text: str | None) -> int:
    if not text:
        return CACHED_ITEMS
    if not text.isdecimal():
        raise UsageError(f"{CACHE_VARIABLE}={text!r}: give a number of items, 0 for no cache")
    return int(text)
