"""The local runner leaves a record and no process, whatever becomes of its child."""

import subprocess
import sys
import time

from pipelines import local

SLEEPER = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']); print('up', flush=True); time.sleep(600)"  # noqa: E501


def test_the_whole_group_ends():
    child = subprocess.Popen([sys.executable, "-c", SLEEPER], stdout=subprocess.PIPE, start_new_session=True)
    assert child.stdout.readline() == b"up\n"
    local.end_group(child, grace_seconds=5)
    child.stdout.close()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and alive(child.pid):
        time.sleep(0.05)
    assert not alive(child.pid)


def alive(group):
    listing = subprocess.run(["ps", "-eo", "pgid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listing.splitlines()]
    return any(int(pgid) == group and not stat.startswith("Z") for pgid, stat in rows)
