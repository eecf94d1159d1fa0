"""Each gate after training closes when it must, through the whole pipeline; the champion keeps serving.

A fault is put into one component's process from outside, by a sitecustomize of the test's own: the project has no
switch that breaks it.
"""

from pathlib import Path

import pytest
from e2e.command import ROOT

pytestmark = pytest.mark.e2e

FAULT = """
import sys
if {function!r} in sys.orig_argv:
{body}
"""

ANOTHER_GRAPH = """
import copy, torch
import components.training.train as stage
real = stage.save_onnx
def spoiled(network, *arguments):
    other = copy.deepcopy(network)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(0.01)
    real(other, *arguments)
stage.save_onnx = spoiled
"""

ANOTHER_MODEL_IN_THE_BENTO = """
import json, onnx
from onnx import numpy_helper
import components.packaging.bento as stage
from components.contracts.files import facts_of, read_manifest, write_manifest
real = stage._fill
def spoiled(context, *arguments):
    real(context, *arguments)
    (path,) = context.rglob("model.onnx")
    graph = onnx.load(path)
    for weight in graph.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT:
            weight.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(weight) * 1.05, weight.name))
    onnx.save(graph, path)
    write_manifest(path.parent, **facts_of(read_manifest(path.parent, verify=False)))
stage._fill = spoiled
"""

A_VIEW_THAT_STOPPED = """
from dataclasses import replace
from components.features.online import staging
real = staging.plan
def stopped(copied, view, before, *arguments):
    plan = real(copied, view, before, *arguments)
    return replace(plan, mode="unchanged") if before is not None and view.name == "user_activity" else plan
staging.plan = stopped
"""

AN_HOUR_OFF_ONLINE = """
from dataclasses import replace
from components.features.online import sqlite_store
real = sqlite_store.encode
def shifted(batch, view):
    rows = real(batch, view)
    return replace(rows, events=[event - 3_600_000_000 for event in rows.events])
sqlite_store.encode = shifted
"""

ANOTHER_VALUE_ONLINE = """
import sqlite3
import components.features.materialize as stage
real = stage.run
def spoiled(config, *arguments):
    facts = real(config, *arguments)
    from components.contracts.paths import Home
    with sqlite3.connect(Home.from_environment().feast(config.dataset) / "online.db") as online:
        names = [n for (n,) in online.execute("SELECT name FROM sqlite_master WHERE type = 'table'") if "profile" in n]
        assert names
        for name in names:
            online.execute(f'DELETE FROM "{name}"')
    return facts
stage.run = spoiled
"""


@pytest.fixture
def fault(tmp_path):
    """An environment in which one component's process runs with a fault."""

    def make(function, body):
        folder = tmp_path / "fault"
        folder.mkdir()
        indented = "\n".join(f"    {line}" for line in body.strip().splitlines())
        (folder / "sitecustomize.py").write_text(FAULT.format(function=function, body=indented))
        return {"PYTHONPATH": f"{folder}:{ROOT}"}

    return make


def skipped(esmm, result):
    return {name for name, stage in esmm.record(result)["stages"].items() if stage["status"] == "skipped"}


AFTER_PARITY = {"package", "materialize", "smoke_test", "promote"}
AFTER_EVALUATION = {"parity", *AFTER_PARITY}


def test_a_candidate_of_one_step(esmm, shop):
    bento = esmm.models()[0]["bento"]
    result = esmm.run(shop, "--recipe", "smoke", "--set", "training.max_steps=1", "--set", 'candidates=["esmm"]')
    assert (result["status"], result["version"]) == ("refused", None)
    closed = {gate["gate"] for gate in esmm.decision(result)["gates"] if gate["applies"] and not gate["passed"]}
    assert "non_inferiority" in closed
    assert skipped(esmm, result) == AFTER_EVALUATION
    assert esmm.champion() == 1
    assert esmm.models()[0]["bento"] == bento


def test_an_onnx_graph_that_differs_from_eager(esmm, shop, fault):
    result = esmm.run(
        shop,
        "--recipe",
        "smoke",
        "--set",
        "training.seed=1",
        "--set",
        'candidates=["esmm"]',
        env=fault("train", ANOTHER_GRAPH),
    )
    assert result["status"] == "refused"
    assert "ONNX" in " ".join(result["reasons"])
    assert all(metrics["ctr_auc"] is None for metrics in result["candidates"].values())
    assert skipped(esmm, result) == AFTER_EVALUATION
    assert esmm.champion() == 1


def test_a_view_that_is_no_longer_materialized(esmm, shop, fault):
    """Another model than the champion, fit to serve: it is refused, and the live store stays as it was."""
    live = (esmm.home / "feast" / "shop" / "online.db").read_bytes()
    changes = ("--set", "training.seed=2", "--set", 'candidates=["esmm"]')
    result = esmm.run(shop, "--recipe", "smoke", *changes, env=fault("parity", A_VIEW_THAT_STOPPED))
    assert (result["status"], result["promoted"]) == ("refused", False)
    closed = [gate["gate"] for gate in esmm.decision(result)["gates"] if gate["applies"] and not gate["passed"]]
    assert closed == ["online_parity"]
    assert "'user_impressions_7d' of user_activity" in result["reasons"][0]
    assert skipped(esmm, result) == AFTER_PARITY
    assert esmm.champion() == 1
    assert (esmm.home / "feast" / "shop" / "online.db").read_bytes() == live
    assert "Features online as offline" in Path(result["report"]).read_text()


def test_event_times_online_that_are_an_hour_off(first, shop, fault, tmp_path):
    esmm = first[0].copy(tmp_path / "home", names=["cache"])
    result = esmm.run(shop, "--recipe", "smoke", env=fault("parity", AN_HOUR_OFF_ONLINE))
    assert (result["status"], result["promoted"]) == ("refused", False)
    gate = esmm.decision(result)["gates"][-1]
    assert (gate["gate"], gate["passed"]) == ("online_parity", False)
    assert {row["largest"] for row in gate["evidence"]["differing"] if row["feature"] == "(event time)"} == {3600.0}
    assert skipped(esmm, result) == AFTER_PARITY
    assert esmm.champion() is None


@pytest.mark.parametrize(
    ("function", "body"), [("package", ANOTHER_MODEL_IN_THE_BENTO), ("materialize", ANOTHER_VALUE_ONLINE)]
)
def test_a_bento_that_answers_differently(first, shop, fault, tmp_path, function, body):
    esmm = first[0].copy(tmp_path / "home", names=["cache"])
    result = esmm.run(shop, "--recipe", "smoke", env=fault(function, body))
    assert (result["status"], result["promoted"]) == ("refused", False)
    gate = esmm.decision(result)["gates"][-1]
    assert (gate["gate"], gate["passed"]) == ("bento", False)
    assert skipped(esmm, result) == {"promote"}
    assert esmm.champion() is None
    assert "evaluate" in result["cached"]
