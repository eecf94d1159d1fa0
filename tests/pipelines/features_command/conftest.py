"""Homes for `esmm features`: empty, materialized, and with models that read from it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from features_command import AS_OF, GROUPED, TABLES, Esmm, promote, write_dataset


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("ESMM_HOME", "")  # the command sets it for its children: undone after the test
    monkeypatch.delenv("ESMM_PROFILE", raising=False)


@pytest.fixture
def empty(tmp_path):
    return Esmm(tmp_path / "home")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "tiny", TABLES)


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("data") / "grouped", GROUPED, "grouped")


@pytest.fixture(scope="module")
def filled(tmp_path_factory, data):
    """A home at which `tiny` is materialized up to AS_OF."""
    esmm = Esmm(tmp_path_factory.mktemp("filled"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESMM_HOME", "")
        done = esmm("materialize", "--data", data, "--as-of", AS_OF)
    assert done.exit_code == 0, done.output
    return esmm


@pytest.fixture(scope="module")
def served(filled, tmp_path_factory):
    """A copy of the home with two models of `tiny`: the champion reads item_activity, its predecessor user_profile.

    The champion of `bare` reads no view.
    """
    root = tmp_path_factory.mktemp("served")
    esmm = Esmm(Path(shutil.copytree(filled.home.root, root / "home")))
    shutil.copytree(esmm.home.feast("tiny"), esmm.home.feast("bare"))
    promote(esmm, root / "run-1", "tiny", ("user_profile",), "frozen", None)
    promote(esmm, root / "run-2", "tiny", ("item_activity",), "wall", 1)
    promote(esmm, root / "run-3", "bare", (), "frozen", None)
    return esmm
