"""One materialization at a time, whichever machine it runs on: a key in Redis that expires unless it is renewed."""

from __future__ import annotations

import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from redis.exceptions import LockError, RedisError

from components.contracts.errors import Busy

SECONDS = 30.0
"""How long the lock of a process that was killed stays; a live one renews it three times as often."""


@contextmanager
def exclusive(client: Any, key: str, what: str) -> Iterator[Callable[[], None]]:
    """Holds the lock `key`. Yields a check to be made before each write: it raises Busy if the lock was lost.

    Raises:
        Busy: at once if it is taken, naming the machine and the process that hold it.
    """
    lock = client.lock(key, timeout=SECONDS, thread_local=False)
    if not lock.acquire(blocking=False, token=f"{socket.gethostname()} process {os.getpid()} {uuid.uuid4().hex}"):
        holder = (client.get(key) or b"unknown").decode().rsplit(" ", 1)[0]
        raise Busy(
            f"{what} is already going on ({holder}): wait for it to end; if it was killed, run again in {SECONDS:.0f} "
            "seconds"
        )
    lost, over = threading.Event(), threading.Event()

    def renew() -> None:
        while not over.wait(SECONDS / 3):
            try:
                lock.reacquire()
            except LockError:
                lost.set()
            except RedisError:
                continue  # the next write says what is wrong

    def check() -> None:
        if lost.is_set():
            raise Busy(
                f"{what}: the lock in Redis was lost, so another run may have begun: run again when it has ended"
            )

    thread = threading.Thread(target=renew, name="lock", daemon=True)
    thread.start()
    try:
        yield check
    except RedisError:
        raise  # the server is away: the lock there expires by itself
    except BaseException:
        _release(lock)
        raise
    else:
        _release(lock)
    finally:
        over.set()


def _release(lock: Any) -> None:
    with suppress(LockError, RedisError):
        lock.release()
