"""One holder at a time; a killed holder's lock is free."""

import subprocess
import sys

import pytest

from components.contracts.errors import Busy
from components.contracts.locks import exclusive, is_held

HOLD = """
import pathlib, sys
from components.contracts.locks import exclusive
with exclusive(pathlib.Path(sys.argv[1]), "x"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    path = tmp_path / "lock"
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    yield path, process
    process.kill()
    process.communicate()


def test_the_second_is_told_who_holds_it(holder):
    path, process = holder
    assert is_held(path)
    with pytest.raises(Busy, match=f"process {process.pid}"), exclusive(path, "a run"):
        pass


def test_a_killed_holder_frees_it(holder):
    path, process = holder
    process.kill()
    process.wait()
    assert not is_held(path)
    with exclusive(path, "a run"):
        assert is_held(path)
    assert not is_held(path)
