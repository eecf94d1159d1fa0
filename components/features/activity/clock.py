"""What time it is for a stream of events: the machine's, or the recording's."""

from __future__ import annotations

import time
from typing import Literal, Protocol

SECOND = 1_000_000
AHEAD_SECONDS: dict[Literal["wall", "frozen"], float] = {"wall": 600.0, "frozen": 86_400.0}
"""How far ahead of the clock an event may be. Beyond that the line is refused: its time is broken."""


class Clock(Protocol):
    def now(self) -> int:
        """Microseconds since 1970, UTC."""

    def sees(self, event_time: int) -> None:
        """An event was taken."""

    def has_passed(self, since: int, event_time: int) -> bool:
        """Whether what was gathered since `since` should go online before an event of that time is taken."""


class WallClock:
    """The machine's time. What is ahead of it waits until it is reached."""

    def now(self) -> int:
        return time.time_ns() // 1000

    def sees(self, event_time: int) -> None:
        pass

    def has_passed(self, since: int, event_time: int) -> bool:
        return False  # who reads the stream looks at the same clock


class FrozenClock:
    """For a recording: just after the newest event, so that nothing has to wait, and equal recordings are pushed alike
    however fast they come."""

    def __init__(self, start: int, gather_seconds: float) -> None:
        self._now = start
        self._gather = round(gather_seconds * SECOND)

    def now(self) -> int:
        return self._now

    def sees(self, event_time: int) -> None:
        self._now = max(self._now, event_time + 1)

    def has_passed(self, since: int, event_time: int) -> bool:
        return event_time + 1 - since >= self._gather
