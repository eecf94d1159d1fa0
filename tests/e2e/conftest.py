"""One real run, shared: a small simulated shop brought to a promoted champion.

Each test gets a copy of the home; artifacts stay where the shared run made them and are found through the stage
cache, so that only what a test changes, and what follows from it, runs again.
"""

import pytest
from e2e.command import Esmm

SHOP = ("--impressions", 80000, "--days", 12, "--users", 3000, "--items", 300, "--seed", 5)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory):
    return tmp_path_factory.mktemp("e2e")


@pytest.fixture(scope="session")
def shop(workshop):
    """A small shop with a few dirty rows."""
    folder = workshop / "shop"
    Esmm(workshop / "unused", workshop)("simulate", "--out", folder, *SHOP, "--dirty-share", 0.02)
    return folder


@pytest.fixture(scope="session")
def first(workshop, shop):
    """(command, result) of the first run, which promoted. Not to be changed: use `esmm`."""
    command = Esmm(workshop / "first", workshop)
    result = command.run(shop, "--recipe", "smoke")
    assert result["promoted"], result
    return command, result


@pytest.fixture
def esmm(first, tmp_path):
    """A command on a copy of the first run's home."""
    return first[0].copy(tmp_path / "home")
