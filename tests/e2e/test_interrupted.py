"""A run that is interrupted leaves a record, no process and no lock; the champion stays and the next run is right."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from e2e.command import ROOT

from components.contracts.locks import is_held

pytestmark = pytest.mark.e2e


def processes(text):
    """Ids of the processes whose command line or environment names `text`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if text.encode() in (folder / "cmdline").read_bytes() + (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return [pid for pid in found if pid != os.getpid()]


def test_interrupted_while_training(esmm, shop):
    command = [sys.executable, "-m", "pipelines", "--home", str(esmm.home), "run", "--data", str(shop)]
    process = subprocess.Popen(
        [*command, "--recipe", "smoke", "--set", "training.seed=3"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=esmm.cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while len(list(esmm.home.glob("runs/*/train-esmm.json"))) < 2:  # the first is the shared run's
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) != 0
    assert processes(str(esmm.home)) == []
    assert not is_held(esmm.home / "run.lock")
    assert len(list(esmm.home.glob("runs/*/record.json"))) == 2
    assert esmm.champion() == 1
    assert esmm.run(shop, "--recipe", "smoke")["status"] == "refused"
