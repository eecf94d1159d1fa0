"""One real run, shared: a small simulated shop brought to a promoted champion.

Each test gets a copy of the home; artifacts stay where the shared run made them and are found through the stage
cache, so that only what a test changes, and what follows from it, runs again.
"""

import os

import pytest
from e2e.command import Esmm

from components.contracts.files import read_json, write_json
from components.contracts.locks import exclusive

SHOP = ("--impressions", 80000, "--days", 12, "--users", 3000, "--items", 300, "--seed", 5)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory):
    """A folder of this test run's own, the same for all of its workers."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "e2e-shared"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def shop(workshop):
    """A small shop with a few dirty rows; made by whichever worker comes first."""
    folder = workshop / "shop"
    with exclusive(workshop / "shop.lock", "the shop", wait=True):
        if not folder.exists():
            Esmm(workshop / "unused", workshop)("simulate", "--out", folder, *SHOP, "--dirty-share", 0.02)
    return folder


@pytest.fixture(scope="session")
def first(workshop, shop):
    """(command, result) of the first run, which promoted. Not to be changed: use `esmm`."""
    command = Esmm(workshop / "first", workshop)
    done = workshop / "first.json"
    with exclusive(workshop / "first.lock", "the first run", wait=True):
        if not done.exists():
            write_json(done, command.run(shop, "--recipe", "smoke"))
    result = read_json(done)
    assert result["promoted"], result
    return command, result


@pytest.fixture
def esmm(first, tmp_path):
    """A command on a copy of the first run's home."""
    return first[0].copy(tmp_path / "home")
