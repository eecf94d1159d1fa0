"""What every way of reading an online store offers."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from components.contracts.errors import ServiceError
from components.contracts.online import Materialized
from serving.online.fields import Fields
from serving.online.rows import Block


@dataclass(frozen=True)
class Ask:
    """Rows to read: `fields` of the entities `keys`."""

    fields: Fields
    keys: Sequence[str]


@dataclass(frozen=True)
class State:
    """The store at the time of a trip: a token that differs once something was materialized, and up to when it was."""

    token: Hashable
    materialized: Materialized | None


@dataclass(frozen=True)
class Trip:
    """One round trip's answer: a block for each of the asks, in their order."""

    blocks: list[Block]
    state: State


class Reader(Protocol):
    """`where`: the store, for messages; holds no password. Safe to share between threads."""

    where: str

    def read(self, asks: Sequence[Ask]) -> Trip:
        """Raises ServiceError if the store does not answer or holds what the model cannot read."""

    def state(self) -> State:
        """Raises ServiceError if the store does not answer."""

    def close(self) -> None: ...


def broken(where: str, error: Exception | str, do: str) -> ServiceError:
    reason = " ".join(str(error).split())
    return ServiceError(f"the feature store in {where} does not answer ({reason}): {do}")
