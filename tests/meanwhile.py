"""Threads that read while a test writes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def meanwhile(read: Callable[[threading.Event], None], threads: int = 2) -> Iterator[None]:
    """Within, `read` runs in so many threads; it is given an event, and returns once that is set."""
    over = threading.Event()
    readers = [threading.Thread(target=read, args=(over,)) for _ in range(threads)]
    for reader in readers:
        reader.start()
    try:
        yield
    finally:
        over.set()
        for reader in readers:
            reader.join()
