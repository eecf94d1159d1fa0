"""kill -9 at any moment, and the rerun ends with the same weights and the same metrics, byte for byte."""

import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
from training.kills import ended, start

from components.contracts.errors import Busy
from components.contracts.files import listing
from components.training.train import run

ARTIFACT = ("weights.safetensors", "metrics.json", "model.onnx", "manifest.json")
SETTINGS = {"checkpoint_steps": 5, "epochs": 2, "patience": 99}
"""64 steps, evaluated at 20 of them, saved at 12."""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def resumed_at(model: Path) -> int:
    """The step that the process said it resumed after, 0 if it said nothing."""
    text = Path(f"{model}.txt").read_text()
    return int(text.split("resumed after step ")[1].split()[0]) if "resumed after step" in text else 0


def checkpoints(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "checkpoints").glob("*/step-*"))


def check_same(model: Path, wanted: Path) -> None:
    assert listing(model) == listing(wanted)
    for name in ARTIFACT:
        assert (model / name).read_bytes() == (wanted / name).read_bytes(), name


def test_killed_at_steps_and_run_again(encoded: Path, home: Path, tmp_path: Path, make_config: Any) -> None:
    """Each try is killed at a step, has a model folder of its own and goes on from the checkpoint before. The loss
    draws at random; the undisturbed training is resident, the killed one streams."""
    candidate = "unbias"
    run(candidate, make_config(**SETTINGS), encoded, tmp_path / "undisturbed")
    config = make_config(**SETTINGS, data="streamed").to_json()
    # Steps of each process before it is killed; and where it begins: the last multiple of 5.
    for n, (steps, begins) in enumerate([(0, 0), (4, 0), (5, 0), (9, 5), (24, 10), (31, 30)]):
        model = tmp_path / str(n)
        assert ended(start(candidate, config, encoded, model, home, ("training.step:Step.__call__", steps))) == -9
        assert resumed_at(model) == begins
    last = tmp_path / "last"
    assert ended(start(candidate, config, encoded, last, home)) == 0
    assert resumed_at(last) == 60
    check_same(last, tmp_path / "undisturbed")
    assert not (home / "checkpoints").exists() or not list((home / "checkpoints").iterdir())


def test_killed_while_it_writes_a_checkpoint_and_after_the_last_step(
    encoded: Path, home: Path, tmp_path: Path, make_config: Any
) -> None:
    """Whatever is half-written is not used, and what is whole is."""
    config = make_config(**SETTINGS)
    run("esmm", config, encoded, tmp_path / "undisturbed")
    places = [
        ("training.checkpoint:save_file", 1, 0),
        ("training.checkpoint:write_manifest", 1, 5),
        ("training.checkpoint:sync", 1, 10),  # the tensors are on disk, the rest is not
        ("training.checkpoint:sync", 2, 10),  # renamed, but not yet known to be on disk
        ("training.checkpoint:shutil.rmtree", 0, 15),  # there are three
        ("training.fit:evaluate", 0, 20),
        ("training.train:save_onnx", 0, 20),
        ("training.train:write_manifest", 0, 60),
    ]
    for n, (call, times, begins) in enumerate(places):
        model = tmp_path / str(n)
        assert ended(start("esmm", config.to_json(), encoded, model, home, (call, times))) == -9, call
        assert resumed_at(model) == begins, call
        assert not (model / "manifest.json").exists()
    assert ended(start("esmm", config.to_json(), encoded, tmp_path / "last", home)) == 0
    assert resumed_at(tmp_path / "last") == 60
    check_same(tmp_path / "last", tmp_path / "undisturbed")


def test_two_trainings_of_one_key_do_not_meet(
    encoded: Path, home: Path, tmp_path: Path, make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESMM_HOME", str(home))
    config = make_config(**SETTINGS | {"epochs": 1000})
    first = start("esmm", config.to_json(), encoded, tmp_path / "first", home)
    while not checkpoints(home):
        time.sleep(0.02)
    os.kill(first.pid, signal.SIGSTOP)
    with pytest.raises(Busy, match=f"training of esmm .* already going on .process {first.pid}"):
        run("esmm", config, encoded, tmp_path / "second")
    assert not (tmp_path / "second").exists()
    other = make_config(max_steps=1)
    assert run("esmm", other, encoded, tmp_path / "other")["steps"] == 1
    os.kill(first.pid, signal.SIGKILL)
    assert ended(first) == -9
    left = checkpoints(home)
    short = ended(
        start("esmm", config.to_json(), encoded, tmp_path / "third", home, ("training.step:Step.__call__", 1))
    )
    assert short == -9
    assert resumed_at(tmp_path / "third") == int(left[-1].removeprefix("step-"))


def wait_until_it_trains(model: Path, process: BaseProcess) -> None:
    """It says so when it has resumed, or evaluated."""
    said = Path(f"{model}.txt")
    while process.exitcode is None and not (said.exists() and said.stat().st_size):
        time.sleep(0.005)


@pytest.mark.slow
def test_twenty_kills_at_random_moments(encoded: Path, home: Path, tmp_path: Path, make_config: Any) -> None:
    """Some are at a step, some within a checkpoint or an evaluation. Another training begins when one has ended before
    it was killed, until there were twenty kills."""
    chance, begun, seed = random.Random(0), [], 0
    while len(begun) < 20:
        config = make_config(checkpoint_steps=3, epochs=40, patience=10_000, seed=seed, data="streamed").to_json()
        assert ended(start("esmm", config, encoded, tmp_path / f"{seed}-undisturbed", tmp_path / "other")) == 0
        while True:
            model = tmp_path / f"{seed}-{len(begun)}"
            process = start("esmm", config, encoded, model, home)
            wait_until_it_trains(model, process)
            process.join(chance.uniform(0.0, 1.0) if len(begun) < 20 else 300)
            if process.exitcode is not None:
                assert ended(process) == 0
                break
            os.kill(process.pid, signal.SIGKILL)
            assert ended(process) == -9
            begun.append(resumed_at(model))
            print(f"kill {len(begun)}: begun after step {begun[-1]}, left {', '.join(checkpoints(home))}")
        check_same(model, tmp_path / f"{seed}-undisturbed")
        seed += 1
    assert len(set(begun)) > 5
