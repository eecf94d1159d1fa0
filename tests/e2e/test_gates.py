"""Each gate after training closes when it must, through the whole pipeline; the champion keeps serving.

A fault is put into one component's process from outside, by a sitecustomize of the test's own: the project has no
switch that breaks it.
"""

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


AFTER_EVALUATION = {"package", "materialize", "smoke_test", "promote"}


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
