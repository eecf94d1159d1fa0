"""A service starts, is found broken quickly, and never outlives its block."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from components.contracts.errors import ServiceError, UsageError
from components.packaging import process

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.usefixtures("no_process_left")


def reachable(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def taken():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def test_a_port_in_use_is_said_before_anything_starts(built, taken):
    home, tag = built
    started = time.monotonic()
    with pytest.raises(ServiceError, match=f"port {taken} .* in use"):
        process.serve(home, tag, port=taken)
    assert time.monotonic() - started < 1


def test_a_host_that_is_none():
    with pytest.raises(UsageError, match="no address of this machine"):
        process.check_port("192.0.2.1", process.free_port())


def test_an_unknown_bento(built):
    with pytest.raises(ServiceError, match="is not in"):
        process.bento_path(built[0], "esmm-shop:nothing")


def test_workers_are_stopped_even_if_the_supervisor_was_killed(built, tmp_path):
    home, tag = built
    with process.serving(home, process.bento_path(home, tag), log=tmp_path / "log") as service:
        supervisor = psutil.Process(service.pid)
        workers = supervisor.children(recursive=True)
        assert workers
        supervisor.send_signal(signal.SIGKILL)
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in workers)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_serve_leaves_nothing_however_it_ends(built, tmp_path, number):
    home, tag = built
    port = process.free_port()
    code = (
        "import sys; from pathlib import Path; from components.contracts.paths import Home; "
        "from components.packaging import process; "
        f"process.serve(Home(Path({str(home.root)!r})), {tag!r}, port={port})"
    )
    server = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        for line in server.stdout:
            if line.startswith("ready:"):
                break
        assert httpx.get(f"http://127.0.0.1:{port}/livez", trust_env=False).status_code == 200
        server.send_signal(number)
        output, _ = server.communicate(timeout=30)
    finally:
        server.kill()
    if number == signal.SIGKILL:
        # The kernel ends the service, which then takes a moment to go.
        deadline = time.monotonic() + 20
        while reachable(port) and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(1)
    else:
        assert server.returncode == 0, output
        assert "Traceback" not in output
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/livez", trust_env=False)
