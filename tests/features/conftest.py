"""What tests of more than one module start from."""

import pytest
from features.asof_made import BIG, at, write
from features.pushing import copy_shop, make_shop

from components.contracts.paths import Home


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ESMM_HOME", str(tmp_path / "home"))
    return Home(tmp_path / "home")


@pytest.fixture
def folder(tmp_path):
    """A store's folder with two users, an item and a group."""
    full = {"count": BIG, "label": "é", "bag": ["x", "y"], "weights": [0.5, 1e-300]}
    write(tmp_path, "user", [{"key": "a", "event": at(0), **full}, {"key": "b", "event": at(0), "bag": []}])
    write(tmp_path, "item", [{"key": "a", "event": at(0), "count": 2}])
    write(tmp_path, "group", [{"key": "a", "event": at(0), "count": 3}])
    return tmp_path


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    return make_shop(tmp_path_factory.mktemp("pushed"))


@pytest.fixture
def shop(pushed, tmp_path):
    return copy_shop(pushed, tmp_path)
