"""A store that is filled once, and a copy of it to spoil."""

import os
import shutil

import pytest
from lookup_made import fill


@pytest.fixture(scope="module")
def materialized(tmp_path_factory):
    root = tmp_path_factory.mktemp("lookup")
    os.environ["ESMM_HOME"] = str(root / "home")
    try:
        yield fill(root)
    finally:
        del os.environ["ESMM_HOME"]


@pytest.fixture
def store(materialized, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(materialized, tmp_path / "store")
