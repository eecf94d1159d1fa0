"""A search through the real pipeline: killed and called again it goes on, and its compiled form finds all done."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
from e2e.command import ROOT
from optuna.storages.journal import JournalFileBackend

from components.contracts.files import read_json

pytestmark = pytest.mark.e2e

SPACE = {"candidate": ["esmm", "base"], "training.lr": {"low": 1e-4, "high": 1e-2, "log": True}}
SMALL = ("--trials", 3, "--rounds", 2, "--set", "sweep.rungs=2", "--recipe", "smoke")


def kill_in_the_first_round(esmm, command):
    """Starts the command and kills it and all it started with SIGKILL, when the last trial of round 1 has begun.

    Two are trained at a time, so one of three is done then, and in the stage cache. Returns the folder of the run.
    """
    before = set(esmm.home.glob("runs/*"))
    process = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "--home", str(esmm.home), *map(str, command)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=esmm.cwd,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 200
    while not list(esmm.home.glob("runs/*/trial-2-rung-0.json")):
        assert time.monotonic() < deadline
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.02)
    (folder,) = set(esmm.home.glob("runs/*")) - before
    parents = {int(stat.parent.name): stat.read_text() for stat in Path("/proc").glob("[0-9]*/stat")}
    (child,) = (pid for pid, stat in parents.items() if stat.rsplit(")", 1)[1].split()[1] == str(process.pid))
    os.killpg(child, signal.SIGKILL)
    process.kill()
    process.wait(30)
    return folder


def test_a_killed_search_goes_on_and_its_compiled_form_finds_all_done(esmm, shop, tmp_path):
    space = tmp_path / "space.json"
    space.write_text(json.dumps(SPACE))
    command = ("run", "--sweep", space, "--data", shop, *SMALL)
    killed = kill_in_the_first_round(esmm, command)
    assert not (killed / "best.json").exists()
    statuses = {path.stem: read_json(path)["status"] for path in killed.glob("trial-*.json")}
    done = {name for name, status in statuses.items() if status == "succeeded"}
    assert statuses["trial-2-rung-0"] == "running"

    result = json.loads(esmm(*command, "--json").stdout)
    assert result["status"] == "swept"
    assert {"ingest", "validate", "retrieve", "encode", "begin", "suggest-1"} <= set(result["cached"])
    trained = {name for name in result["seconds"] if name.startswith("trial-")}
    assert "trial-2-rung-0" in trained
    assert done - trained, "what was done before the kill is not done again"
    assert {name.rsplit("-", 1)[1] for name in trained} == {"0", "1"}
    assert result["trials"][0]["state"] == "complete", "the recipe's own config"
    assert 1 <= [trial["state"] for trial in result["trials"]].count("complete") <= 2
    best = next(trial for trial in result["trials"] if trial["trial"] == result["best"]["best"])
    assert (best["state"], best["value"]) == ("complete", result["best"]["value"])
    pruned = [trial for trial in result["trials"] if trial["state"] == "pruned"]
    assert pruned
    assert all(best["rows"] > trial["rows"] for trial in pruned)
    config = read_json(Path(result["config"]))
    assert config["candidates"] == [best["params"]["candidate"]]
    assert config["training"] == {"lr": best["params"]["training.lr"]}
    journal = optuna.storages.JournalStorage(JournalFileBackend(result["study"]))
    study = optuna.load_study(study_name="esmm-sweep", storage=journal)
    assert (study.best_trial.number, study.best_value) == (best["trial"], best["value"])

    esmm("compile", "--sweep", "--rounds", 2, "--out", tmp_path / "sweep.yaml")
    again = json.loads(esmm(*command, "--pipeline", tmp_path / "sweep.yaml", "--json").stdout)
    assert again["trials"] == result["trials"]
    assert not [name for name in again["seconds"] if name.startswith(("trial-", "suggest-", "tell-"))]


def test_what_is_wrong_is_said_before_anything_starts(esmm, shop, tmp_path):
    space = tmp_path / "space.json"
    space.write_text('{"training.lr": [0.1, 0.2, "fast"]}')
    runs = set(esmm.home.glob("runs/*"))
    said = esmm("run", "--sweep", space, "--data", shop, *SMALL, code=2).stderr
    assert "training.lr = 'fast'" in said
    assert "Traceback" not in said
    assert set(esmm.home.glob("runs/*")) == runs


@pytest.mark.slow
def test_a_run_of_the_best_config_has_the_weights_of_the_best_trial(esmm, shop):
    """The recipe's own space, so with batch sizes, widths and candidates; text for a person."""
    said = esmm("run", "--sweep", "--data", shop, "--recipe", "smoke", "--trials", 6, "--rounds", 3).stdout
    folder = max(esmm.home.glob("runs/*"))
    best = read_json(folder / "record.json")["stages"]["choose"]["facts"]
    assert f"best: trial {best['best']}, {best['value']:.6f} at rung 2 of 2" in said
    trial = read_json(folder / f"trial-{best['best']}-rung-2.json")["facts"]
    result = esmm.run(shop, "--recipe", "smoke", "--config", folder / "best.json")
    assert list(result["candidates"]) == [best["params"]["candidate"]]
    winner = Path(esmm.record(result)["stages"]["collect"]["facts"]["artifacts"]["winner"])
    assert read_json(winner / "manifest.json")["files"]["weights.safetensors"] == trial["weights"]
    assert read_json(winner / "metrics.json")["cross_fitted_ctcvr_log_loss"] == trial["value"]
