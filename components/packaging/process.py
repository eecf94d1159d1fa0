"""A Bento as a running service: started in a session of its own, waited for, and surely stopped.

BentoML's supervisor (circus) puts each worker in a session of its own, so that stopping a process group leaves
workers behind when the supervisor is killed. Every process started here therefore inherits a marker in its
environment, and stopping ends whatever still carries it. If this process is itself killed, the kernel ends the
supervisor, which then stops its workers.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

import httpx
import psutil

from components.contracts.errors import ServiceError, UsageError
from components.contracts.paths import HOME_VARIABLE, Home
from components.contracts.quiet import QUIET

MARKER = "ESMM_SERVICE_ID"
READY_SECONDS = 90.0
STOP_SECONDS = 10.0
LOG_TAIL_LINES = 25
STARTUP_FAILED = b"Application startup failed"
"""What uvicorn says when a worker cannot load; the supervisor takes ten more seconds to give up."""
EXCEPTION = re.compile(r"^(?:[a-z_]\w*\.)*([A-Z]\w+: .+)$", re.MULTILINE)
"""The last line of a traceback, without the exception's module."""


@dataclass(frozen=True)
class Running:
    """A service that answers. `url` has no trailing slash; `log` is its output so far (absent when inherited)."""

    url: str
    pid: int
    log: Path | None


def bento_path(home: Home, tag: str) -> Path:
    """Folder of a built Bento, `<home>/bentoml/bentos/<name>/<version>`.

    Raises:
        ServiceError: if it is not (or no longer) there.
    """
    name, _, version = tag.partition(":")
    path = home.bentoml / "bentos" / name / version
    if not name or not version or not (path / "bento.yaml").is_file():
        raise ServiceError(
            f"Bento {tag!r} is not in {home.bentoml}: promote another version with `esmm models promote VERSION`, "
            "or run the pipeline again"
        )
    return path


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def check_port(host: str, port: int) -> str:
    """The host's IPv4 address, after seeing that the port can be had.

    Raises:
        ServiceError: the port is in use, or may not be opened.
        UsageError: the host is no address of this machine.
    """
    try:
        address = socket.getaddrinfo(host, port, socket.AF_INET, socket.SOCK_STREAM)[0][4][0]
        with socket.socket() as probe:
            # As the server itself binds: a port whose last connections are still in TIME_WAIT is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address, port))
    except socket.gaierror as error:
        raise UsageError(
            f"host {host!r} cannot be resolved ({error.strerror}): give an address of this machine"
        ) from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ServiceError(
                f"port {port} on {host} is in use: stop what listens there, or choose another with --port"
            ) from None
        if error.errno == errno.EADDRNOTAVAIL:
            raise UsageError(f"{host} is no address of this machine: use 127.0.0.1 or 0.0.0.0") from None
        raise ServiceError(f"port {port} on {host} cannot be opened ({error.strerror}): choose another") from None
    return str(address)


@contextmanager
def serving(
    home: Home,
    bento: Path,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    environment: Mapping[str, str] | None = None,
    log: Path | None = None,
    ready_seconds: float = READY_SECONDS,
) -> Iterator[Running]:
    """Serves the Bento in the folder `bento` while the block runs; nothing of it is left afterwards.

    The service runs in a temporary working folder, is told the home by ESMM_HOME, and writes its output to `log`
    (None: to this process's own). `port` None takes a free one.

    Raises:
        ServiceError: the port is in use, the service ended before it was ready, or was not ready in time; the
            message ends with the log's last lines.
    """
    chosen = free_port() if port is None else port
    address = check_port(host, chosen)
    marker = secrets.token_hex(8)
    folder = Path(tempfile.mkdtemp(prefix="esmm-serve-"))
    # A BENTOML_HOME of its own: two services must not share (and clean) one Prometheus folder.
    variables = {
        **os.environ,
        **QUIET,
        # A worker that cannot load the model is to be seen, not started again for ever.
        "BENTOML_CONTAINERIZED": "true",
        "PYTHONSAFEPATH": "1",
        **(environment or {}),
        HOME_VARIABLE: str(home.root),
        "BENTOML_HOME": str(folder / "bentoml"),
        "TMPDIR": str(folder),
        MARKER: marker,
    }
    command = [sys.executable, "-m", "bentoml", "serve", str(bento), "--host", address, "--port", str(chosen)]
    try:
        with (log or Path(os.devnull)).open("wb") as output:
            child = subprocess.Popen(
                command,
                cwd=folder,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=output if log is not None else None,
                stderr=subprocess.STDOUT if log is not None else None,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        try:
            reachable = "127.0.0.1" if address == "0.0.0.0" else address
            running = Running(url=f"http://{reachable}:{chosen}", pid=child.pid, log=log)
            _wait_ready(running, child, ready_seconds)
            yield running
        finally:
            stop(child, marker)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
PR_SET_PDEATHSIG = 1


def _end_with_parent() -> None:
    """In the child: the kernel sends it SIGTERM when this process dies, even of SIGKILL (Linux)."""
    if _LIBC is not None:
        _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_ready(running: Running, child: subprocess.Popen[bytes], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    with httpx.Client(timeout=2.0, trust_env=False) as client:
        while True:
            if child.poll() is not None:
                raise ServiceError(
                    f"the service ended with code {child.returncode} before it was ready{tail(running.log)}"
                )
            if running.log is not None and STARTUP_FAILED in running.log.read_bytes():
                raise ServiceError(f"the service could not load its model{tail(running.log)}")
            with suppress(httpx.HTTPError):
                if client.get(f"{running.url}/readyz").status_code == 200:
                    return
            if time.monotonic() > deadline:
                raise ServiceError(f"the service was not ready after {seconds:.0f} s{tail(running.log)}")
            time.sleep(0.2)


def tail(log: Path | None) -> str:
    """What a log says went wrong: its first exception on the same line, then its last lines."""
    if log is None:
        return ": see its output above"
    text = log.read_text(errors="replace").strip() if log.is_file() else ""
    cause = EXCEPTION.search(text)
    said = f": {cause[1]}" if cause else ""
    return f"{said}\n" + "\n".join(text.splitlines()[-LOG_TAIL_LINES:]) if text else " and wrote nothing"


def marked(marker: str) -> list[psutil.Process]:
    """Live processes whose environment carries the marker."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARKER) == marker and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def stop(child: subprocess.Popen[bytes], marker: str, seconds: float = STOP_SECONDS) -> None:
    """SIGTERM to the supervisor, which stops its workers; after `seconds`, SIGKILL to all that carry the marker."""
    if child.poll() is None:
        with suppress(ProcessLookupError):
            child.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            child.wait(seconds)
    for _ in range(3):  # a process may start another between being listed and being killed
        left = marked(marker)
        if not left:
            break
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=5)
    child.wait()


def serve(home: Home, bento_tag: str, *, port: int, host: str = "127.0.0.1") -> None:
    """Serves in the foreground until Ctrl-C, SIGTERM or the service's own end; output goes to this process's.

    Raises:
        ServiceError: the Bento is not there, the port is in use, or the service ended by itself.
    """
    path = bento_path(home, bento_tag)
    with _interruptible(), suppress(KeyboardInterrupt), serving(home, path, host=host, port=port) as running:
        print(f"ready: {running.url}/rank (stop with Ctrl-C)", file=sys.stderr, flush=True)
        while psutil.pid_exists(running.pid) and psutil.Process(running.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.5)
        raise ServiceError(f"the service {bento_tag} ended by itself: see its output above")


@contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that nothing is left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
