"""What parity needs of the service's lookup (serving/lookup.py), which a stage does not import but is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Protocol

from components.contracts.online import Place
from components.contracts.spec import FeatureSpec
from components.scoring.raw import Column


class Cell(Protocol):
    """One stored value as the service sees it (serving/lookup.py)."""

    @property
    def view(self) -> str: ...
    @property
    def feature(self) -> str: ...
    @property
    def event_time(self) -> datetime | None: ...
    @property
    def status(self) -> str: ...


class Found(Protocol):
    @property
    def columns(self) -> Mapping[str, Column]: ...


class Lookup(Protocol):
    """What is used of the service's own lookup."""

    def rows(
        self, user_id: str, item_ids: list[str], context: Mapping[str, Column], group_id: str | None = None
    ) -> Found: ...

    def inspect(self, user_id: str, item_ids: list[str], group_id: str | None = None) -> Sequence[Cell]: ...

    def close(self) -> None: ...


Opener = Callable[[Place, FeatureSpec, Callable[[], float]], Lookup]
"""Opens the lookup; the function gives the time that ages are measured from, in epoch seconds."""
