"""One writer at a time, held by the kernel: a lock of a killed process is free again."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from components.contracts.errors import Busy


@contextmanager
def exclusive(path: Path, what: str, wait: bool = False) -> Iterator[int]:
    """Holds an advisory lock on `path` (flock); `wait` False refuses at once if it is taken.

    Yields the file descriptor: a child that inherits it holds the lock until it ends, even if its parent is killed.

    Raises:
        Busy: naming the process that holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "unknown"
            raise Busy(
                f"{what} is already going on (process {holder}): wait for it to end, or choose another home"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield file.fileno()
        finally:
            file.truncate(0)


def is_held(path: Path) -> bool:
    """Whether some live process holds the lock."""
    if not path.exists():
        return False
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
