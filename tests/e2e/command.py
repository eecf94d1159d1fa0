"""The `esmm` command as a person types it, and a served champion, for end-to-end tests."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from components.contracts.paths import Home
from components.packaging import registry

ROOT = Path(__file__).resolve().parents[2]
ONE = ("--set", 'candidates=["esmm"]')
"""Where one candidate shows what is to be shown, three would only cost time."""
COPIED = ("cache", "models", "bentoml", "feast", "mlflow.db", "runs")


@dataclass
class Esmm:
    """The `esmm` command on one home."""

    home: Path
    cwd: Path

    def __call__(self, *args, env=None, code=0, timeout=400):
        """Runs `esmm --home HOME ARGS`; asserts the exit code and returns the finished process."""
        done = subprocess.run(
            [sys.executable, "-m", "pipelines", "--home", str(self.home), *map(str, args)],
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **(env or {})},
            cwd=self.cwd,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == code, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}\n{self.log()}"
        return done

    def run(self, data, *args, env=None, code=0):
        """`esmm run --json`: the parsed object (stdout holds nothing else)."""
        return json.loads(self("run", "--data", data, "--json", *args, env=env, code=code).stdout)

    def models(self):
        return json.loads(self("models", "list", "--json").stdout)

    def champion(self, dataset="shop"):
        """The champion's version number, read in this process (`models` asks the command)."""
        found = registry.champion(Home(self.home), dataset)
        return found.version if found else None

    def record(self, result):
        return json.loads((self.home / "runs" / result["run"] / "record.json").read_text())

    def decision(self, result):
        return json.loads(Path(result["decision"]).read_text())

    def log(self):
        """The end of the newest run's own output, for a failed assertion's message."""
        logs = sorted(self.home.glob("runs/*/kfp.log"))
        return logs[-1].read_text()[-3000:] if logs else ""

    def copy(self, home, names=COPIED):
        """This state, or the named parts of it, in another folder."""
        home.mkdir(parents=True)
        for name in names:
            source = self.home / name
            if source.is_dir():
                shutil.copytree(source, home / name, symlinks=True)
            elif source.exists():
                shutil.copy2(source, home / name)
        return Esmm(home, self.cwd)


@dataclass
class Served:
    """A running service. Called with `esmm rank`'s arguments it gives the parsed answer; `ask` posts a body itself."""

    esmm: Esmm
    url: str

    def __call__(self, *args):
        return json.loads(self.esmm("rank", "--url", self.url, "--json", *args).stdout)

    def ask(self, body):
        answer = httpx.post(f"{self.url}/rank", json=body, trust_env=False)
        assert answer.status_code == 200, answer.text
        return answer.json()


@contextmanager
def serving(esmm):
    """`esmm serve` on a free port; yields it as `Served`. Leaves no process behind."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "--home", str(esmm.home), "serve", "--port", str(port)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=esmm.cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + 90
        while True:
            assert server.poll() is None, server.stdout.read().decode()
            assert time.monotonic() < deadline, "the service did not come up"
            with suppress(httpx.HTTPError):
                if httpx.get(f"{url}/readyz", timeout=5, trust_env=False).status_code == 200:
                    break
            time.sleep(0.2)
        yield Served(esmm, url)
    finally:
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=60)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{url}/readyz", timeout=5, trust_env=False)
