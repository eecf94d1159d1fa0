"""What was taken and is not in the offline tables yet, on disk: so that a restart loses nothing.

DIR/activity/pending.jsonl     a line each for events that wait, a push that was begun, a push that is online
DIR/activity/events/*.parquet  events of the last days that were pushed, whether or not the log has them too
DIR/activity/refused.jsonl     lines that were no events, and why
DIR/activity/push.lock
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from components.contracts.errors import CorruptArtifact
from components.contracts.files import write_text
from components.features.activity import events
from components.features.activity.events import Event

FOLDER = "activity"
PENDING, REFUSED, EVENTS, LOCK = "pending.jsonl", "refused.jsonl", "events", "push.lock"

Rows = dict[str, dict[str, list[Any]]]
"""View -> column -> values, the key first."""


@dataclass
class Push:
    """Rows computed at one moment, `stamp`; `created` once they are online. Times in microseconds."""

    stamp: int
    events: list[Event]
    rows: Rows
    created: int | None = None


@dataclass
class Pending:
    """`held`: events that are ahead of the clock and in no push yet."""

    held: list[Event] = field(default_factory=list)
    pushes: list[Push] = field(default_factory=list)


class Journal:
    def __init__(self, data: Path) -> None:
        self.folder = data / FOLDER
        self.events = self.folder / EVENTS
        self.events.mkdir(parents=True, exist_ok=True)
        empty = self.events / "part-0.parquet"
        if not empty.exists():
            pq.write_table(events.SCHEMA.empty_table(), empty)
        self._path = self.folder / PENDING
        self.pending = self._read()
        self._file = self._path.open("a", encoding="utf-8")

    def hold(self, held: list[Event]) -> None:
        self._write({"held": held}, safe=True)

    def begin(self, push: Push) -> None:
        """Before the rows are written anywhere."""
        self._write({"stamp": push.stamp, "events": push.events, "rows": push.rows}, safe=True)

    def online(self, push: Push) -> None:
        """Once they are. A crash of the machine may lose this line: the rows then count as online from the restart."""
        self._write({"online": push.stamp, "created": push.created}, safe=False)

    def settled(self, held: list[Event]) -> None:
        """All pushes are in the offline tables; `held` still wait."""
        self._file.close()
        write_text(self._path, _line({"held": held}) if held else "")
        self._file = self._path.open("a", encoding="utf-8")

    def refuse(self, line: str, reason: str) -> None:
        with (self.folder / REFUSED).open("a", encoding="utf-8") as file:
            file.write(_line({"reason": reason, "line": line}))

    def close(self) -> None:
        self._file.close()

    def _write(self, value: dict[str, Any], safe: bool) -> None:
        self._file.write(_line(value))
        self._file.flush()
        if safe:
            os.fsync(self._file.fileno())

    def _read(self) -> Pending:
        """What a killed process left; the last line may be torn, for it was not acted on."""
        found = Pending()
        lines = self._path.read_text(encoding="utf-8").split("\n") if self._path.exists() else []
        for number, line in enumerate(lines[:-1]):
            try:
                _take(found, json.loads(line))
            except (ValueError, KeyError, TypeError, StopIteration) as error:
                raise CorruptArtifact(
                    f"{self._path}, line {number + 1} is not what `esmm activity push` writes ({error!r}): move the "
                    "file away and send the events of the last minutes again"
                ) from None
        if lines and lines[-1]:
            with self._path.open("r+b") as file:
                file.truncate(len("\n".join(lines[:-1]).encode()) + (1 if len(lines) > 1 else 0))
        return found


def _take(found: Pending, value: dict[str, Any]) -> None:
    if "held" in value:
        found.held += [Event(*event) for event in value["held"]]
    elif "online" in value:
        push = next(push for push in found.pushes if push.stamp == value["online"])
        push.created = int(value["created"])
    else:
        pushed = [Event(*event) for event in value["events"]]
        found.pushes.append(Push(int(value["stamp"]), pushed, value["rows"]))
        found.held = [event for event in found.held if event not in set(pushed)]


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, allow_nan=False, separators=(",", ":")) + "\n"
