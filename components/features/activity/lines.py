"""Lines of a stream in batches: what comes within a moment goes together, and silence is told too."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from typing import IO

LONGEST = 64 * 1024
"""Bytes of a line. Of a longer one the beginning alone is passed on, which is no JSON."""
MOST = 20_000
"""Lines a batch, and lines waiting beside it: then the stream waits."""


def batches(stream: IO[bytes], seconds: float, stop: threading.Event) -> Iterator[list[str]]:
    """Lists of lines, each about `seconds` after its first line came; an empty one when nothing came for that long.

    Ends with the stream, or soon after `stop` is set; what was read until then is in the last batch.
    """
    waiting: queue.Queue[str | None] = queue.Queue(MOST)
    threading.Thread(target=_read, args=(stream, waiting, stop), name="events", daemon=True).start()
    ended = False
    while not ended:
        lines, ended = _batch(waiting, seconds, stop)
        yield lines
        ended = ended or (stop.is_set() and waiting.empty())


def _batch(waiting: queue.Queue[str | None], seconds: float, stop: threading.Event) -> tuple[list[str], bool]:
    """Lines, and whether the stream has ended."""
    lines: list[str] = []
    until = time.monotonic() + seconds
    while len(lines) < MOST and not (stop.is_set() and waiting.empty()):
        try:
            line = waiting.get(timeout=max(until - time.monotonic(), 0.0005))
        except queue.Empty:
            break
        if line is None:
            return lines, True
        if not lines:
            until = time.monotonic() + seconds
        lines.append(line)
        if time.monotonic() >= until:
            break
    return lines, False


def _read(stream: IO[bytes], waiting: queue.Queue[str | None], stop: threading.Event) -> None:
    whole = True
    while not stop.is_set() and (part := stream.readline(LONGEST)):
        if whole:
            waiting.put(part.decode("utf-8", "replace"))
        whole = part.endswith(b"\n")
    waiting.put(None)
