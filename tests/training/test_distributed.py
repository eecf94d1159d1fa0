"""Several processes come to what one comes to: every candidate's loss, on two real processes over loopback."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from servers import free_port
from training import ranks
from training.conftest import config, write_encoded

from components.contracts.artifacts import WEIGHTS
from components.contracts.errors import UsageError
from components.contracts.files import read_manifest
from components.training import distributed
from components.training.config import CANDIDATES
from components.training.processes import ALONE, Group, group
from components.training.sharding import place, share_of

TESTS = Path(__file__).parents[1]
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
"""Of losses and weights, which are of the order of one. Two processes multiply matrices of half the height, whose
products are rounded otherwise in the last place (2e-16, 1e-7), and every step passes that on. In float64 anything
larger is a mistake; float32 is what is trained in."""


def torchrun(*arguments: object, processes: int = 2, restarts: int = 0) -> list[str]:
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(processes)),
        *("--master-addr", "127.0.0.1", "--master-port", str(free_port()), "--max-restarts", str(restarts)),
        *(str(argument) for argument in arguments),
    ]


def environment(**more: str) -> dict[str, str]:
    paths = os.pathsep.join([str(TESTS.parent), str(TESTS)])
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", **more}


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoded(tmp_path_factory.mktemp("distributed") / "encoded", rows=ranks.ROWS)


@pytest.fixture(scope="module")
def by_two(encoded: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes came to, with every candidate in both types."""
    out = tmp_path_factory.mktemp("two")
    command = torchrun(TESTS / "training" / "ranks.py", encoded, out)
    done = subprocess.run(command, env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


@pytest.fixture
def precise() -> Iterator[None]:
    """float64 throughout, as `ranks.main` has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        torch.set_default_dtype(torch.float64)
        yield
        torch.set_default_dtype(torch.float32)


def compared(kind: str, candidate: str, encoded: Path, by_two: Path) -> None:
    alone = ranks.trained(encoded, candidate)
    first, second = (np.load(by_two / f"{candidate}-{kind}-{rank}.npz") for rank in range(2))
    assert set(first.files) == set(alone)
    assert alone["curve.step"].tolist() == [3, 7, 10], "a pass ends with a batch of one row"
    for name, wanted in alone.items():
        assert first[name].dtype == wanted.dtype
        np.testing.assert_allclose(first[name], wanted, rtol=0, atol=TOLERANCE[kind], err_msg=f"{candidate} {name}")
        np.testing.assert_array_equal(first[name], second[name], err_msg=f"{candidate} {name} in either process")


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_two_processes_are_exact(candidate: str, encoded: Path, by_two: Path, precise: None) -> None:
    compared("float64", candidate, encoded, by_two)


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_two_processes_train_the_same_model(candidate: str, encoded: Path, by_two: Path) -> None:
    compared("float32", candidate, encoded, by_two)


@pytest.mark.parametrize("candidate", ranks.SHARDED)
def test_sharded_tables_make_no_difference(candidate: str, by_two: Path) -> None:
    """Not even by rounding: what is read is a sum with one term, and gradients are added up in the same order."""
    whole, sharded = (np.load(by_two / f"{candidate}-{kind}-0.npz") for kind in ("float32", "sharded"))
    assert set(whole.files) == set(sharded.files)
    for name in whole.files:
        if name.startswith("weight."):
            np.testing.assert_array_equal(sharded[name], whole[name], err_msg=name)
        else:
            # Validation is shared out by other rows, and summed up in another order.
            np.testing.assert_allclose(sharded[name], whole[name], rtol=1e-7, err_msg=name)


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("height", [1, 2, 3, 10, 11])
def test_every_row_lies_in_one_process(height: int, size: int) -> None:
    whole = torch.randn(height, 4)
    seen = torch.zeros(height, dtype=torch.int64)
    for rank in range(size):
        rows = torch.arange(height, dtype=torch.int32).view(1, -1)
        places, elsewhere = place(rows, Group(rank, size))
        assert not places[elsewhere].any()
        share = share_of(whole, rank, size)
        assert share.shape == (-(-height // size), 4)
        assert torch.equal(share[places[~elsewhere].long()], whole[rows[~elsewhere].long()])
        seen += (~elsewhere).view(-1)
    assert seen.eq(1).all()


def test_a_loss_of_the_shares_alone_would_be_noticed(
    encoded: Path, by_two: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean over clicked rows of a batch is not the mean of its halves' means: the tolerance tells them apart."""

    class Halves(distributed.Step):
        def __call__(self, batch: Any) -> torch.Tensor:
            halves = [self.gradients(batch.take(half)) for half in Group(0, 2).shares(len(batch)) if _rows(half)]
            whole = halves[0][1]
            whole.dense = [torch.stack(parts).mean(0) for parts in zip(*(g.dense for _, g in halves), strict=True)]
            whole.rows = [torch.cat(parts) for parts in zip(*(g.rows for _, g in halves), strict=True)]
            read = zip(*(g.read for _, g in halves), strict=True)
            whole.read = [torch.cat(parts) / len(halves) for parts in read]
            self.apply(whole)
            return torch.stack([loss for loss, _ in halves]).mean()

    monkeypatch.setattr(distributed, "Step", Halves)
    with pytest.raises(AssertionError, match="base"):
        compared("float32", "base", encoded, by_two)


def _rows(part: slice) -> int:
    return int(part.stop - part.start)


@pytest.mark.parametrize("rows", [0, 1, 2, 7, 1024])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_shares_are_the_batch(rows: int, size: int) -> None:
    shares = Group(0, size).shares(rows)
    assert [n for share in shares for n in range(share.start, share.stop)] == list(range(rows))
    assert max(map(_rows, shares)) - min(map(_rows, shares)) <= 1


def test_one_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with group("cpu") as processes:
        assert processes is ALONE
    monkeypatch.setenv("WORLD_SIZE", "1")
    with group("cpu") as processes:
        assert processes is ALONE


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UsageError, match="2 processes on a machine with 1 GPUs"), group("cuda"):
        pass


class Job:
    """A training by its entry point on two processes, in a folder of its own."""

    def __init__(self, folder: Path, encoded: Path, **training: Any) -> None:
        folder.mkdir()
        self.folder, self.encoded = folder, encoded
        (folder / "config.json").write_text(config(**training).to_json())

    @property
    def model(self) -> Path:
        return self.folder / "model"

    @property
    def said(self) -> str:
        return (self.folder / "said").read_text()

    @contextmanager
    def running(self, restarts: int = 0) -> Iterator[subprocess.Popen[bytes]]:
        """Waits for it to end, unless the test fails before."""
        arguments = ("--candidate", "esmm", "--config", self.folder / "config.json", "--encoded", self.encoded)
        command = torchrun("-m", "components.training.job", *arguments, "--model", self.model, restarts=restarts)
        with (self.folder / "said").open("w") as said:
            child = subprocess.Popen(command, env=environment(ESMM_HOME=str(self.folder)), stderr=said)
        try:
            yield child
            child.wait(120)
        finally:
            # torchrun ends its workers with itself.
            child.terminate()
            child.wait()

    def run(self) -> int:
        with self.running() as child:
            pass
        return child.returncode

    def wait_for(self, step: int, seconds: float = 60) -> None:
        """Until there is a checkpoint of that step or a later one."""
        deadline = time.monotonic() + seconds
        while not any(int(path.name[5:]) >= step for path in self.folder.glob("checkpoints/*/step-*")):
            assert time.monotonic() < deadline, self.said[-5000:]
            time.sleep(0.01)


def test_a_training_that_diverges_ends_in_all(encoded: Path, tmp_path: Path) -> None:
    job = Job(tmp_path / "job", encoded, batch_size=50, lr=1e30, checkpoint_steps=1)
    assert job.run() == 0, job.said[-3000:]
    assert "diverged" in (job.model / "metrics.json").read_text()
    assert not (job.model / WEIGHTS).exists()
    assert (job.model / "diverged.npz").is_file()


def test_an_error_is_a_sentence_and_ends_all(tmp_path: Path) -> None:
    job = Job(tmp_path / "job", tmp_path / "nothing")
    assert job.run() != 0
    assert f"training: {tmp_path / 'nothing' / 'manifest.json'} does not exist" in job.said


@pytest.mark.slow
@pytest.mark.parametrize("tables", ["whole", "sharded"])
def test_a_killed_process_is_started_again_and_ends_alike(tables: str, encoded: Path, tmp_path: Path) -> None:
    settings = {"batch_size": 10, "evaluations": 4, "checkpoint_steps": 10, "epochs": 3, "patience": 100}
    settings["tables"] = tables
    whole, killed = Job(tmp_path / "whole", encoded, **settings), Job(tmp_path / "killed", encoded, **settings)
    assert whole.run() == 0, whole.said[-3000:]
    with killed.running(restarts=2) as child:
        for step, victim in ((40, 1), (150, 0)):
            killed.wait_for(step)
            os.kill(ranks_of(child.pid)[victim], signal.SIGKILL)
    assert child.returncode == 0, killed.said[-3000:]
    assert killed.said.count("esmm: resumed after step") == 2
    assert read_manifest(killed.model)["fingerprint"] == read_manifest(whole.model)["fingerprint"]


def ranks_of(torchrun: int) -> list[int]:
    """Process ids of its workers, by rank."""
    workers = [child for child in psutil.Process(torchrun).children() if "components.training.job" in child.cmdline()]
    return [worker.pid for worker in sorted(workers, key=lambda worker: int(worker.environ()["RANK"]))]
