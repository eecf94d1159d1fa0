"""One real Bento, built once: building and serving are what is tested, so neither is faked."""

import os
import secrets
from contextlib import suppress

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_model import AS_OF, make_model, rows

from components.contracts.artifacts import EVALUATION_JSON, EXPECTED, Ranges, Rows
from components.contracts.decision import Candidate, Decision, Evaluation, Metrics
from components.contracts.files import write_manifest, write_text
from components.contracts.paths import HOME_VARIABLE, Home
from components.packaging import bento


@pytest.fixture(scope="session")
def bench(tmp_path_factory):
    return tmp_path_factory.mktemp("packaging")


@pytest.fixture(scope="session")
def model(bench):
    return make_model(bench / "model")


@pytest.fixture(scope="session")
def built(bench, model):
    """(home, tag) of a home with one good Bento. Not to be changed."""
    home = Home(bench / "home")
    tag, reused = bento.build(home, bento.PackageConfig(dataset="shop"), model, "20260110T000000-aaaa")
    assert not reused
    return home, tag


@pytest.fixture(scope="session")
def expected(bench):
    """An `expected` artifact: two requests of five items, with context."""
    folder = bench / "expected"
    folder.mkdir()
    columns = {name: column[:10] for name, column in rows(seed=3).items()}
    columns["user_id"] = np.array(["u1"] * 5 + ["u2"] * 5, object)
    for name in ("hour", "device", "speed", "member", "position"):
        columns[name] = np.repeat(columns[name][[0, 5]], 5)
    table = pa.table({"request": np.repeat([0, 1], 5), **{k: pa.array(v.tolist()) for k, v in columns.items()}})
    pq.write_table(table, folder / EXPECTED)
    write_manifest(folder)
    return folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home, also in the environment."""
    monkeypatch.setenv(HOME_VARIABLE, str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return Home(tmp_path / "home")


@pytest.fixture
def evaluation(tmp_path):
    """Makes an `evaluation` artifact that promotes `esmm`, or does not."""

    def make(promote=True):
        folder = tmp_path / f"evaluation-{promote}"
        folder.mkdir()
        metrics = Metrics(
            rows=100,
            clicks=10,
            conversions=2,
            ctr_auc=0.7,
            cvr_auc_clicked=None,
            ctcvr_auc=0.8,
            ctr_log_loss=0.3,
            cvr_log_loss_clicked=0.5,
            ctcvr_log_loss=0.05,
            ctr_calibration=1.0,
            cvr_calibration_clicked=1.0,
            ctcvr_calibration=1.1,
        )
        done = Evaluation(
            decision=Decision(promote=promote, winner="esmm", champion_version=None, reasons=(), gates=()),
            candidates=(Candidate(name="esmm", eligible=True, test=metrics),),
            rows=Rows(),
            ranges=Ranges(kind="hash", train=("0", "0.6"), valid=("0.6", "0.75"), test=("0.75", "1")),
            as_of=AS_OF,
            dataset="shop",
        )
        write_text(folder / EVALUATION_JSON, done.to_json())
        write_manifest(folder)
        return folder

    return make


@pytest.fixture
def no_process_left(monkeypatch):
    """Fails the test if a process that it started, at whatever remove, outlives it."""
    name, value = "ESMM_TEST_ID", secrets.token_hex(8)
    monkeypatch.setenv(name, value)
    yield
    left = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(name) == value:
                left.append(" ".join(process.cmdline()))
    assert left == []
