"""A run that is interrupted leaves a record, no process and no lock; the champion stays and the next run is right.

One that is killed outright leaves a checkpoint, from which the next run's training goes on.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from e2e.command import ONE, ROOT

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


@pytest.mark.slow
def test_killed_while_training_and_run_again(esmm, shop):
    changes = (
        "--recipe",
        "smoke",
        "--set",
        "training.seed=4",
        *ONE,
        "--set",
        "training.checkpoint_steps=7",
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "--home", str(esmm.home), "run", "--data", str(shop), *changes],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=esmm.cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(esmm.home.glob("checkpoints/*/step-*")):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    for pid in processes(str(esmm.home)):
        os.kill(pid, signal.SIGKILL)
    assert process.wait(60) == -signal.SIGKILL
    result = esmm.run(shop, *changes)
    facts = json.loads((esmm.home / "runs" / result["run"] / "train-esmm.json").read_text())["facts"]
    assert facts["eligible"]
    assert facts["resumed_at"] > 0
    assert facts["resumed_at"] % 7 == 0
    assert not list(esmm.home.glob("checkpoints/*"))
