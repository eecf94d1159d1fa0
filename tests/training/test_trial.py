"""A trial comes to the same weights in one go, rung by rung and after a kill, and those are the weights of a run."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.contracts.artifacts import WEIGHTS
from components.contracts.files import read_json, read_manifest, write_manifest
from components.contracts.paths import HOME_VARIABLE
from components.contracts.trial import Asked, folder_of, read_result
from components.training import train, trial

ROOT = Path(__file__).resolve().parents[2]
SHARES = (1 / 9, 1 / 3, 1.0)


@pytest.fixture
def states(tmp_path):
    folder = tmp_path / "states"
    folder.mkdir()
    write_manifest(folder)
    return folder


def asked(config, rung, number=4, candidate="esmm"):
    return Asked(
        trial=number, rung=rung, share=SHARES[rung], candidate=candidate, params="{}", config=config.to_json()
    )  # fmt: skip


def climb(config, encoded, states, folder, rungs=(0, 1, 2)):
    """The results of a trial at these rungs, its state carried from one to the next as `tell` does."""
    found = []
    for rung in rungs:
        state = folder / f"state-{rung}"
        found.append(trial.run(asked(config, rung), encoded, states, state))
        shutil.rmtree(folder_of(states, 4), ignore_errors=True)
        shutil.copytree(state, folder_of(states, 4))
    return found


@pytest.mark.parametrize("candidate", ["esmm", "unbias", "dcmt"])
def test_rung_by_rung_or_in_one_go_it_is_the_training_of_a_run(encoded, make_config, states, tmp_path, candidate):
    config = make_config(batch_size=64)
    rungs = [asked(config, rung, candidate=candidate) for rung in range(3)]
    results = []
    for one in rungs:
        state = tmp_path / f"state-{one.rung}"
        results.append(trial.run(one, encoded, states, state))
        assert read_result(state) == results[-1]
        shutil.rmtree(folder_of(states, 4), ignore_errors=True)
        shutil.copytree(state, folder_of(states, 4))
    # 4,000 rows in 63 steps, evaluated 10 times: ninth and third are nearest to the first and the third evaluation.
    assert [result.steps for result in results] == [6, 19, 63]
    assert [result.began_at for result in results] == [0, 6, 19]
    whole = trial.run(rungs[2], encoded, tmp_path / "nothing", tmp_path / "whole")
    assert whole.began_at == 0
    assert (whole.weights, whole.value) == (results[2].weights, results[2].value)
    facts = train.run(candidate, config, encoded, tmp_path / "model")
    assert facts["eligible"], facts["reason"]
    assert read_manifest(tmp_path / "model")["files"][WEIGHTS] == whole.weights
    metrics = read_json(tmp_path / "model" / "metrics.json")
    assert metrics["cross_fitted_ctcvr_log_loss"] == whole.value
    assert metrics["best_step"] == whole.best_step


def test_the_state_of_the_last_rung_is_its_result_alone(encoded, make_config, states, tmp_path):
    climb(make_config(batch_size=64), encoded, states, tmp_path)
    names = [{path.name for path in (tmp_path / f"state-{rung}").iterdir()} for rung in range(3)]
    assert names[0] == {"trial.json", "manifest.json", "step-0000000006"}
    assert names[2] == {"trial.json", "manifest.json"}


def test_a_trial_that_stopped_early_stays_stopped(encoded, make_config, states, tmp_path):
    config = make_config(batch_size=64, embedding_lr=1.0, patience=1, evaluations=20)
    results = climb(config, encoded, states, tmp_path)
    assert results[2].steps < 63
    assert results[2].weights == trial.run(asked(config, 2), encoded, tmp_path / "none", tmp_path / "whole").weights


@pytest.mark.parametrize("damage", ["missing", "changed", "unfinished"])
def test_a_state_that_cannot_be_used_costs_time_and_nothing_else(encoded, make_config, states, tmp_path, damage):
    config = make_config(batch_size=64)
    good = climb(config, encoded, states, tmp_path, rungs=(0, 1))[1]
    shutil.rmtree(folder_of(states, 4))
    shutil.copytree(tmp_path / "state-0", folder_of(states, 4))
    checkpoint = next(folder_of(states, 4).glob("step-*"))
    if damage == "missing":
        shutil.rmtree(checkpoint)
    elif damage == "changed":
        with (checkpoint / "state.safetensors").open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\x55")
    else:
        (folder_of(states, 4) / "manifest.json").unlink()
    again = trial.run(asked(config, 1), encoded, states, tmp_path / "again")
    assert again.began_at == 0
    assert (again.weights, again.value) == (good.weights, good.value)


def test_one_that_diverges_is_written_as_such(encoded, make_config, states, tmp_path):
    config = make_config(batch_size=64, lr=1e30, embedding_lr=1e30)
    result = trial.run(asked(config, 0), encoded, states, tmp_path / "state")
    assert result.value is None
    assert "trial 4 (esmm) diverged" in result.reason
    assert read_result(tmp_path / "state") == result
    assert not list((tmp_path / "state").glob("step-*"))


KILLED = """
import sys
from pathlib import Path
from components.contracts.trial import Asked
from components.training import trial
asked, *paths = sys.argv[1:]
print(trial.run(Asked.parse(asked), *map(Path, paths)).to_json())
"""


def test_a_killed_trial_goes_on_within_its_rung(encoded, make_config, states, tmp_path):
    """A real SIGKILL; the next start finds the checkpoint under ESMM_HOME, and ends with the same weights."""
    config = make_config(batch_size=32, epochs=12, patience=1000, checkpoint_steps=20)
    one = asked(config, 1, number=7)
    home = tmp_path / "home"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), HOME_VARIABLE: str(home)}
    command = [sys.executable, "-c", KILLED, one.to_json(), str(encoded), str(states)]
    process = subprocess.Popen(
        [*command, str(tmp_path / "killed")], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 120
    while not list(home.glob("checkpoints/*/step-*")):
        assert time.monotonic() < deadline
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    done = subprocess.run(
        [*command, str(tmp_path / "resumed")], env=environment, capture_output=True, text=True, check=True
    )
    resumed = json.loads(done.stdout)
    assert resumed["began_at"] >= 20
    assert not list(home.glob("checkpoints/*")), "the checkpoints of a trial that has ended are deleted"
    whole = trial.run(one, encoded, states, tmp_path / "whole")
    assert resumed["weights"] == whole.weights
    assert resumed["steps"] == whole.steps
