"""A second run reuses what is still right, and only that; it promotes nothing that is not new, later and comparable."""

import os
import shutil
import subprocess
import sys
import time
from datetime import timedelta

import pyarrow.parquet as pq
import pytest
from e2e.command import ONE, ROOT

from components.contracts.locks import is_held
from components.contracts.times import format_utc, parse_utc

pytestmark = pytest.mark.e2e
UPSTREAM = {"ingest", "validate", "retrieve", "encode", "train-esmm", "train-esmm-ns", "train-base"}


def test_the_same_again_is_reused_and_promotes_nothing(esmm, shop):
    result = esmm.run(shop, "--recipe", "smoke")
    assert result["status"] == "refused"
    assert set(result["cached"]) >= UPSTREAM
    assert "identical" in " ".join(result["reasons"])
    assert esmm.champion() == 1
    third = esmm.run(shop, "--recipe", "smoke")
    assert "evaluate" in third["cached"]
    assert third["reasons"] == result["reasons"]


def test_changed_data_is_noticed(esmm, shop, first, tmp_path):
    changed = tmp_path / "shop"
    shutil.copytree(shop, changed)
    path = sorted(changed.glob("log/dt=*/*.parquet"))[3]
    table = pq.read_table(path, partitioning=None)
    pq.write_table(table.slice(0, table.num_rows - 500), path)
    result = esmm.run(changed, "--recipe", "smoke", *ONE)
    assert result["rows"]["in"] == first[1]["rows"]["in"] - 500
    assert UPSTREAM.isdisjoint(result["cached"])


def test_changed_code_is_noticed(esmm, shop, tmp_path):
    for package in ("components", "pipelines", "serving", "feature_repo"):
        shutil.copytree(ROOT / package, tmp_path / "code" / package, ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "code/components/training/losses.py").open("a") as file:
        file.write("\n# changed\n")
    result = esmm.run(shop, "--recipe", "smoke", *ONE, env={"PYTHONPATH": str(tmp_path / "code")})
    assert {"ingest", "validate", "retrieve", "encode"} <= set(result["cached"])
    assert not any(name.startswith("train") for name in result["cached"])


def as_of(esmm, first):
    return parse_utc(esmm.record(first[1])["stages"]["plan"]["facts"]["as_of"])


def test_a_run_older_than_the_champion_promotes_nothing(esmm, shop, first):
    earlier = format_utc(as_of(esmm, first) - timedelta(days=1))
    result = esmm.run(shop, "--recipe", "smoke", "--as-of", earlier, *ONE)
    assert result["status"] == "refused"
    assert "older" in " ".join(result["reasons"])
    assert esmm.record(result)["stages"]["materialize"]["status"] == "skipped"


def test_a_test_split_that_the_champion_trained_on_closes_the_comparison(esmm, shop):
    result = esmm.run(
        shop, "--recipe", "smoke", *ONE, "--set", 'split={"kind": "time", "test_days": 4.5, "valid_days": 2}'
    )
    assert result["status"] == "refused"
    gates = {gate["gate"]: gate for gate in esmm.decision(result)["gates"]}
    assert not gates["overlap"]["passed"]
    assert esmm.champion() == 1


def test_same_seed_same_bytes(esmm, shop, first, tmp_path):
    other = type(esmm)(tmp_path / "other", esmm.cwd)
    result = other.run(shop, "--recipe", "smoke", "--set", f'candidates=["{first[1]["winner"]}"]')
    assert result["cached"] == []
    weights = [next((c.home / "models").rglob("weights.safetensors")).read_bytes() for c in (first[0], other)]
    assert weights[0] == weights[1]


def test_two_runs_at_once_on_one_home(esmm, shop):
    winner = subprocess.Popen(
        [sys.executable, "-m", "pipelines", "--home", str(esmm.home), "run", "--data", str(shop), "--recipe", "smoke"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=esmm.cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not is_held(esmm.home / "run.lock"):
        assert winner.poll() is None, winner.stdout.read()
        time.sleep(0.05)
    loser = esmm("run", "--data", shop, "--recipe", "smoke", "--json", code=1)
    assert "already going on" in loser.stderr
    assert loser.stdout == ""
    said = winner.communicate(timeout=200)[0]
    assert winner.returncode == 0, said
    assert "identical" in said
    assert len(list(esmm.home.glob("runs/*"))) == 2
